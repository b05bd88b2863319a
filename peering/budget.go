package peering

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// budget bounds the connections to peers outside the LAN, over all torrents and
// whoever opens them. A slot is taken before the first packet of a dial is sent
// and given back when the connection is closed, so half-open connections count.
type budget struct {
	max     int
	changed func() // called without the lock when a slot has become free

	// mu guards what follows; nothing else is taken under it.
	mu          sync.Mutex
	taken       int // slots, half-open ones included
	established int
	peak        int
	waiting     []chan struct{} // dials that wait for a slot, oldest first
	conns       map[string]*outside
}

func newBudget(max int, changed func()) *budget {
	return &budget{max: max, changed: changed, conns: map[string]*outside{}}
}

// take waits for a slot.
func (b *budget) take(ctx context.Context) error {
	if b.tryTake() {
		return nil
	}
	b.mu.Lock()
	turn := make(chan struct{})
	b.waiting = append(b.waiting, turn)
	b.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiting {
		if w == turn {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	return nil // it came in the same moment
}

// tryTake takes a slot if one is free and nobody waits for it.
func (b *budget) tryTake() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken >= b.max || len(b.waiting) > 0 {
		return false
	}
	b.taken++
	return true
}

// free gives a slot back, or hands it to the dial that waited longest.
func (b *budget) free() {
	b.mu.Lock()
	if len(b.waiting) > 0 {
		close(b.waiting[0])
		b.waiting = b.waiting[1:]
	} else {
		b.taken--
	}
	b.mu.Unlock()
	b.changed()
}

// full says whether a new connection would be one too many.
func (b *budget) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.taken >= b.max
}

func (b *budget) figures() (established, taken, peak int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.established, b.taken, b.peak
}

// hold makes a slot last as long as the connection. gone is called once, when
// the connection is closed.
func (b *budget) hold(conn net.Conn, limit *rate.Limiter, gone func()) net.Conn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a closed connection leaves no state behind
	}
	o := &outside{Conn: conn, budget: b, limit: limit, gone: gone}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.established++
	b.peak = max(b.peak, b.established)
	b.conns[conn.RemoteAddr().String()] = o
	return o
}

// closeConn closes the connection to addr, if it is one to the outside.
func (b *budget) closeConn(addr string) bool {
	b.mu.Lock()
	o := b.conns[addr]
	b.mu.Unlock()
	if o == nil {
		return false
	}
	_ = o.Close()
	return true
}

// outside is a connection to a peer outside the LAN: it holds a slot and is
// slowed down in what it sends.
type outside struct {
	net.Conn
	budget *budget
	limit  *rate.Limiter
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	gone   func()
}

// writeUnit is how much is sent at once under the upload limit, in bytes.
const writeUnit = 16 << 10

func (o *outside) Write(p []byte) (sent int, err error) {
	if o.limit == nil {
		return o.Conn.Write(p)
	}
	for len(p) > 0 {
		part := p[:min(len(p), writeUnit)]
		if err := o.limit.WaitN(o.ctx, len(part)); err != nil {
			return sent, net.ErrClosed
		}
		n, err := o.Conn.Write(part)
		sent += n
		if err != nil {
			return sent, err
		}
		p = p[n:]
	}
	return sent, nil
}

func (o *outside) Close() error {
	err := net.ErrClosed
	o.once.Do(func() {
		err = o.Conn.Close()
		o.cancel()
		b := o.budget
		b.mu.Lock()
		b.established--
		if key := o.RemoteAddr().String(); b.conns[key] == o {
			delete(b.conns, key)
		}
		b.mu.Unlock()
		b.free()
		o.gone()
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// newUploadLimit makes the limiter that all peers outside share.
func newUploadLimit(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond < 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(writeUnit, int(bytesPerSecond/4)))
}

// book remembers peers whose connection failed or ended, to try them again: the
// client itself tries an address once.
type book struct {
	after time.Duration

	// mu guards what follows; nothing else is taken under it.
	mu    sync.Mutex
	peers map[netip.AddrPort]*contact
}

type contact struct {
	failures int
	due      time.Time
}

const (
	maxContacts = 512
	maxFailures = 6
)

func newBook(after time.Duration) *book {
	return &book{after: after, peers: map[netip.AddrPort]*contact{}}
}

// failed notes that a peer could not be reached. It is tried again later and
// later, and then given up.
func (b *book) failed(addr netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.peers[addr]
	if c == nil {
		if len(b.peers) >= maxContacts {
			return
		}
		c = &contact{}
		b.peers[addr] = c
	}
	c.failures++
	c.due = time.Now().Add(b.after << min(c.failures-1, maxFailures))
	if c.failures > maxFailures {
		delete(b.peers, addr)
	}
}

// left notes that a peer which had been reached is gone.
func (b *book) left(addr netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.peers) < maxContacts {
		b.peers[addr] = &contact{due: time.Now().Add(b.after)}
	}
}

// reached forgets a peer's failures.
func (b *book) reached(addr netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.peers, addr)
}

// due lists who may be tried again now; each is listed again only after
// another failure or a long while.
func (b *book) due(now time.Time) []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []netip.AddrPort
	for addr, c := range b.peers {
		if !c.due.After(now) {
			all = append(all, addr)
			c.due = now.Add(b.after << (maxFailures + 1))
		}
	}
	return all
}
