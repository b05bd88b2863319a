package proxy

import (
	"net"
	"net/http"
)

// Take serves a plain HTTP connection that was on its way to somebody else: the
// router placement of cache/steer leads it here. head is what has been read of
// it. Each request goes where its Host field says, as one to a forward proxy
// would: the address that the client had found is not used, so that nobody can
// put under a name what another host sent. Take waits until the Server serves,
// and closes the connection once that has ended.
func (s *Server) Take(c *net.TCPConn, head []byte) {
	select {
	case s.taken.conns <- &conn{TCPConn: c, unsent: &s.unsent, first: head}:
	case <-s.taken.closed:
		_ = c.Close()
	case <-s.life.Done():
		_ = c.Close()
	}
}

// serveTaken answers a request of a connection that was led here.
func (s *Server) serveTaken(w http.ResponseWriter, r *http.Request) {
	if !s.enter(w, r) {
		return
	}
	defer s.tasks.Done()
	if !r.URL.IsAbs() {
		r.URL.Scheme, r.URL.Host = "http", r.Host
	}
	s.forward(w, r)
}
