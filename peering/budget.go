package peering

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"

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
	conns       map[string]*outside
}

func newBudget(max int, changed func()) *budget {
	return &budget{max: max, changed: changed, conns: map[string]*outside{}}
}

// take takes a slot if one is free. Nobody waits for one: a torrent over its part
// would stand in the way of another.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken >= b.max {
		return false
	}
	b.taken++
	return true
}

// free gives a slot back.
func (b *budget) free() {
	b.mu.Lock()
	b.taken--
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
// the connection is closed, with the torrent it turned out to be for, or nil.
func (b *budget) hold(conn net.Conn, limit *rate.Limiter, gone func(*share)) net.Conn {
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

// conn gives the connection to addr, if it is one to the outside.
func (b *budget) conn(addr string) *outside {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns[addr]
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
	of     atomic.Pointer[share] // once the handshake has said it
	gone   func(*share)
}

// writeUnit is how much is sent at once under the upload limit, in bytes.
const writeUnit = 16 << 10

func (o *outside) Write(p []byte) (int, error) {
	n, err := writePaced(o.ctx, o.Conn, o.limit, p)
	if sh := o.of.Load(); sh != nil {
		sh.given.Add(int64(n))
	}
	return n, err
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
		o.gone(o.of.Load())
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
