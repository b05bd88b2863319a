// Package peering is the box's single BitTorrent client.
//
// A [Swarm] joins each torrent once on behalf of the whole LAN. Every file of a
// torrent is one object of the store, filled by a content.Source named "swarm";
// what the store has is served to peers from there, so a file that came by HTTP
// and the same file in a torrent are one blob. It also makes torrents for
// objects of the store (see [Swarm.Torrent]).
//
// It refuses to hold more connections to the outside than its budget, half-open
// ones included and whoever opened them; to contact an address that the dialer
// it was given refuses; to write anything outside the store and its own
// directory; and to announce a torrent that it made outside the LAN. Start
// reading at [Swarm.Add] and share.run.
package peering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"

	"github.com/cistern-edge/cistern/cache"
)

// Dial opens a connection, or refuses to. It is asked for every tracker, web
// seed, metainfo URL and peer, on the LAN too, and with network "udp" for leave
// to send to an address.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// ErrNotRunning says that the swarm is not running, or no longer.
var ErrNotRunning = errors.New("the swarm is not running")

// ErrUnknown says that no torrent has that infohash here.
var ErrUnknown = errors.New("no such torrent")

// Swarm is the box's BitTorrent client. All methods are safe for concurrent use.
type Swarm struct {
	cfg      Config
	log      *slog.Logger
	store    *cache.Store
	dial     Dial
	budget   *budget
	book     *book
	hasher   *hasher
	faults   *faults
	follower *follower
	met      *acquaintances
	firsts   firsts
	window   window
	forLAN   sync.Map     // *torrent.Torrent of those that were made here
	http     *http.Client // for mirrors

	mirrored, mirrorWaste atomic.Int64 // bytes since the start
	assembled             atomic.Int64 // bytes of pieces in memory

	kick   chan struct{}      // capacity 1: the budget wants dividing again
	parted chan *torrent.Peer // those that are gone
	ready  chan struct{}      // closed when the client is up
	joined chan struct{}      // closed when the torrents that were kept have joined
	ended  chan struct{}      // closed when Run returns

	work sync.WaitGroup // what the shares run

	// set before ready is closed, and never again
	ctx    context.Context
	client *torrent.Client
	net    *network

	// adding is held while a torrent joins or is taken off the list, and guards
	// stopped. It is taken before mu.
	adding  sync.Mutex
	stopped bool // no share may begin any more

	// mu guards what follows. It is never taken with the client's lock held.
	mu      sync.Mutex
	shares  map[string]*share // by each infohash in hexadecimal
	leaving map[string]*share // the same, of those that are being closed
}

// New builds a Swarm over a store. dial is the only way out; it may be nil in
// tests, which then reach nobody.
func New(cfg Config, store *cache.Store, dial Dial, log *slog.Logger) (*Swarm, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if dial == nil {
		dial = func(_ context.Context, _, addr string) (net.Conn, error) {
			return nil, fmt.Errorf("connect to %s: there is no way out", addr)
		}
	}
	s := &Swarm{
		cfg: cfg, log: log, store: store, dial: dial,
		book: newBook(cfg.retryAfter), faults: newFaults(),
		met:  &acquaintances{seen: map[netip.AddrPort]time.Time{}},
		kick: make(chan struct{}, 1), parted: make(chan *torrent.Peer, maxFaults), ready: make(chan struct{}), joined: make(chan struct{}), ended: make(chan struct{}),
		shares: map[string]*share{}, leaving: map[string]*share{},
	}
	s.window.most = map[*torrent.Peer]int{}
	s.budget = newBudget(cfg.MaxConnections, s.rebalance)
	s.hasher = newHasher(store, cfg.Dir)
	s.http = newHTTP(cfg.Web, dial)
	s.follower = newFollower(s)
	return s, nil
}

// Run joins the torrents kept in the directory and works until ctx is done. It
// runs once.
func (s *Swarm) Run(ctx context.Context) error {
	defer close(s.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.stop(cancel)
	s.work.Go(func() { s.hasher.run(ctx) })
	close(s.ready)
	s.resume()
	close(s.joined)
	s.work.Go(func() { s.follower.run(ctx) })
	tick := time.NewTicker(s.cfg.tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.parted:
			s.blame(p)
			continue
		case <-s.kick:
		case <-tick.C:
			s.net.pace(s.cfg.now())
			s.retry(time.Now())
			for _, sh := range s.list() {
				sh.tend()
				sh.closeLulled(s.cfg.now())
			}
		}
		s.divide()
		for _, sh := range s.list() {
			sh.invite(s.cfg.now())
		}
	}
}

// start opens the sockets and the client.
func (s *Swarm) start(ctx context.Context) error {
	if err := s.makeDirs(); err != nil {
		return err
	}
	nw, err := s.listen(ctx)
	if err != nil {
		return err
	}
	client, err := torrent.NewClient(s.clientConfig(nw))
	if err != nil {
		return errors.Join(fmt.Errorf("start BitTorrent client: %w", err), nw.close())
	}
	s.ctx, s.net, s.client = ctx, nw, client
	nw.attach(client, s.cfg.DHT)
	return nil
}

// stop ends the shares first, so that their fills keep what is durable, then
// the client, then the sockets that it used.
func (s *Swarm) stop(cancel context.CancelFunc) {
	s.adding.Lock()
	s.stopped = true
	s.adding.Unlock()
	cancel()
	s.work.Wait()
	for _, sh := range s.list() {
		sh.close()
	}
	for _, err := range s.client.Close() {
		s.log.Warn("failed to close the BitTorrent client", "err", err)
	}
	if err := s.net.close(); err != nil {
		s.log.Debug("failed to close sockets", "err", err)
	}
}

// running waits until the client is up.
func (s *Swarm) running(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-s.ended:
		return ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.ended:
		return ErrNotRunning
	default:
		return s.ctx.Err()
	}
}

// Addr waits until the swarm listens and gives the address, TCP and uTP.
func (s *Swarm) Addr(ctx context.Context) (netip.AddrPort, error) {
	if err := s.running(ctx); err != nil {
		return netip.AddrPort{}, err
	}
	return s.net.addr, nil
}

// list gives every share once.
func (s *Swarm) list() []*share {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[*share]bool{}
	var all []*share
	for _, sh := range s.shares {
		if !seen[sh] {
			seen[sh] = true
			all = append(all, sh)
		}
	}
	return all
}
