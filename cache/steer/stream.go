package steer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	maxHead  = 16 << 10        // of a first request that is looked at, in bytes
	headTime = 2 * time.Second // for it to come; who waits for the other end is passed on
	idleTime = 10 * time.Minute
)

// accept takes connections until the listener is closed.
func (s *Service) accept(ctx context.Context, l *net.TCPListener) error {
	for {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			time.Sleep(50 * time.Millisecond) // out of descriptors
			continue
		}
		select {
		case s.room <- struct{}{}:
		default:
			reset(c)
			continue
		}
		s.tasks.Go(func() {
			defer func() { <-s.room }()
			stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			s.sort(ctx, c)
		})
	}
}

// sort decides what becomes of a connection: the tracker answers its first
// request, the proxy serves it, or it goes where it was meant to go.
func (s *Service) sort(ctx context.Context, c *net.TCPConn) {
	client, meant := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	if meant.Addr().IsLoopback() {
		s.greet(c)
		return
	}
	s.count.connections.Add(1)
	head, req := firstRequest(c)
	if ctx.Err() != nil {
		reset(c)
		return
	}
	switch {
	case req == nil || s.cfg.inside(meant.Addr()):
	case isTracker(req):
		if body, ok := s.tracker.AnswerHTTP(client.Addr(), req); ok {
			s.count.announces.Add(1)
			answer(c, body)
			return
		}
	case s.leadsWeb() && meant.Port() == 80 && isWeb(req):
		s.count.web.Add(1)
		s.web.Take(c, head)
		return
	}
	s.count.passed.Add(1)
	pass(ctx, c, client, meant, head)
}

// greet answers the service's question to itself, or has the proxy answer the one
// to it.
func (s *Service) greet(c *net.TCPConn) {
	_ = c.SetDeadline(time.Now().Add(probeTime))
	b := make([]byte, len(hello))
	_, err := io.ReadFull(c, b)
	if err == nil && s.web != nil && strings.HasPrefix(webHello, string(b)) {
		_ = c.SetDeadline(time.Time{})
		s.web.Take(c, b)
		return
	}
	defer c.Close()
	if err == nil && bytes.Equal(b, hello) {
		_, _ = c.Write(b)
	}
}

// firstRequest reads up to the end of the first request's head. The request is
// nil if none came.
func firstRequest(c net.Conn) (head []byte, req *http.Request) {
	_ = c.SetReadDeadline(time.Now().Add(headTime))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	buf := make([]byte, maxHead)
	for n := 0; n < len(buf); {
		more, err := c.Read(buf[n:])
		n += more
		head = buf[:n]
		if bytes.Contains(head, []byte("\r\n\r\n")) {
			break
		}
		if err != nil || !mayBeHTTP(head) {
			return head, nil
		}
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return head, nil
	}
	return head, req
}

// mayBeHTTP says whether what came begins with a method.
func mayBeHTTP(b []byte) bool {
	for i, c := range b {
		if c == ' ' {
			return i > 0
		}
		if c < 'A' || c > 'Z' || i > 20 {
			return false
		}
	}
	return true
}

// isTracker says whether a request is one for a tracker, which no cache should
// see.
func isTracker(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/announce") || strings.Contains(r.URL.Path, "/scrape") || strings.Contains(r.URL.RawQuery, "info_hash=")
}

// isWeb says whether the proxy can answer a request of an intercepted connection.
func isWeb(r *http.Request) bool {
	return r.Host != "" && !r.URL.IsAbs() && r.Method != http.MethodConnect && r.Header.Get("Upgrade") == "" && r.ProtoAtLeast(1, 0)
}

// answer ends a connection with a tracker's answer.
func answer(c *net.TCPConn, body []byte) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// pass joins a connection to where it was meant to go, in the client's name.
func pass(ctx context.Context, c *net.TCPConn, client, meant netip.AddrPort, head []byte) {
	up, err := dialAs(ctx, client.Addr(), meant)
	if err != nil {
		reset(c) // as the other end would have
		return
	}
	stop := context.AfterFunc(ctx, func() { reset(up); reset(c) })
	defer stop()
	if _, err := up.Write(head); err != nil {
		reset(up)
		reset(c)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		carry(up, c)
	}()
	carry(c, up)
	<-done
	_ = up.Close()
	_ = c.Close()
}

// carry copies until the end of one direction, and passes that on too.
func carry(to, from *net.TCPConn) {
	idle := &impatient{from}
	if _, err := io.Copy(to, idle); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}

// impatient gives up reading from who is silent for long.
type impatient struct{ *net.TCPConn }

func (i *impatient) Read(p []byte) (int, error) {
	_ = i.SetReadDeadline(time.Now().Add(idleTime))
	return i.TCPConn.Read(p)
}

// reset ends a connection at once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
