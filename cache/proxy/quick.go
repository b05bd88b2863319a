package proxy

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"
)

// quick answers what can be answered at once on one connection: plain requests
// for small objects that are in memory and fresh. Everything else it leaves to
// net/http, with all that was read. While it waits it holds no buffer.
type quick struct {
	server *Server
	tcp    *net.TCPConn
	socket socket
	from   netip.Addr
	local  string // the address that the connection came to
	armed  time.Time
	work   *scratch // nil while nothing is there to be read
	err    error    // of the last write
}

// scratch is what one request at a time needs.
type scratch struct {
	in   [4 << 10]byte
	used int // bytes of in
	head plainHead
	out  []byte
}

// copied is the largest body that is copied to stand behind its head, in bytes.
const copied = 16 << 10

// A connection's deadline is set anew when it is older than rearm, and idle away
// then: for the next request, and for a client that takes nothing.
const (
	idle  = 2 * time.Minute
	rearm = 10 * time.Second
)

func newQuick(s *Server, tcp *net.TCPConn) (*quick, error) {
	q := &quick{server: s, tcp: tcp, local: tcp.LocalAddr().String()}
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		q.from = a.AddrPort().Addr().Unmap().WithZone("")
	}
	return q, q.open()
}

// serve answers requests until one comes that is not for it, and returns what it
// has read of that. An error means that there is nothing more to do. ended is
// closed before the deadlines of all connections are brought forward.
func (q *quick) serve(ended <-chan struct{}) (rest []byte, err error) {
	defer q.clear()
	welcome := false
	for first := true; ; first = false {
		if err := q.arm(first, ended); err != nil {
			return nil, err
		}
		if err := q.next(); err != nil {
			return nil, err
		}
		if first {
			welcome = q.server.welcome(q.from)
		}
		if !welcome || !q.answer() {
			return bytes.Clone(q.work.in[:q.work.used]), nil
		}
		if q.err != nil {
			return nil, q.err
		}
		q.clear()
	}
}

// arm sets the deadline for what comes next.
func (q *quick) arm(first bool, ended <-chan struct{}) error {
	now := time.Now()
	if now.Sub(q.armed) < rearm {
		return nil
	}
	until := now.Add(peekTimeout)
	if !first {
		q.armed, until = now, now.Add(idle)
	}
	if err := q.tcp.SetDeadline(until); err != nil {
		return err
	}
	select {
	case <-ended:
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// clear gives the scratch back.
func (q *quick) clear() {
	if q.work != nil {
		q.server.scratch.Put(q.work)
		q.work = nil
	}
}

// answer answers the requests that were read, up to an error. It is false if one is
// left, or a part of one: then that is what is left of them.
func (q *quick) answer() bool {
	d := q.work
	at := 0
	for at < d.used {
		if !d.head.parse(d.in[at:d.used]) || !q.hit() {
			break
		}
		if q.err != nil {
			return true
		}
		at += d.head.length
	}
	d.used = copy(d.in[:], d.in[at:d.used])
	return d.used == 0
}

// hit answers the request that was parsed, if it is one.
func (q *quick) hit() bool {
	s, d := q.server, q.work
	if string(d.head.authority) == q.local || string(d.head.authority) == s.cfg.Address {
		return false // the box itself is asked
	}
	now := time.Now()
	r, found := s.fresh(&d.head, now)
	if r == nil {
		return false
	}
	size := int64(len(found.Body))
	s.count.requests.Add(1)
	s.count.hits.Add(1)
	s.count.bytes.Add(size)
	s.count.client(q.from, 1, 1, size)
	s.store.CountHit(found.Num, "http", size, now)
	s.access.add(now, &access{from: q.from, method: http.MethodGet, target: r.target, proto: "HTTP/1.1", status: http.StatusOK, bytes: size, hit: true})
	s.rememberHit(now, q, r, found.Num, size)
	d.out = r.appendTo(d.out[:0], now)
	if size <= copied {
		d.out = append(d.out, found.Body...)
		_, q.err = q.tcp.Write(d.out)
	} else {
		_, q.err = (&net.Buffers{d.out, found.Body}).WriteTo(q.tcp)
	}
	return true
}

// quicks are the connections that are served that way. Safe for concurrent use.
type quicks struct {
	// mu guards what follows.
	mu   sync.Mutex
	open map[*net.TCPConn]struct{}
}

func (l *quicks) add(c *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
}

func (l *quicks) remove(c *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// end wakes those that wait, and gives the others a moment.
func (l *quicks) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // fails if it is closed
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	}
}
