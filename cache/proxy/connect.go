package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache/httpcache"
)

// connect opens a tunnel (RFC 9110 §9.3.6) and is done when that ends. It reports
// whether it took the connection over.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) (taken bool) {
	if err := s.mayConnect(r.Host); err != nil {
		s.refuse(w, r, err)
		return false
	}
	out, err := s.cfg.Dial(r.Context(), "tcp", r.Host)
	if err != nil {
		s.refuse(w, r, unreachable(err, httpcache.FwdMethod))
		return false
	}
	defer out.Close()
	in, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.fail(w, r, fmt.Errorf("take over the connection: %w", err))
		return false
	}
	defer in.Close()
	if !s.keep(in, out) {
		return true // the server is ending
	}
	defer s.letGo(in, out)
	_ = in.SetDeadline(time.Time{})
	status := httpcache.CacheStatus{Fwd: httpcache.FwdMethod}
	if _, err := fmt.Fprintf(in, "HTTP/1.1 200 Connection established\r\nVia: 1.1 %s\r\nCache-Status: %s\r\n\r\n", s.cfg.Name, status); err != nil {
		return true
	}
	early := make([]byte, buffered.Reader.Buffered())
	if _, err := io.ReadFull(buffered, early); err != nil {
		return true
	}
	if _, err := out.Write(early); err != nil {
		return true
	}
	if c, ok := in.(*conn); ok {
		in = c.TCPConn
	}
	s.count.tunnelled.Add(int64(len(early)))
	tunnel(in, out, s.cfg.ConnectIdle, &s.count.tunnelled)
	return true
}

// mayConnect says what is wrong with the target of a CONNECT.
func (s *Server) mayConnect(target string) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" {
		return &fault{status: http.StatusBadRequest, why: "CONNECT target " + quote(target) + " is not host:port", fwd: httpcache.FwdMethod}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0:
		return &fault{status: http.StatusBadRequest, why: "CONNECT port " + quote(port) + " is not a port", fwd: httpcache.FwdMethod}
	case !slices.Contains(s.cfg.ConnectPorts, int(n)):
		return &fault{status: http.StatusForbidden, why: fmt.Sprintf("CONNECT to port %d is closed; open are %v (proxy.connect_ports)", n, s.cfg.ConnectPorts), fwd: httpcache.FwdMethod}
	case s.cfg.Dial == nil:
		return &fault{status: http.StatusForbidden, why: "CONNECT is off", fwd: httpcache.FwdMethod}
	}
	return nil
}

// refuse fails and counts refusals.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	if errors.As(err, &f) && f.status == http.StatusForbidden {
		s.count.refused.Add(1)
	}
	s.fail(w, r, err)
}

// keep notes a tunnel so that the end of the Server ends it.
func (s *Server) keep(conns ...net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.count.tunnels.Add(1)
	for _, c := range conns {
		s.tunnels[c] = struct{}{}
	}
	return true
}

func (s *Server) letGo(conns ...net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		delete(s.tunnels, c)
	}
	s.count.tunnels.Add(-1)
}

// tunnel copies both ways until both ends are done, one fails, or nothing moved
// for idle. It adds what it copies to moved.
func tunnel(a, b net.Conn, idle time.Duration, moved *atomic.Int64) {
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			if err := oneWay(way[0], way[1], idle, moved, &last); err != nil {
				cancel()
				return
			}
			if half, ok := way[1].(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
				cancel()
			}
		})
	}
	both.Wait()
}

// oneWay copies until the end. It fails if for idle nothing moved either way.
func oneWay(from, to net.Conn, idle time.Duration, moved, last *atomic.Int64) error {
	buf := make([]byte, 32<<10)
	for {
		_ = from.SetReadDeadline(time.Now().Add(idle))
		n, err := from.Read(buf)
		if n > 0 {
			last.Store(time.Now().UnixNano())
			moved.Add(int64(n))
			_ = to.SetWriteDeadline(time.Now().Add(idle))
			if _, err := to.Write(buf[:n]); err != nil {
				return fmt.Errorf("tunnel: %w", err)
			}
		}
		switch {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, last.Load())) < idle:
		default:
			return fmt.Errorf("tunnel: %w", err)
		}
	}
}
