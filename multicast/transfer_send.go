package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// ErrUnconfirmed says that a FileSender sent everything and not all ackers
// confirmed it in time.
var ErrUnconfirmed = errors.New("not confirmed")

// FileSender sends files to a group in plain RFC 5740, to this package's
// FileReceiver or to foreign ones. Nothing in it is authenticated: it is for
// people and networks that they trust. Run may be called once; Stats at any
// time from any goroutine.
type FileSender struct {
	cfg FileSenderConfig
	log *slog.Logger
	net network

	// Run's goroutine alone has these.
	sender   *norm.Sender
	out      *burster
	conn     conn
	files    []*os.File
	last     norm.ObjectID
	began    time.Time
	passed   time.Time // end of the first pass
	progress time.Time // last time a symbol was sent or somebody confirmed
	nacked   time.Time // last time there was a NACK
	before   norm.SenderStats
	looked   time.Time // when the figures were brought up to date
	closing  bool
	closed   bool
	err      error

	// mu guards figures.
	mu      sync.Mutex
	figures FileSenderStats
}

// NewFileSender makes a FileSender. It opens nothing.
func NewFileSender(cfg FileSenderConfig, log *slog.Logger) (*FileSender, error) {
	return newFileSender(cfg, kernel{}, log)
}

func newFileSender(cfg FileSenderConfig, net network, log *slog.Logger) (*FileSender, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &FileSender{cfg: cfg.withDefaults(), net: net, log: log}
	for _, id := range s.cfg.Ackers {
		s.figures.Ackers = append(s.figures.Ackers, AckerStats{Node: id})
	}
	return s, nil
}

// Run sends the files. It returns nil once every acker has confirmed them or,
// without ackers, once nobody asks for anything any more. The error wraps
// ErrUnconfirmed if ackers are missing at the end.
func (s *FileSender) Run(ctx context.Context) (err error) {
	opt := socketOptions{ttl: s.cfg.TTL, buffer: 1 << 20, offload: true}
	if s.conn, err = s.net.transmit(s.cfg.Interface, s.cfg.Group.Addr(), opt); err != nil {
		return err
	}
	direct := startPump(s.conn, 32, 0)
	defer func() { err = errors.Join(err, direct.stop(s.conn)) }()
	shared := &pump{}
	if !sourceSpecific(s.cfg.Group.Addr()) {
		group, e := s.net.join(s.cfg.Interface, s.cfg.Group, nil, socketOptions{buffer: 1 << 20, replies: true, bulk: true})
		if e != nil {
			return e
		}
		shared = startPump(group, 32, 0)
		defer func() { err = errors.Join(err, shared.stop(group)) }()
	}
	defer func() { err = errors.Join(err, s.closeFiles()) }()
	if err := s.prepare(); err != nil {
		return err
	}
	return s.loop(ctx, direct, shared)
}

// prepare makes the engine and gives it the files.
func (s *FileSender) prepare() (err error) {
	cfg := s.cfg
	s.sender, err = norm.NewSender(norm.SenderConfig{
		Node: cfg.Node, Rand: rand.NewPCG(rand.Uint64(), rand.Uint64()),
		SegmentSize: cfg.SegmentSize, K: cfg.K, Parity: cfg.Parity, Interleave: cfg.Interleave,
		// Of several files each packet says which size it is a part of: libnorm
		// takes the size of the file before for one whose NORM_INFO was lost.
		Rate: cfg.Rate / 8, FTIInInfoOnly: len(cfg.Files) == 1, Anticipate: true,
	})
	if err != nil {
		return err
	}
	for _, path := range cfg.Files {
		if err := s.add(path); err != nil {
			return err
		}
	}
	if err := s.ask(); err != nil {
		return err
	}
	s.began = time.Now()
	s.out = newBurster(s.began, s.sender, cfg.Rate, cfg.SegmentSize, headers(cfg.Group.Addr()))
	return nil
}

// add opens a file and queues it.
func (s *FileSender) add(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	s.files = append(s.files, f)
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("send %s: not a regular file", path)
	}
	name := filepath.Base(path)
	if s.last, err = s.sender.Add(norm.Object{Content: f, Size: st.Size(), Info: []byte(name)}); err != nil {
		return fmt.Errorf("send %s: %w", path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.Files = append(s.figures.Files, SentFile{Path: path, Name: name, Bytes: st.Size()})
	s.figures.Size += st.Size()
	return nil
}

func (s *FileSender) closeFiles() (err error) {
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// ask has the ackers that have not confirmed asked for it.
func (s *FileSender) ask() error {
	if missing := s.missing(); len(missing) > 0 {
		return s.sender.Watermark(s.last, missing)
	}
	return nil
}

// missing lists the ackers that have not confirmed.
func (s *FileSender) missing() (nodes []norm.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.figures.Ackers {
		if !a.Confirmed {
			nodes = append(nodes, a.Node)
		}
	}
	return nodes
}

// loop drives the engine until the session is closed.
func (s *FileSender) loop(ctx context.Context, direct, shared *pump) error {
	s.log.Info("transfer began", "group", s.cfg.Group, "bytes", s.figures.Size)
	alarm := newAlarm(s.net.nap)
	defer alarm.stop()
	for {
		now := time.Now()
		if packets := s.out.take(now); len(packets) > 0 {
			if err := s.conn.send(packets, s.cfg.Group); err != nil {
				return fmt.Errorf("send to %s: %w", s.cfg.Group, err)
			}
			s.count(packets)
		}
		s.handleEvents(now)
		s.watch(now)
		if s.closed {
			break
		}
		select {
		case <-ctx.Done():
			return s.hangUp(context.Cause(ctx))
		case b := <-direct.full:
			s.hear(b, direct, true)
		case b := <-shared.full:
			s.hear(b, shared, false)
		case <-alarm.at(s.next(now)):
		}
	}
	s.publish(time.Now())
	st := s.Stats()
	s.log.Info("transfer ended", "group", s.cfg.Group, "bytes", st.Wire, "took", time.Since(s.began), "err", s.err)
	return s.err
}

// hear gives the engine what receivers say.
func (s *FileSender) hear(b *batch, from *pump, unicast bool) {
	if b == nil {
		s.end(errors.New("the socket was closed"))
		return
	}
	now := time.Now()
	for _, p := range b.packets {
		s.sender.Handle(now, p.data, unicast)
	}
	from.free <- b
}

func (s *FileSender) count(packets [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.Wire += frames(packets, s.cfg.Group.Addr())
}

// handleEvents does what the engine's events ask for.
func (s *FileSender) handleEvents(now time.Time) {
	for _, ev := range s.sender.Events() {
		switch ev.Kind {
		case norm.ObjectSent:
			if ev.Object == s.last {
				s.passed, s.progress = now, now
			}
		case norm.ObjectFailed:
			s.end(fmt.Errorf("send %s: %w", s.nameOf(ev.Object), ev.Err))
		case norm.NodeAcked:
			s.progress = now
			s.confirm(ev.Node)
		case norm.NodeFailed: // it may only be slow; watch has the last word
			if err := s.ask(); err != nil {
				s.end(err)
			}
		case norm.Flushed:
			if len(s.cfg.Ackers) == 0 && !s.passed.IsZero() {
				s.end(nil)
			}
		case norm.Closed:
			s.closed = true
		}
	}
}

// nameOf is the path of an object; ids count up with the files.
func (s *FileSender) nameOf(id norm.ObjectID) string {
	return s.cfg.Files[len(s.cfg.Files)-1-s.last.Distance(id)]
}

func (s *FileSender) confirm(id norm.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.figures.Ackers {
		if a := &s.figures.Ackers[i]; a.Node == id {
			a.Confirmed = true
		}
	}
}

// watch brings the figures up to date and looks whether it is time to end.
func (s *FileSender) watch(now time.Time) {
	if s.passed.IsZero() {
		if now.Sub(s.looked) >= watchEvery {
			s.publish(now)
		}
		return
	}
	st := s.sender.Stats()
	if st.Nacks != s.before.Nacks {
		s.nacked = now
	}
	if st.RepairPackets != s.before.RepairPackets {
		s.progress = now
	}
	s.before = st
	s.publish(now)
	if s.closing || len(s.cfg.Ackers) == 0 {
		return
	}
	missing := s.missing()
	switch {
	case len(missing) == 0 && st.PendingRepairs == 0 && now.Sub(s.nacked) >= s.quiet():
		s.end(nil) // others had the time to ask
	case len(missing) > 0 && now.Sub(s.progress) >= s.cfg.Timeout:
		s.end(fmt.Errorf("%w by %v", ErrUnconfirmed, missing))
	}
}

// quiet is how long nobody may have asked for repairs when the session ends: a
// NACK waits up to a GRTT.
func (s *FileSender) quiet() time.Duration { return 4 * s.sender.Stats().GRTT }

// next is when there is something to do again.
func (s *FileSender) next(now time.Time) time.Time {
	at := now.Add(watchEvery)
	if !s.passed.IsZero() && len(s.cfg.Ackers) > 0 && len(s.missing()) == 0 {
		if end := s.nacked.Add(s.quiet()); end.After(now) && end.Before(at) {
			at = end
		}
	}
	if wake := s.out.wake(now); !wake.IsZero() && wake.Before(at) {
		at = wake
	}
	return at
}

// end closes the session in good order: EOT, then Closed.
func (s *FileSender) end(err error) {
	if s.err == nil {
		s.err = err
	}
	if !s.closing {
		s.closing = true
		s.sender.Close()
	}
}

// hangUp tells the receivers, once and without waiting, that this is all.
func (s *FileSender) hangUp(err error) error {
	s.end(err)
	for range 4 {
		p := s.sender.Poll(time.Now(), nil)
		if len(p) == 0 {
			break
		}
		if e := s.conn.send([][]byte{p}, s.cfg.Group); e != nil {
			return errors.Join(err, e)
		}
		s.count([][]byte{p})
	}
	s.publish(time.Now())
	return err
}

// publish brings the figures up to date.
func (s *FileSender) publish(now time.Time) {
	s.looked = now
	st := s.sender.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.figures
	f.Sent = min(int64(st.DataPackets-st.AheadPackets)*int64(s.cfg.SegmentSize), f.Size)
	f.Repair, f.Packets = int64(st.RepairBytes), st.Packets
	f.Nacks, f.Acks = st.Nacks, st.Acks
	f.Seconds, f.GRTT = now.Sub(s.began).Seconds(), st.GRTT.Seconds()
	if !s.passed.IsZero() {
		f.Sent, f.Tail = f.Size, now.Sub(s.passed).Seconds()
	}
}

// Stats gives a snapshot.
func (s *FileSender) Stats() FileSenderStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.figures
	f.Files, f.Ackers = slices.Clone(f.Files), slices.Clone(f.Ackers)
	return f
}
