package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/cistern-edge/cistern/cache"
)

// Server is the proxy. All methods are safe for concurrent use.
type Server struct {
	cfg Config
}

func newServer(cfg Config, _ *slog.Logger, _ *cache.Store, _ Upstream, _ Torrents) *Server {
	return &Server{cfg: cfg}
}

// Run listens on Config.Listen and serves until ctx is done.
func (s *Server) Run(ctx context.Context) error { return errors.New("not built yet") }

// Serve serves on l until ctx is done, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return errors.New("not built yet") }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// Want makes sure that the object behind a request (GET with an absolute URL)
// is here or being filled.
func (s *Server) Want(ctx context.Context, req *http.Request) (Wanted, error) {
	return Wanted{}, errors.New("not built yet")
}

// Stats gives a snapshot.
func (s *Server) Stats() Stats { return Stats{} }
