// Package steer leads LAN hosts to the box where the box is their router.
//
// Announces of torrent clients on their way to trackers are answered by the box
// (UDP ones are recognised in the kernel by their infohash, HTTP ones by the
// first request of a connection), their lookups in the DHT are asked by the box
// and answered with the box in place of the peers, plain HTTP goes through the proxy, and in the
// mode [Enforce] clients that the box serves are kept from peers that the box has
// already. Everything else passes as if the box were not there: what cannot be
// answered goes on under the client's own address.
//
// It fails open. The nftables table belongs to the process and ends with it; and
// each rule needs an element of a set that lives five seconds and is renewed each
// second, after the service has asked itself something over its own sockets; port
// 80 is left out while the proxy does not answer. It refuses to touch flows inside
// the LAN, hosts outside it, and TLS. Start reading at [Service.Run], then
// table.rules and [Service.sort].
package steer

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Tracker answers announces that were meant for others: tracker.Server.
type Tracker interface {
	// Infohashes lists the torrents whose announces are answered.
	Infohashes() [][20]byte
	// AnswerHTTP gives the body of an answer; false if the request is to go on.
	AnswerHTTP(client netip.Addr, r *http.Request) ([]byte, bool)
	// AnswerUDP gives the answer to a datagram; false if it is to go on.
	AnswerUDP(client, tracker netip.AddrPort, packet []byte) ([]byte, bool)
}

// DHT leads lookups in the DHT to the box: tracker.Server.
type DHT interface {
	// AnswerDHT is false if a datagram to a node is to go on. Else rewrite makes
	// the answer for the client of what the node answers.
	AnswerDHT(client netip.AddrPort, query []byte) (rewrite func(answer []byte) []byte, ok bool)
}

// Swarm is the box's part in swarms: peering.Swarm.
type Swarm interface {
	// Outside lists the endpoints outside that trackers, the DHT or peers have
	// named to the box as peers of public torrents that it takes part in.
	Outside() []netip.AddrPort
	// Inside lists the connections with peers on the LAN.
	Inside() []Peer
}

// Web takes over connections that begin with a plain HTTP request: proxy.Server.
type Web interface {
	// Take serves a connection whose local address is the one that the client
	// meant. head is what has been read of it.
	Take(c *net.TCPConn, head []byte)
}

// Stats are the figures of a Service since it was made.
type Stats struct {
	Mode Mode `json:"mode"`
	// WebDown says that plain HTTP is to go through the proxy and does not, because
	// that does not answer.
	WebDown bool `json:"web_down"`
	// Open says that the last look at itself went well: what is to be taken is
	// taken.
	Open bool `json:"open"`
	// Connections were taken; Announces of them answered, Web of them handed to
	// the proxy, Passed of them sent on.
	Connections int64 `json:"connections"`
	Announces   int64 `json:"announces"`
	Web         int64 `json:"web"`
	Passed      int64 `json:"passed"`
	// Datagrams were taken; Answered of them answered, the others sent on.
	Datagrams int64 `json:"datagrams"`
	Answered  int64 `json:"answered"`
	// Lookups of the datagrams were sent to nodes of the DHT by the box.
	Lookups int64 `json:"lookups"`
	// Peers is how many endpoints outside clients are kept from, Wards how many
	// clients.
	Peers int `json:"peers"`
	Wards int `json:"wards"`
	// Flows are the connections with known peers outside that clients have now,
	// as the kernel tracks them; at most 256 clients.
	Flows []ClientFlows `json:"flows"`
}

// ClientFlows are the tracked connections of one client with known peers outside.
type ClientFlows struct {
	Addr netip.Addr `json:"addr"`
	Now  int        `json:"now"`
	Peak int        `json:"peak"`
}

// Service is the router placement. All methods are safe for concurrent use.
type Service struct {
	cfg     Config
	log     *slog.Logger
	tracker Tracker
	dht     DHT
	swarm   Swarm
	web     Web

	count   struct{ connections, announces, web, passed, datagrams, answered, lookups atomic.Int64 }
	tasks   sync.WaitGroup // connections and lookups
	room    chan struct{}  // a token for each connection
	lookups chan struct{}  // a token for each lookup
	webWell atomic.Bool    // the proxy answered when it was asked last

	mu    sync.Mutex // guards what follows
	open  bool
	peers int
	held  int
	flows map[netip.Addr]*ClientFlows
}

// maxConnections and maxLookups bound what is open at once; more pass by.
const (
	maxConnections = 4096
	maxLookups     = 256
)

// New builds a Service; it touches nothing. web may be nil if Config.Web is off.
func New(cfg Config, log *slog.Logger, tracker Tracker, dht DHT, swarm Swarm, web Web) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg.withDefaults(), log: log, tracker: tracker, dht: dht, swarm: swarm, web: web,
		room: make(chan struct{}, maxConnections), lookups: make(chan struct{}, maxLookups), flows: map[netip.Addr]*ClientFlows{},
	}, nil
}

// Run takes what is to be taken until ctx is done. In the mode Polite it only
// waits.
func (s *Service) Run(ctx context.Context) error {
	if !s.cfg.active() {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer s.tasks.Wait()
	defer cancel(nil)
	door, err := openDoor(s.cfg)
	if err != nil {
		return fmt.Errorf("steer clients: %w", err)
	}
	defer door.close()
	for _, l := range door.streams {
		s.tasks.Go(func() { cancel(s.accept(ctx, l)) })
	}
	for _, l := range door.packets {
		s.tasks.Go(func() { cancel(s.receive(ctx, l)) })
	}
	s.tasks.Go(func() { s.watchFlows(ctx) })
	if s.leadsWeb() {
		s.tasks.Go(func() { s.watchWeb(ctx, door.streams[0].Addr()) })
	}
	table, err := openTable(s.cfg)
	if err != nil {
		return fmt.Errorf("steer clients: %w", err)
	}
	defer func() {
		if err := table.close(); err != nil {
			s.log.Warn("failed to take the rules back", "err", err)
		}
	}()
	s.log.Info("steering began", "mode", string(s.cfg.Mode))
	s.keep(ctx, table, door)
	if err := context.Cause(ctx); err != context.Canceled && err != nil {
		return fmt.Errorf("steer clients: %w", err)
	}
	return nil
}

// keepEvery is the time between looks at who is a ward, renewEvery that between
// looks at itself.
const (
	keepEvery  = 200 * time.Millisecond
	renewEvery = time.Second
)

// keep renews what is in the kernel's sets while all is well.
func (s *Service) keep(ctx context.Context, t *table, d *door) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	wards, known := newWards(), newEndpoints()
	var renewed time.Time
	var before contents
	for {
		now := time.Now()
		want := s.contents(now, wards, known)
		if now.Sub(renewed) >= renewEvery || !want.equal(before) {
			err := d.probe()
			if err == nil {
				err = t.renew(want)
			}
			s.note(err, want)
			renewed, before = now, want
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// leadsWeb says whether plain HTTP goes through the proxy.
func (s *Service) leadsWeb() bool { return s.cfg.Web && s.web != nil }

// contents is what the kernel should know now. While the proxy does not answer,
// port 80 is not taken.
func (s *Service) contents(now time.Time, w *wards, known *endpoints) contents {
	want := contents{ports: slices.Clone(s.cfg.Ports), infohashes: s.tracker.Infohashes()}
	if !s.leadsWeb() || s.webWell.Load() {
		want.ports = append(want.ports, 80)
	}
	if s.cfg.Mode == Enforce {
		w.update(now, s.swarm.Inside())
		known.update(now, s.swarm.Outside())
		want.clients, want.peers = w.held(), known.list(s.cfg.inside)
	}
	want.bound()
	return want
}

// note remembers how the last renewal went, and says so when that changes.
func (s *Service) note(err error, c contents) {
	s.mu.Lock()
	was := s.open
	s.open, s.peers, s.held = err == nil, len(c.peers), len(c.clients)
	s.mu.Unlock()
	switch {
	case err != nil && was:
		s.log.Warn("stopped steering: clients go their own way", "err", err)
	case err != nil:
		s.log.Debug("failed to renew the gate", "err", err)
	}
}

// Stats is a snapshot.
func (s *Service) Stats() Stats {
	st := Stats{
		Mode: s.cfg.Mode, Connections: s.count.connections.Load(), Announces: s.count.announces.Load(),
		Web: s.count.web.Load(), Passed: s.count.passed.Load(), Datagrams: s.count.datagrams.Load(), Answered: s.count.answered.Load(),
		Lookups: s.count.lookups.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Open, st.Peers, st.Wards = s.open, s.peers, s.held
	st.WebDown = s.open && s.leadsWeb() && !s.webWell.Load()
	st.Flows = sortedFlows(s.flows)
	return st
}
