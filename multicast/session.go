package multicast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// Times of a session.
const (
	noticeDue   = 100 * time.Millisecond // between notices before sending begins
	noticeOnAir = 250 * time.Millisecond // and while it goes on
	noticeHolds = 3 * time.Second
	tailTime    = 5 * time.Second // from the end of the first pass to the session's
	farewell    = 3               // notices of the end
)

// session is one object on air: a NORM sender, its sockets and what is known of
// its receivers. One goroutine runs it.
type session struct {
	c       *Caster
	info    cache.Info
	group   netip.AddrPort
	each    int64 // extent size
	reader  *cache.Reader
	conns   []conn // one for each interface
	readers sync.WaitGroup
	sender  *norm.Sender

	feedback chan []byte   // packets from agents
	poke     chan struct{} // capacity 1: something under mu has changed

	// The session's goroutine alone has these.
	out     *burster
	state   announce.State
	added   uint32 // extents given to the sender
	last    norm.ObjectID
	passed  time.Time // end of the first pass
	posted  time.Time // last notice
	closing bool      // the sender was told to close
	closed  bool      // and has
	err     error

	// mu guards what follows.
	mu      sync.Mutex
	rate    int64
	figures SessionStats
}

// newSession opens the sockets of a session.
func newSession(c *Caster, info cache.Info, group netip.AddrPort) (*session, error) {
	s := &session{
		c: c, info: info, group: group, each: c.extent(info.ID.Size), state: announce.Due,
		feedback: make(chan []byte, 1024), poke: make(chan struct{}, 1), rate: c.cfg.Rate,
		figures: SessionStats{
			Object: info.Num, ID: info.ID, Title: info.Title, Group: group.String(), State: announce.Due.String(),
			Started: time.Now(), Size: info.ID.Size,
		},
	}
	var err error
	if s.reader, err = c.store.Read(info.Num); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	for _, conn := range s.conns {
		s.readers.Go(func() { s.listen(conn) })
	}
	return s, nil
}

func (s *session) open() (err error) {
	cfg := s.c.cfg
	var failed []error
	for _, iface := range cfg.Interfaces {
		conn, err := s.c.net.transmit(iface, s.group.Addr(), socketOptions{ttl: cfg.TTL, buffer: 1 << 20, offload: cfg.Offload})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.conns = append(s.conns, conn)
	}
	switch err := errors.Join(failed...); {
	case len(s.conns) == 0:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case err != nil:
		s.c.log.Warn("cast on some interfaces only", "object", s.info.Num, "err", err)
	}
	s.sender, err = norm.NewSender(norm.SenderConfig{
		Node: boxNode, Rand: rand.NewPCG(rand.Uint64(), rand.Uint64()),
		SegmentSize: cfg.SegmentSize, K: cfg.K, Parity: cfg.Parity, Interleave: cfg.Interleave, Anticipate: true, FTIInInfoOnly: true,
		Rate: cfg.Rate / 8, GRTT: 20 * time.Millisecond, RepairRounds: cfg.RepairRounds, RepairBytes: s.each / 2,
		Auth: boxAuth{s.c.key, s.c.roster},
	})
	if err != nil {
		return err
	}
	s.figures.Instance = s.sender.Instance()
	s.out = newBurster(time.Now(), s.sender, cfg.Rate, cfg.SegmentSize, headers(s.group.Addr())+lineOnly)
	return nil
}

// shut closes what open opened.
func (s *session) shut() error {
	errs := []error{s.reader.Close()}
	for _, conn := range s.conns {
		errs = append(errs, conn.close())
	}
	s.readers.Wait()
	return errors.Join(errs...)
}

// listen hands over what agents send, until the socket is closed. More than the
// session can take is lost; agents ask again.
func (s *session) listen(c conn) {
	b := newBatch(32)
	for {
		if c.receive(b) != nil {
			return
		}
		for _, p := range b.packets {
			select {
			case s.feedback <- slices.Clone(p.data):
			default:
			}
		}
	}
}

// run casts the object. It returns when the session is over.
func (s *session) run(ctx context.Context) {
	s.c.log.Info("session began", "object", s.info.Num, "title", s.info.Title, "group", s.group, "bytes", s.info.ID.Size)
	alarm := newAlarm(s.c.net.nap)
	defer alarm.stop()
	for !s.closed {
		now := time.Now()
		s.advance(now)
		s.transmit(now)
		s.handleEvents(now)
		select {
		case <-ctx.Done():
			s.hangUp()
		case p := <-s.feedback:
			s.sender.Handle(time.Now(), p, true)
			s.drainFeedback()
		case <-s.poke:
			s.applyRate()
		case <-alarm.at(s.next(now)):
		}
	}
	s.state = announce.Ended
	for range farewell {
		s.post(time.Now())
	}
	s.publish()
	if err := s.shut(); err != nil {
		s.c.log.Warn("failed to close a session", "object", s.info.Num, "err", err)
	}
	f := s.snapshot()
	s.c.log.Info("session ended", "object", s.info.Num, "title", s.info.Title, "group", s.group, "bytes", f.Wire,
		"took", f.Ended.Sub(f.Started), "receivers", len(f.Receivers), "err", s.err)
}

func (s *session) drainFeedback() {
	for range 64 {
		select {
		case p := <-s.feedback:
			s.sender.Handle(time.Now(), p, true)
		default:
			return
		}
	}
}

// advance does what time brings: notices, the start, the end.
func (s *session) advance(now time.Time) {
	expected, joined, open, late := s.count()
	cfg, age := s.c.cfg, now.Sub(s.figures.Started)
	switch {
	case s.closing:
	case s.state == announce.Due && age >= cfg.Lead && (expected == 0 || age >= cfg.MaxLead):
		if expected > 0 && joined == 0 {
			s.err = errors.New("no agent joined")
			s.close()
			break
		}
		s.state = announce.OnAir
		s.post(now)
		s.add()
	case s.state == announce.OnAir && joined > 0 && open+late == 0:
		s.close() // everybody has it or has gone
	case !s.passed.IsZero() && (now.Sub(s.passed) > tailTime || open == 0 && joined > 0):
		s.close()
	}
	interval := noticeOnAir
	if s.state == announce.Due {
		interval = noticeDue
	}
	if now.Sub(s.posted) >= interval {
		if info, ok := s.c.store.Get(s.info.Num); ok && !info.Public {
			s.fail(errPrivate)
		} else if err := s.c.store.TakenDown(s.info.Num); err != nil {
			s.fail(err)
		}
		s.post(now)
	}
}

// add gives the sender extents, so that one is always waiting.
func (s *session) add() {
	total := uint32(extents(s.info.ID.Size, s.each))
	for s.added < total && int(s.added) < s.sentExtents()+2 {
		r := extent(s.added, s.info.ID.Size, s.each)
		d := descriptor{id: s.info.ID, index: s.added, off: r.Off, length: r.Len()}
		id, err := s.sender.Add(norm.Object{
			Content: io.NewSectionReader(s.reader, r.Off, r.Len()), Size: r.Len(), Info: d.append(nil),
		})
		if err != nil {
			s.fail(fmt.Errorf("send extent %d: %w", s.added, err))
			return
		}
		s.added++
		s.last = id
	}
}

// sentExtents is how many extents have been passed once.
func (s *session) sentExtents() int { return int(s.firstPass() / s.each) }

// firstPass is how many bytes of the object have been sent once.
func (s *session) firstPass() int64 {
	st := s.sender.Stats()
	return min(int64(st.DataPackets-st.AheadPackets)*int64(s.c.cfg.SegmentSize), s.info.ID.Size)
}

// transmit sends a burst, if one may go.
func (s *session) transmit(now time.Time) {
	if s.state == announce.Due && !s.closing {
		return
	}
	s.send(s.out.take(now), s.group)
}

// send sends packets on every interface and counts them once.
func (s *session) send(packets [][]byte, to netip.AddrPort) {
	if len(packets) == 0 {
		return
	}
	for _, conn := range s.conns {
		if err := conn.send(packets, to); err != nil {
			s.fail(fmt.Errorf("send to %s: %w", to, err))
		}
	}
	s.mu.Lock()
	s.figures.Wire += frames(packets, to.Addr())
	s.mu.Unlock()
}

// next is when the session has something to do again.
func (s *session) next(now time.Time) time.Time {
	if s.state == announce.Due && !s.closing {
		return now.Add(10 * time.Millisecond)
	}
	at := s.posted.Add(noticeOnAir)
	if wake := s.out.wake(now); !wake.IsZero() && wake.Before(at) {
		return wake
	}
	return at
}

// post sends a signed notice on every interface, each with its own address.
func (s *session) post(now time.Time) {
	s.posted = now
	cfg := s.c.cfg
	for i, conn := range s.conns {
		b, err := s.c.key.Seal(announce.Notice{
			Epoch: s.c.epoch, Sequence: s.c.nextSequence(), Issued: now, Lifetime: noticeHolds,
			State: s.state, ID: s.info.ID, Title: s.info.Title, Group: s.group, Feedback: conn.local(),
			Node: uint32(boxNode), Instance: s.sender.Instance(),
			SegmentSize: uint16(cfg.SegmentSize), K: uint8(cfg.K), Parity: uint8(cfg.Parity),
			ExtentSize: s.each, Sent: s.firstPass(),
		})
		if err == nil {
			err = conn.send([][]byte{b}, s.c.noticeGroup())
		}
		if err != nil {
			s.fail(fmt.Errorf("post notice: %w", err))
			return
		}
		if i == 0 {
			s.mu.Lock()
			s.figures.Wire += int64(len(b) + headers(s.group.Addr()))
			s.mu.Unlock()
		}
	}
	s.publish()
}
