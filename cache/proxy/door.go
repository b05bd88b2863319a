package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/httpcache"
)

// peekTimeout bounds the wait for a connection's first byte.
const peekTimeout = 20 * time.Second

// door splits the connections of one listener: those that begin with a TLS
// handshake record, and the others, of which it answers what it can by itself.
type door struct {
	net.Listener
	server        *Server
	plain, secure *branch
	tasks         sync.WaitGroup
	done          chan struct{}
	shut          func()
	quicks        quicks
}

// branch is a listener for one kind of connections.
type branch struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newDoor(s *Server, l net.Listener) *door {
	d := &door{Listener: l, server: s, done: make(chan struct{}), quicks: quicks{open: map[*net.TCPConn]struct{}{}}}
	d.shut = sync.OnceFunc(func() { close(d.done) })
	d.plain, d.secure = newBranch(l.Addr()), newBranch(l.Addr())
	return d
}

func newBranch(addr net.Addr) *branch {
	b := &branch{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (b *branch) Close() error { b.close(); return nil }

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }

// run accepts connections until the listener fails.
func (d *door) run() error {
	defer d.tasks.Wait()
	for {
		c, err := d.Accept()
		var again net.Error
		switch {
		case err == nil:
			d.tasks.Go(func() { d.sort(c) })
		//lint:ignore SA1019 being out of descriptors passes, and has no other name
		case errors.As(err, &again) && again.Temporary():
			time.Sleep(50 * time.Millisecond)
		default:
			return err
		}
	}
}

// close stops accepting, and lets go of the connections that the door has
// itself.
func (d *door) close() error {
	d.shut()
	d.quicks.end()
	return d.Listener.Close()
}

// sort serves a connection as long as it can, and hands it on.
func (d *door) sort(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return
	}
	d.quicks.add(tcp)
	rest, err := d.quick(tcp)
	d.quicks.remove(tcp)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return
	}
	to := d.plain
	if rest[0] == 0x16 { // handshake (RFC 8446 §5.1)
		to = d.secure
	}
	select {
	case to.conns <- &conn{TCPConn: tcp, unsent: &d.server.unsent, first: rest}:
	case <-to.closed:
		c.Close()
	case <-d.done:
		c.Close()
	}
}

// quick serves a connection and gives what it has left, which is not empty.
func (d *door) quick(tcp *net.TCPConn) (rest []byte, err error) {
	q, err := newQuick(d.server, tcp)
	if err != nil {
		return nil, err
	}
	return q.serve(d.done)
}

// conn is a connection of which something has been read. It keeps the TCPConn's
// ReadFrom, which is sendfile. It also remembers how the latest request began:
// net/http answers what it cannot parse by itself and does not say what was
// wrong.
type conn struct {
	*net.TCPConn
	unsent *unsent
	share  int64 // of unsent, once it was set
	first  []byte
	head   []byte
	// answering says that what is written is a handler's, which may look like
	// anything. Only the connection's own goroutine touches it, and what follows.
	answering bool
	line      access // of the request that is being answered
}

// connKey is the key of a request's conn in its context.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// answers notes that a request goes to a handler now, until rested is told that
// the connection is idle again.
func (s *Server) answers(r *http.Request, from netip.Addr) {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		c.answering = true
		c.line = access{from: from, method: r.Method, target: r.RequestURI, proto: r.Proto, began: time.Now(), task: s.begin()}
	}
}

// accessOf is the line of a request; what is written to it is lost if it came
// another way.
func accessOf(r *http.Request) *access {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return &c.line
	}
	return &access{}
}

// rested ends a request: net/http calls it between two of them.
func (s *Server) rested(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok || state != http.StateIdle && state != http.StateClosed {
		return
	}
	c.answering = false
	s.enterLog(&c.line)
}

var _ io.ReaderFrom = (*conn)(nil) // or net/http copies bodies by itself

// headMax is how much of a request's beginning is remembered, in bytes.
const headMax = 1 << 10

// Read implements net.Conn.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(c.first) > 0 && len(p) > 0 {
		n = copy(p, c.first)
		c.first = c.first[n:]
		c.head = append(c.head[:0], p[:min(n, headMax)]...)
		return n, nil
	}
	n, err = c.TCPConn.Read(p)
	if len(c.head) > 1 {
		c.head = c.head[:0]
	}
	c.head = append(c.head, p[:min(n, headMax)]...)
	return n, err
}

// blind is how the answers begin that net/http gives on its own, after the
// status line.
var blind = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if c.answering && c.line.status < http.StatusOK {
		c.line.status, c.line.first = statusOf(p), time.Now()
	}
	if c.answering || len(p) > headMax || !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) {
		return c.TCPConn.Write(p)
	}
	line, rest, ok := bytes.Cut(p, blind)
	if !ok || bytes.IndexByte(line, '\n') >= 0 {
		return c.TCPConn.Write(p)
	}
	why := string(rest)
	if wrong := badLine(c.head); wrong != "" {
		why += ": " + wrong
	}
	answer := string(line) + "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nCache-Status: " +
		httpcache.CacheStatus{Detail: why}.String() + "\r\n\r\n" + why + "\n"
	if _, err := c.TCPConn.Write([]byte(answer)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// statusOf reads the status of an answer from its beginning.
func statusOf(p []byte) int {
	if len(p) < len("HTTP/1.1 200") {
		return 0
	}
	n, err := strconv.Atoi(string(p[len("HTTP/1.1 "):len("HTTP/1.1 200")]))
	if err != nil {
		return 0
	}
	return n
}

// badLine says what is wrong with the first line of a request, "" if nothing
// is.
func badLine(head []byte) string {
	line, _, whole := strings.Cut(string(head), "\r\n")
	method, rest, ok1 := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	switch {
	case !whole:
		return ""
	case !ok1 || !ok2:
		return `the request line is not "method target version"`
	}
	if _, _, ok := http.ParseHTTPVersion(proto); !ok {
		return "the request line ends in " + quote(proto) + " instead of a version of HTTP"
	}
	if _, err := url.ParseRequestURI(target); err != nil && method != http.MethodConnect {
		var bad *url.Error
		if errors.As(err, &bad) {
			err = bad.Err
		}
		return "malformed URL " + quote(target) + ": " + err.Error()
	}
	return ""
}
