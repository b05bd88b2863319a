// Package admin is the box's front office: a JSON API with its OpenAPI, one
// live page, accounts and the metrics page, all on one listener of their own.
//
// It shows and commands the other parts through small interfaces (parts.go) and
// keeps no state of theirs. It serves no byte of any object: foreign content
// never shares the panel's web origin. It answers nobody without the admin
// token or a login, except for the login itself and the API's description.
// Start reading at [New], then guard.go for who is let in.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
)

// Config says where the panel listens and whom it answers.
type Config struct {
	// Listen is address:port; empty means 127.0.0.1:8080.
	Listen string
	// DataDir is where the token, the password's hash and the setup code are
	// kept, each readable by its owner only.
	DataDir string
	// Names are Host names answered beside localhost and every IP address.
	Names []string
	// Session is how long a login lasts; 0 means 12 h.
	Session time.Duration
	// MetricsOpen lets everybody who reaches Listen read /metrics.
	MetricsOpen bool
	// Proxy is the host:port under which the LAN reaches the proxy, for the
	// lines that people paste. Without a host (":3142") it is found out.
	Proxy string
	// Version is the daemon's.
	Version string
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if _, _, err := net.SplitHostPort(c.Listen); c.Listen != "" && err != nil {
		faults = append(faults, fmt.Errorf("admin.listen: %w", err))
	}
	if c.DataDir == "" {
		faults = append(faults, errors.New("store.dir: no directory named"))
	}
	if c.Session < 0 {
		faults = append(faults, fmt.Errorf("admin.session: %v is negative", c.Session))
	}
	if _, _, err := net.SplitHostPort(c.Proxy); c.Proxy != "" && err != nil {
		faults = append(faults, fmt.Errorf("proxy.advertise: %w", err))
	}
	return errors.Join(faults...)
}

// Server is the front office. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	parts    Parts
	started  time.Time
	account  *account
	sessions *scs.SessionManager
	throttle *throttle
	pages    *pages
	rates    *rates
	recent   recent
	scrub    scrub
	hardware hardware
	life     context.Context // what goes on behind requests lives in it
	end      context.CancelFunc
	streams  chan struct{} // a token for each live page that may be open
	handler  http.Handler
}

// maxStreams bounds the live pages open at once.
const maxStreams = 32

// New builds a Server; it touches neither disk nor network.
func New(cfg Config, log *slog.Logger, parts Parts) (*Server, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:8080"
	}
	if cfg.Session == 0 {
		cfg.Session = 12 * time.Hour
	}
	if cfg.Proxy == "" {
		cfg.Proxy = "127.0.0.1:3142"
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Objects == nil {
		return nil, errors.New("admin: no store given")
	}
	pages, err := parsePages()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: log, parts: parts, started: time.Now(), pages: pages, rates: &rates{},
		account: &account{dir: cfg.DataDir, cost: hashCost()}, sessions: newSessions(cfg.Session), throttle: newThrottle(),
		streams: make(chan struct{}, maxStreams),
	}
	s.life, s.end = context.WithCancel(context.Background())
	if s.handler, err = s.routes(); err != nil {
		return nil, err
	}
	return s, nil
}

// Run listens and serves until ctx is done. At the first start it makes the
// admin token and the code that the panel asks for before a password is set.
func (s *Server) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for the panel: %w", err)
	}
	return s.Serve(ctx, listener)
}

// Serve does what Run does, on a listener of the caller's, which it closes.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if err := s.open(listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() {
		s.end()
		s.scrub.stop()
		s.hardware.stop()
	}()
	server := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	go func() {
		stopped <- server.Serve(listener)
		cancel() // a listener that fails ends the rest
	}()
	s.rates.sample(ctx, s.totals)
	grace, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	cancel() // ends the live pages, so that Shutdown need not wait for them
	err := server.Shutdown(grace)
	if err != nil {
		err = server.Close()
	}
	if serr := <-stopped; !errors.Is(serr, http.ErrServerClosed) {
		return fmt.Errorf("serve the panel: %w", serr)
	}
	return err
}

// open makes what the first start needs and says where the panel is.
func (s *Server) open(listening net.Addr) error {
	if err := os.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("open accounts: %w", err)
	}
	if err := s.account.open(); err != nil {
		return fmt.Errorf("open accounts: %w", err)
	}
	address := reachable(listening.String())
	if code := s.account.setupCode(); code != "" {
		s.log.Info("panel waits for its password", "url", "http://"+address+"/setup", "code", code,
			"file", filepath.Join(s.cfg.DataDir, codeFile))
		return nil
	}
	s.log.Info("panel opened", "url", "http://"+address+"/")
	return nil
}

// reachable puts an address of this machine in the place of one that stands for
// all of them.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		return net.JoinHostPort(firstAddress(), port)
	}
	return address
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// proxyFor gives the host:port of the proxy for whoever sent r: as configured,
// else the address that the request came to, else the box's first on a network.
func (s *Server) proxyFor(r *http.Request) string {
	guess := reachable(s.cfg.Proxy)
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if guess == s.cfg.Proxy || !ok || local.IP.IsLoopback() {
		return guess
	}
	_, port, err := net.SplitHostPort(guess)
	if err != nil {
		return guess
	}
	return net.JoinHostPort(local.IP.String(), port)
}

// firstAddress is the first address of this machine that others can reach,
// IPv4 before IPv6.
func firstAddress() string {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	best := "127.0.0.1"
	for _, a := range own {
		ip, ok := a.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		if ip.IP.To4() != nil {
			return ip.IP.String()
		}
		if strings.HasPrefix(best, "127.") {
			best = ip.IP.String()
		}
	}
	return best
}
