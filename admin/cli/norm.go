package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/multicast"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// normCmd is file transfer in plain RFC 5740. It needs no box.
type normCmd struct {
	Send normSendCmd `cmd:"" help:"Send files to a group. Succeeds when every acker has confirmed them."`
	Recv normRecvCmd `cmd:"" help:"Receive files from a group. Succeeds after --count files."`
}

type normSendCmd struct {
	Files      []string      `arg:"" name:"file" help:"Files to send." type:"existingfile"`
	Group      string        `help:"Multicast address and port." required:"" placeholder:"ADDR:PORT"`
	Interface  string        `help:"Interface to send on." required:"" placeholder:"NAME"`
	Rate       config.Rate   `help:"Rate of whole Ethernet frames." default:"100Mbit"`
	Segment    int           `help:"Payload of a data packet in bytes." default:"1400"`
	K          int           `help:"Source symbols of a block." default:"180" name:"k"`
	Parity     int           `help:"Parity symbols of a block." default:"75"`
	Interleave int           `help:"Blocks to send side by side against bursts of loss; only towards cistern." default:"1"`
	Acker      []norm.NodeID `help:"Id of a receiver that has to confirm; may be repeated." placeholder:"ID"`
	Timeout    time.Duration `help:"How long to wait for ackers once nothing is asked for any more." default:"60s"`
}

type normRecvCmd struct {
	Group       string        `help:"Multicast address and port." required:"" placeholder:"ADDR:PORT"`
	Interface   string        `help:"Interface to join on." required:"" placeholder:"NAME"`
	Dir         string        `help:"Directory for the files; made if it is not there." required:"" type:"path"`
	Node        norm.NodeID   `help:"This receiver's id." required:"" placeholder:"ID"`
	Source      string        `help:"Address of the one sender to listen to (SSM)." placeholder:"ADDR"`
	UnicastNack bool          `help:"Ask the sender alone for repairs, not the group."`
	Count       int           `help:"How many files to receive." default:"1"`
	Timeout     time.Duration `help:"How long to wait while nothing new comes." default:"60s"`
}

func (c *normSendCmd) Run(s *session) error {
	group, err := netip.ParseAddrPort(c.Group)
	if err != nil {
		return fmt.Errorf("--group: %w", err)
	}
	sender, err := multicast.NewFileSender(multicast.FileSenderConfig{
		Group: group, Interface: c.Interface, Files: c.Files, Ackers: c.Acker, Rate: int64(c.Rate),
		SegmentSize: c.Segment, K: c.K, Parity: c.Parity, Interleave: c.Interleave, Timeout: c.Timeout,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = s.follow(sender.Run, "sending", func() progress {
		st := sender.Stats()
		return progress{size: st.Size, have: st.Sent}
	})
	st := sender.Stats()
	if s.json {
		return errors.Join(err, s.printJSON(st))
	}
	if err != nil {
		return err
	}
	s.say("sent %d files, %s in %.1f s: %s on the wire, %s of it repairs", len(st.Files), size(st.Size), st.Seconds, size(st.Wire), size(st.Repair))
	for _, a := range st.Ackers {
		s.say("confirmed by %d", a.Node)
	}
	return nil
}

func (c *normRecvCmd) Run(s *session) error {
	group, err := netip.ParseAddrPort(c.Group)
	if err != nil {
		return fmt.Errorf("--group: %w", err)
	}
	cfg := multicast.FileReceiverConfig{
		Group: group, Interface: c.Interface, Dir: c.Dir, Node: c.Node, Unicast: c.UnicastNack, Count: c.Count, Timeout: c.Timeout,
	}
	if c.Source != "" {
		if cfg.Source, err = netip.ParseAddr(c.Source); err != nil {
			return fmt.Errorf("--source: %w", err)
		}
	}
	receiver, err := multicast.NewFileReceiver(cfg, slog.New(slog.NewTextHandler(s.env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	err = s.follow(receiver.Run, "receiving", func() (p progress) {
		st := receiver.Stats()
		for _, f := range st.Files {
			p.size, p.have = p.size+f.Bytes, p.have+f.Bytes
		}
		for _, f := range st.Open {
			p.size, p.have = p.size+f.Size, p.have+f.Bytes
		}
		return p
	})
	st := receiver.Stats()
	if s.json {
		return errors.Join(err, s.printJSON(st))
	}
	for _, f := range st.Files {
		s.say("%s: %s from %d in %.1f s", plain(f.Name), size(f.Bytes), f.Sender, f.Seconds)
	}
	if st.Dropped > 0 {
		s.say("%d packets did not fit into the socket's buffer (net.core.rmem_max)", st.Dropped)
	}
	return err
}

// follow draws a bar, if somebody looks, while work goes on.
func (s *session) follow(work func(context.Context) error, title string, now func() progress) error {
	screen := s.terminal()
	if screen == nil {
		return work(s.ctx)
	}
	done := make(chan error, 1)
	go func() { done <- work(s.ctx) }()
	bar := newBar(screen, title)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			_ = bar.Finish() // a bar that cannot be drawn stops nothing
			return err
		case <-tick.C:
			draw(bar, now())
		}
	}
}
