package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/announce"
)

// Catcher is an agent's way of receiving casts. It is safe for concurrent use.
type Catcher struct {
	cfg   CatcherConfig
	line  *Line
	net   network
	board *announce.Board
	log   *slog.Logger

	// mu guards what follows.
	mu         sync.Mutex
	ctx        context.Context // nil while not running
	running    sync.WaitGroup
	stats      CatcherStats
	receptions map[*reception]ReceptionStats
}

// NewCatcher makes a Catcher for casts of the box that line leads to. It opens
// nothing.
func NewCatcher(cfg CatcherConfig, line *Line, log *slog.Logger) (*Catcher, error) {
	return newCatcher(cfg, line, kernel{}, log)
}

func newCatcher(cfg CatcherConfig, line *Line, net network, log *slog.Logger) (*Catcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Catcher{
		cfg: cfg.withDefaults(), line: line, net: net, log: log, board: announce.NewBoard(line.Fingerprint()),
		receptions: map[*reception]ReceptionStats{},
	}, nil
}

// Run listens for the box's notices until ctx is done; then it leaves all
// sessions and waits until they are left.
func (c *Catcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	var last string
	for ctx.Err() == nil {
		channel, changed := c.line.tuned()
		c.board.Tune(channel.Epoch)
		err := c.listen(ctx, channel, changed)
		if err == nil {
			continue
		}
		if text := err.Error(); text != last {
			c.log.Warn("failed to listen for notices", "group", channel.Group, "err", err)
			last = text
		}
		select { // the network may come up later
		case <-ctx.Done():
		case <-changed:
		case <-time.After(2 * time.Second):
		}
	}
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.running.Wait()
	return nil
}

// spawn runs f in a goroutine that Run waits for. It returns false if the
// Catcher is not running.
func (c *Catcher) spawn(f func(ctx context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		return false
	}
	ctx := c.ctx
	c.running.Go(func() { f(ctx) })
	return true
}

// listen hears notices until the channel changes (nil), ctx is done (nil) or it
// fails.
func (c *Catcher) listen(ctx context.Context, channel Channel, changed <-chan struct{}) error {
	if !channel.Group.IsValid() {
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return nil
	}
	conn, err := c.join(ctx, channel.Group, channel, false)
	if err != nil {
		return err
	}
	p := startPump(conn, 16, 0)
	defer p.stop(conn)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			return nil
		case b, ok := <-p.full:
			if !ok {
				return errors.New("the socket for notices was closed")
			}
			for _, got := range b.packets {
				c.hear(got.data)
			}
			p.free <- b
		}
	}
}

// join opens a socket for a group of the box, on which bulk says that much comes.
func (c *Catcher) join(ctx context.Context, group netip.AddrPort, channel Channel, bulk bool) (conn, error) {
	iface, err := c.iface(ctx)
	if err != nil {
		return nil, err
	}
	var sources []netip.Addr
	if channel.Mode == SSM {
		for _, a := range channel.Sources {
			if a.Is4() == group.Addr().Is4() {
				sources = append(sources, a)
			}
		}
		if len(sources) == 0 {
			return nil, fmt.Errorf("join %s: the box named no source for it", group)
		}
	}
	return c.net.join(iface, group, sources, socketOptions{buffer: c.cfg.Buffer, bulk: bulk})
}

// iface is the interface to join on.
func (c *Catcher) iface(ctx context.Context) (string, error) {
	if c.cfg.Interface != "" {
		return c.cfg.Interface, nil
	}
	box, err := c.line.address(ctx)
	if err != nil {
		return "", err
	}
	return c.net.facing(box)
}

// hear takes what came on the group of notices.
func (c *Catcher) hear(raw []byte) {
	n, err := c.board.Post(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.stats.Refused++
		c.log.Debug("refused a notice", "err", err)
		return
	}
	c.stats.Notices++
	c.log.Debug("heard a notice", "object", n.ID, "title", n.Title, "group", n.Group, "state", n.State.String())
}

// Source is the cast of an object that is due or on air.
func (c *Catcher) Source(id content.ID) content.Source { return &airborne{c, id} }

// airborne is an object on air, as a content.Source.
type airborne struct {
	c  *Catcher
	id content.ID
}

// Name implements content.Source.
func (*airborne) Name() string { return "multicast" }

// Fill implements content.Source. It takes what the session brings, as it comes
// and without claims, and returns content.ErrNotHere with what is left when the
// session is over, falls silent or was never heard of.
func (a *airborne) Fill(ctx context.Context, sink content.Sink) error {
	if sink.Size() == content.UnknownSize {
		if err := sink.SetSize(a.id.Size); err != nil {
			return err
		}
	}
	if size := sink.Size(); size != a.id.Size {
		return fmt.Errorf("%s is to be put into an object of %d bytes", a.id, size)
	}
	if len(sink.Missing()) == 0 {
		return nil
	}
	n, err := a.c.await(ctx, a.id)
	if err != nil {
		return err
	}
	return a.c.receive(ctx, n, sink)
}

// await waits for the notice of a cast that is due.
func (c *Catcher) await(ctx context.Context, id content.ID) (announce.Notice, error) {
	if channel, _ := c.line.tuned(); !channel.Group.IsValid() {
		return announce.Notice{}, fmt.Errorf("the box casts nothing: %w", content.ErrNotHere)
	}
	waiting, cancel := context.WithTimeout(ctx, c.cfg.NoticeWait)
	defer cancel()
	n, err := c.board.Wait(waiting, id)
	switch {
	case ctx.Err() != nil:
		return n, ctx.Err()
	case err != nil:
		c.mu.Lock()
		c.stats.Unheard++
		c.mu.Unlock()
		return n, fmt.Errorf("no notice within %s: %w", c.cfg.NoticeWait, content.ErrNotHere)
	}
	return n, nil
}

// receive joins a session and waits until it has brought everything or nothing
// more will come.
func (c *Catcher) receive(ctx context.Context, n announce.Notice, sink content.Sink) error {
	r, err := newReception(ctx, c, n, sink)
	if err != nil {
		return fmt.Errorf("join the session of %s: %w", n.Title, err)
	}
	if !c.spawn(r.run) {
		return errors.Join(fmt.Errorf("multicast is not running: %w", content.ErrNotHere), r.shut())
	}
	select {
	case <-r.settled:
	case <-ctx.Done():
		r.cancel(ctx.Err())
		<-r.settled
	}
	if r.err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return r.err
}

// Stats gives a snapshot.
func (c *Catcher) Stats() CatcherStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Receptions = make([]ReceptionStats, 0, len(c.receptions))
	for _, r := range c.receptions {
		st.Bytes += r.Bytes
		st.Dropped += r.Dropped
		st.Receptions = append(st.Receptions, r)
	}
	slices.SortFunc(st.Receptions, func(a, b ReceptionStats) int { return slices.Compare(a.ID.Root[:], b.ID.Root[:]) })
	return st
}
