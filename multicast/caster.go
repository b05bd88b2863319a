package multicast

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// Errors of Cast.
var (
	// ErrNoCast says that the object cannot be cast: it is not complete, not
	// public or empty.
	ErrNoCast = errors.New("object cannot be cast")
	// ErrBusy says that no session can be had: as many run as may, or the Caster
	// is not running or has no interface.
	ErrBusy = errors.New("no session can be had")
)

// keptSessions is how many ended sessions Stats tells of.
const keptSessions = 32

// Caster is a box's way of sending objects to many agents at once. It is safe
// for concurrent use.
type Caster struct {
	cfg    CasterConfig
	log    *slog.Logger
	key    *announce.Key
	store  *cache.Store
	roster *Roster
	net    network
	epoch  uint64
	extent func(size int64) int64 // extentLength, but in tests

	// mu guards what follows. A session's own lock is taken inside it.
	mu       sync.Mutex
	ctx      context.Context // nil while not running
	running  sync.WaitGroup
	sessions map[uint64]*session
	groups   map[netip.Addr]bool
	ended    []SessionStats // newest first
	stats    CasterStats    // of ended sessions; Cast and Refused of all
	sequence uint64
	sources  []netip.Addr
	looked   time.Time // when sources were looked up
}

// NewCaster makes a Caster for the objects of a store, signed with the box's
// key, for the agents of the roster. It opens nothing.
func NewCaster(cfg CasterConfig, key *announce.Key, store *cache.Store, roster *Roster, log *slog.Logger) (*Caster, error) {
	return newCaster(cfg, key, store, roster, kernel{}, log)
}

func newCaster(cfg CasterConfig, key *announce.Key, store *cache.Store, roster *Roster, net network, log *slog.Logger) (*Caster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Caster{
		cfg: cfg.withDefaults(), log: log, key: key, store: store, roster: roster, net: net, epoch: rand.Uint64() | 1,
		extent:   extentLength,
		sessions: map[uint64]*session{}, groups: map[netip.Addr]bool{},
	}, nil
}

// Run lets objects be cast until ctx is done; then it ends all sessions and
// waits for them.
func (c *Caster) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.running.Wait()
	return nil
}

// Cast puts a complete public object on air and returns once its session has
// begun, long before it ends. If it is on air already, the agents expected are
// added to those waited for. The error wraps ErrNoCast or ErrBusy.
func (c *Caster) Cast(ctx context.Context, num uint64, expected ...norm.NodeID) error {
	info, ok := c.store.Get(num)
	switch {
	case !ok:
		return fmt.Errorf("cast object %d: %w", num, cache.ErrNotFound)
	case !info.Complete || !info.Public || info.ID.Size <= 0:
		return fmt.Errorf("cast %s: %w: complete %t, public %t, %d bytes", info.Title, ErrNoCast, info.Complete, info.Public, info.Size)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[num]; s != nil {
		s.expect(expected)
		return nil
	}
	if err := c.begin(info, expected); err != nil {
		c.stats.Refused++
		return fmt.Errorf("cast %s: %w", info.Title, err)
	}
	c.stats.Cast++
	return nil
}

// begin starts a session; c.mu is held.
func (c *Caster) begin(info cache.Info, expected []norm.NodeID) error {
	switch {
	case c.ctx == nil || c.ctx.Err() != nil:
		return fmt.Errorf("%w: multicast is not running", ErrBusy)
	case len(c.cfg.Interfaces) == 0:
		return fmt.Errorf("%w: multicast.interfaces names none", ErrBusy)
	case len(c.sessions) >= c.cfg.MaxSessions:
		return fmt.Errorf("%w: %d run", ErrBusy, len(c.sessions))
	}
	group, ok := c.pick(info.ID)
	if !ok {
		return fmt.Errorf("%w: no free group in %s", ErrBusy, c.cfg.Groups)
	}
	s, err := newSession(c, info, netip.AddrPortFrom(group, c.cfg.Port))
	if err != nil {
		return err
	}
	s.expect(expected)
	c.sessions[info.Num] = s
	c.groups[group] = true
	c.share()
	ctx := c.ctx
	c.running.Go(func() {
		s.run(ctx)
		c.finish(s)
	})
	return nil
}

// finish takes a session off the list.
func (c *Caster) finish(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := s.snapshot()
	delete(c.sessions, s.info.Num)
	delete(c.groups, s.group.Addr())
	c.stats.Payload += last.Sent
	c.stats.Wire += last.Wire
	c.ended = append([]SessionStats{last}, c.ended...)
	c.ended = c.ended[:min(len(c.ended), keptSessions)]
	c.share()
}

// share gives each session its part of the rate; c.mu is held.
func (c *Caster) share() {
	for _, s := range c.sessions {
		s.setRate(max(100e3, c.cfg.Rate/int64(len(c.sessions))))
	}
}

// pick chooses a free group for an object: the same one each time, if it can.
// The first 256 addresses of the range are not used for sessions; c.mu is held.
func (c *Caster) pick(id content.ID) (netip.Addr, bool) {
	bits := min(c.cfg.Groups.Addr().BitLen()-c.cfg.Groups.Bits(), 24)
	hash := binary.BigEndian.Uint32(id.Root[:])
	room := uint32(1)<<bits - 256
	if bits <= 8 { // a small range: all but the address of the notices
		room = uint32(1)<<bits - 2
	}
	for i := range min(room, 1024) {
		n := uint32(1)<<bits - 1 - (hash+i)%room
		if a := offsetAddr(c.cfg.Groups, n); !c.groups[a] {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// offsetAddr is the address n behind the first of a range.
func offsetAddr(prefix netip.Prefix, n uint32) netip.Addr {
	b := prefix.Masked().Addr().AsSlice()
	last := b[len(b)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)+n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// noticeGroup is where notices go: the second address of the range.
func (c *Caster) noticeGroup() netip.AddrPort {
	return netip.AddrPortFrom(offsetAddr(c.cfg.Groups, 1), c.cfg.Port)
}

// channel tells agents where to listen.
func (c *Caster) channel() Channel {
	ch := Channel{Epoch: c.epoch, Mode: c.cfg.Mode}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > 2*time.Second {
		c.looked, c.sources = now, nil
		for _, iface := range c.cfg.Interfaces {
			if a, err := c.net.address(iface, c.cfg.Groups.Addr()); err == nil {
				c.sources = append(c.sources, a)
			}
		}
	}
	if ch.Sources = c.sources; len(ch.Sources) > 0 {
		ch.Group = c.noticeGroup()
	}
	return ch
}

// nextSequence numbers a notice.
func (c *Caster) nextSequence() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sequence++
	return c.sequence
}

// joinable reports whether an object is on air and enough of it still to come.
func (c *Caster) joinable(num uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[num]
	return s != nil && s.joinable()
}

// report takes what an agent says of its part in a session, also shortly after
// the session's end.
func (c *Caster) report(a Agent, r Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		if s.info.ID == r.ID {
			s.report(a, r)
			return
		}
	}
	for i := range c.ended {
		if e := &c.ended[i]; e.ID == r.ID {
			if n := tally(&e.Receivers, a, r, time.Now()); n > 0 {
				c.store.CountServed(e.Object, "multicast", n)
			}
			return
		}
	}
}

// Stats gives a snapshot.
func (c *Caster) Stats() CasterStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Sessions = make([]SessionStats, 0, len(c.sessions)+len(c.ended))
	for _, s := range c.sessions {
		one := s.snapshot()
		st.Payload += one.Sent
		st.Wire += one.Wire
		st.Sessions = append(st.Sessions, one)
	}
	sortSessions(st.Sessions)
	for _, e := range c.ended {
		e.Receivers = append([]ReceiverStats(nil), e.Receivers...)
		st.Sessions = append(st.Sessions, e)
	}
	return st
}
