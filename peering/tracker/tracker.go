// Package tracker answers the announces of torrent clients on the LAN with one
// peer: the box, which joins each swarm once for all of them.
//
// A [Server] speaks the HTTP protocol (BEP 3, 7, 23, 48) and the UDP one (BEP 15,
// 41) on its own addresses, and answers announces on their way to other trackers
// that cache/steer hands to it, as are lookups in the DHT (BEP 5). It answers for
// torrents that the box takes part in and for those that an allowlist names, and
// never for a private one (BEP 27); an announce with a passkey, or with anything
// else in it that only its own tracker understands, it gives back unanswered. It refuses clients outside the
// configured networks and more questions than a client can have. It contacts
// nobody: what outside trackers are told is peering's business. Start reading at
// [Server.decide].
package tracker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Swarm is the box's part in torrents: peering.Swarm.
type Swarm interface {
	// Torrent says how the box stands to a torrent; false if it takes no part.
	Torrent(infohash [20]byte) (Torrent, bool)
	// Infohashes lists the torrents that Torrent knows and that are not private.
	Infohashes() [][20]byte
	// Join asks the box to take part in a torrent, or tells it more about one;
	// announceURL is where a client has announced it, "" if nobody knows, and peers
	// are those that a node of the DHT has named. It returns at once.
	Join(infohash [20]byte, announceURL string, peers []netip.AddrPort)
	// Greet tells the box where a client listens that was answered with the box, and
	// whether it wants data still. It returns at once.
	Greet(infohash [20]byte, client netip.AddrPort, wants bool)
}

// Torrent is the box's part in a torrent.
type Torrent struct {
	// Complete says that the box has all of it.
	Complete bool
	// Private torrents (BEP 27) belong to their tracker.
	Private bool
	// Peers is how many peers outside the box knows of.
	Peers int
}

// Server is the tracker. All methods are safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	swarm  Swarm
	allow  map[[20]byte]bool
	secret [32]byte // of the connection ids
	limits *limits
	crowd  *crowd

	mu    sync.Mutex // guards what follows
	asked map[[20]byte]time.Time
}

// maxAsked bounds the torrents of which it is remembered when the box was asked
// about them.
const maxAsked = 4096

// New builds a Server; it listens to nothing.
func New(cfg Config, log *slog.Logger, swarm Swarm) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Interval == 0 {
		cfg.Interval = 2 * time.Minute
	}
	if cfg.Rate == 0 {
		cfg.Rate = 20
	}
	s := &Server{
		cfg: cfg, log: log, swarm: swarm, allow: map[[20]byte]bool{}, asked: map[[20]byte]time.Time{},
		limits: newLimits(cfg.Rate), crowd: newCrowd(2 * cfg.Interval),
	}
	for _, h := range cfg.Allow {
		s.allow[h] = true
	}
	_, _ = rand.Read(s.secret[:]) // never fails
	return s, nil
}

// Run listens on Config.Listen and answers until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel(nil)
	for _, addr := range s.cfg.Listen {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("listen for announces: %w", err)
		}
		web := &http.Server{
			Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: maxHead,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		tasks.Go(func() { cancel(web.Serve(l)) })
		tasks.Go(func() { <-ctx.Done(); _ = web.Close() })
		pc, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", l.Addr().String())
		if err != nil {
			return fmt.Errorf("listen for announces: %w", err)
		}
		tasks.Go(func() { cancel(s.serveUDP(pc.(*net.UDPConn))) })
		tasks.Go(func() { <-ctx.Done(); _ = pc.Close() })
		s.log.Info("tracker listened", "address", l.Addr().String())
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("answer announces: %w", err)
	}
	return nil
}

// Infohashes lists the torrents whose announces are answered.
func (s *Server) Infohashes() [][20]byte {
	list := s.swarm.Infohashes()
	listed := make(map[[20]byte]bool, len(list))
	for _, h := range list {
		listed[h] = true
	}
	for h := range s.allow {
		if t, known := s.swarm.Torrent(h); !listed[h] && !(known && t.Private) {
			list = append(list, h)
		}
	}
	return list
}

// decide says whether an announce is answered, and how the box stands to its
// torrent. via is the tracker it was meant for, "" if that is this one.
func (s *Server) decide(a *announce, via string) (Torrent, bool) {
	t, known := s.swarm.Torrent(a.infohash)
	switch {
	case known:
		return t, !t.Private
	case !s.allow[a.infohash]:
		return t, false
	}
	if s.due(a.infohash, time.Minute) {
		s.swarm.Join(a.infohash, via, nil)
	}
	return t, true
}

// due says whether the box is to be asked about a torrent once more, and notes it.
func (s *Server) due(infohash [20]byte, every time.Duration) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.asked[infohash]) < every {
		return false
	}
	if len(s.asked) >= maxAsked {
		clear(s.asked) // some are asked about once more, too soon
	}
	s.asked[infohash] = now
	return true
}

// admit notes an announce that is answered with the box.
func (s *Server) admit(a *announce, client netip.Addr, t Torrent, now time.Time) {
	s.crowd.answered(client, a, t.Peers, now)
	if a.port != 0 {
		s.swarm.Greet(a.infohash, netip.AddrPortFrom(client, a.port), a.left != 0 && a.event != stopped)
	}
}

// welcome says whether hosts with that address are answered at all.
func (s *Server) welcome(a netip.Addr) bool {
	for _, p := range s.cfg.Clients {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// peer is the box as a client of an address family is told to reach it.
func (s *Server) peer(is4 bool) (netip.AddrPort, bool) {
	for _, p := range s.cfg.Peers {
		if p.Addr().Unmap().Is4() == is4 {
			return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// Stats is a snapshot of the figures since the start.
func (s *Server) Stats() Stats { return s.crowd.stats(time.Now()) }
