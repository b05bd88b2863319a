package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/digest"
	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/journal"
	"github.com/cistern-edge/cistern/cache/origin"
)

// Server is the proxy. All methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	store    *cache.Store
	up       Upstream
	torrents Torrents
	digests  *digest.Book
	past     journal.Journal
	clients  []netip.Prefix
	count    counters
	access   *accessLog      // nil: none
	life     context.Context // what upstream brings lives in it, not in a client's request
	end      context.CancelFunc
	tasks    sync.WaitGroup
	bringing singleflight.Group // objects of /o/ that OpenObject is asked for
	readies  readies
	scratch  sync.Pool // of *scratch
	unsent   unsent    // what waits in clients' sockets
	taken    *branch   // connections that were on their way elsewhere

	// mu guards what follows.
	mu      sync.Mutex
	flights map[string]*flight
	passing map[string]mark // keys whose answers could not be stored
	tunnels map[net.Conn]struct{}
}

func newServer(cfg Config, log *slog.Logger, store *cache.Store, up Upstream, torrents Torrents) *Server {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:3142"
	}
	if cfg.Name == "" {
		cfg.Name = "cistern"
	}
	if len(cfg.ConnectPorts) == 0 {
		cfg.ConnectPorts = []int{443}
	}
	if cfg.ConnectIdle == 0 {
		cfg.ConnectIdle = 5 * time.Minute
	}
	s := &Server{
		cfg: cfg, log: log, store: store, up: up, torrents: torrents,
		flights: map[string]*flight{}, passing: map[string]mark{}, tunnels: map[net.Conn]struct{}{},
	}
	dir := ""
	if cfg.Dir != "" {
		dir = filepath.Join(cfg.Dir, "digests")
	}
	s.digests = digest.New(dir, func(num uint64) (digest.Body, error) { return store.Read(num) }, log)
	s.count.clients = map[netip.Addr]*ClientStats{}
	s.readies.byTarget = map[string]*ready{}
	s.scratch.New = func() any { return new(scratch) }
	s.taken = newBranch(&net.TCPAddr{})
	if cfg.AccessLog != "" {
		s.access = &accessLog{path: cfg.AccessLog, log: log}
	}
	for _, text := range cfg.Clients {
		p, _ := netip.ParsePrefix(text) // Validate has seen it
		s.clients = append(s.clients, p.Masked())
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Run listens on Config.Listen and serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	lc := listenConfig()
	l, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		s.taken.close()
		return fmt.Errorf("listen for clients: %w", err)
	}
	return s.Serve(ctx, l)
}

// Serve serves on l until ctx is done, and closes l. It can be called once; the
// Server is of no use after it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.keepLog()()
	s.unsent.budget = unsentBudget()
	door := newDoor(s, l)
	plain := s.httpServer(s)
	plain.DisableGeneralOptionsHandler = true
	taken := s.httpServer(http.HandlerFunc(s.serveTaken))
	taken.DisableGeneralOptionsHandler = true
	servers := []*http.Server{plain, taken}
	failed := make(chan error, 4)
	s.tasks.Go(func() { s.keepPast(s.life) })
	s.tasks.Go(func() { _ = s.digests.Run(s.life) }) // ends with life, and never fails
	s.tasks.Go(func() { failed <- door.run() })
	s.tasks.Go(func() { failed <- plain.Serve(door.plain) })
	s.tasks.Go(func() { failed <- taken.Serve(s.taken) })
	if s.cfg.Secure != nil {
		secure := s.httpServer(http.HandlerFunc(s.serveSecure))
		secure.TLSConfig = s.cfg.TLS
		servers = append(servers, secure)
		s.tasks.Go(func() { failed <- secure.ServeTLS(door.secure, "", "") })
	} else {
		door.secure.Close()
	}
	s.log.Info("proxy listened", "address", l.Addr().String())
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	err = errors.Join(err, s.shut(door, servers))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve clients: %w", err)
}

// keepLog has the access log written until end is called.
func (s *Server) keepLog() (end func()) {
	if s.access == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { s.access.run(ctx) })
	return func() {
		cancel()
		task.Wait()
	}
}

// shut gives requests under way a moment and then ends everything.
func (s *Server) shut(door *door, servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var errs []error
	errs = append(errs, door.close())
	for _, srv := range servers {
		if srv.Shutdown(ctx) != nil {
			errs = append(errs, srv.Close())
		}
	}
	s.end()
	s.mu.Lock()
	for conn := range s.tunnels {
		conn.Close()
	}
	s.mu.Unlock()
	s.tasks.Wait()
	return errors.Join(errs...)
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ConnContext:       withConn,
		ConnState:         s.rested,
		ReadHeaderTimeout: 20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP answers one request. The ResponseWriter goes unwrapped to whoever
// writes the body: only then does the kernel copy it (sendfile).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter(w, r) {
		return
	}
	defer s.tasks.Done()
	switch {
	case r.Method == http.MethodConnect:
		if s.connect(w, r) { // net/http does not say when a tunnel ends
			s.enterLog(accessOf(r))
		}
	case r.URL.IsAbs() && !s.isMe(r):
		s.forward(w, r)
	default:
		s.local(w, r)
	}
}

// serveSecure answers a client that speaks TLS to the listener.
func (s *Server) serveSecure(w http.ResponseWriter, r *http.Request) {
	if s.enter(w, r) {
		defer s.tasks.Done()
		s.cfg.Secure.ServeHTTP(w, r)
	}
}

// begin notes one more task that the end of the Server waits for: whoever got
// true calls tasks.Done. Once the Server has ended it is false.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.tasks.Add(1)
	return true
}

// enter counts a request and turns away clients from elsewhere. If it is true
// the request is a task that has begun.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) bool {
	from := client(r)
	s.answers(r, from)
	s.count.requests.Add(1)
	s.count.client(from, 1, 0, 0)
	limitUpload(r)
	if s.welcome(from) {
		if s.begin() {
			return true
		}
		s.fail(w, r, &fault{status: http.StatusServiceUnavailable, why: errEnding.Error()})
		return false
	}
	s.count.refused.Add(1)
	s.fail(w, r, &fault{status: http.StatusForbidden, why: fmt.Sprintf("client %s is in none of the networks that may use this proxy (proxy.clients)", from)})
	return false
}

// client is the address that a request came from.
func client(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap().WithZone("")
}

// welcome reports whether a client may use the proxy.
func (s *Server) welcome(a netip.Addr) bool {
	if len(s.clients) > 0 {
		return slices.ContainsFunc(s.clients, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate() || connected(a)
}

// connected reports whether a is in a network that this machine is in.
func connected(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Bits() > 0 && p.Contains(a)
	})
}

// isMe reports whether an absolute address leads to this very listener.
func (s *Server) isMe(r *http.Request) bool {
	return r.URL.Scheme == "http" && r.URL.Host != "" && (r.URL.Host == s.cfg.Address || r.URL.Host == localAddr(r))
}

// localAddr is the address that the client's connection came to, "" if unknown.
func localAddr(r *http.Request) string {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return a.String()
	}
	return ""
}

// fault is an error with the answer that a client gets for it.
type fault struct {
	status int
	why    string
	fwd    httpcache.Fwd
	retry  time.Duration // > 0: when to ask again
	// offline is set if the uplink is why; people get a page that says so.
	offline *origin.OfflineError
}

func (f *fault) Error() string { return f.why }

// fail answers with a sentence that says what was wrong.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	switch {
	case errors.As(err, &f):
	case errors.Is(err, cache.ErrDenied): // RFC 7725
		f = &fault{status: http.StatusUnavailableForLegalReasons, why: err.Error()}
	default:
		f = &fault{status: http.StatusInternalServerError, why: err.Error()}
	}
	l := accessOf(r)
	l.detail, l.fwd = f.why, f.fwd
	h := w.Header()
	if f.retry > 0 {
		h.Set("Retry-After", fmt.Sprint(int(f.retry.Seconds())))
	}
	httpcache.CacheStatus{Fwd: f.fwd, Detail: f.why}.AppendTo(h)
	if f.offline != nil {
		s.sayOffline(w, r, f)
		return
	}
	s.say(w, r, f.status, "text/plain; charset=utf-8", f.why+"\n")
}

// say answers with a text of the box's own.
func (s *Server) say(w http.ResponseWriter, r *http.Request, status int, mediaType, text string) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		n, _ := w.Write([]byte(text)) // a client that has left needs no error
		accessOf(r).bytes += int64(n)
	}
}
