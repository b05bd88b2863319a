package tracker

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Stats are the figures of a Server since it was made.
type Stats struct {
	// Answered counts announces answered with the box, Passed those on their way to
	// another tracker that were left to it, Refused those over a client's rate.
	Answered int64 `json:"answered"`
	Passed   int64 `json:"passed"`
	Refused  int64 `json:"refused"`
	// Lookups counts answers of nodes of the DHT in which the box took the place of
	// the peers.
	Lookups int64 `json:"lookups"`
	// Avoided adds up the clients'.
	Avoided int64 `json:"avoided"`
	// Clients are figures by client, those with the most avoided flows first.
	Clients []ClientStats `json:"clients"`
}

// ClientStats are the figures of one client address.
type ClientStats struct {
	Addr     netip.Addr `json:"addr"`
	Answered int64      `json:"answered"`
	// Avoided counts the peers that the client would have been told of: for each
	// torrent once, as many as it asked for and the box knew of.
	Avoided int64 `json:"avoided"`
}

// Bounds of what is remembered.
const (
	maxClients  = 4096 // addresses
	maxTorrents = 64   // of one client
)

// crowd remembers who announced what. Safe for concurrent use.
type crowd struct {
	forget time.Duration

	mu      sync.Mutex // guards what follows
	figures Stats
	clients map[netip.Addr]*member
}

type member struct {
	ClientStats
	torrents map[[20]byte]*part
}

// part is a client's part in a torrent.
type part struct {
	seen     time.Time
	complete bool
	withheld int
}

func newCrowd(forget time.Duration) *crowd {
	return &crowd{forget: forget, clients: map[netip.Addr]*member{}}
}

func (c *crowd) passed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.figures.Passed++
}

func (c *crowd) refused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.figures.Refused++
}

// answered notes an announce that was answered, in place of an answer with peers.
func (c *crowd) answered(client netip.Addr, a *announce, peers int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.figures.Answered++
	m := c.member(client)
	if m == nil {
		return
	}
	m.Answered++
	p := m.part(a.infohash)
	p.seen, p.complete = now, a.left == 0
	if a.event == stopped {
		p.seen = time.Time{}
	}
	c.avoid(m, p, min(a.numWant, peers))
}

// withheld notes a node's answer in which the box took the place of peers.
func (c *crowd) withheld(client netip.Addr, infohash [20]byte, peers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.figures.Lookups++
	if m := c.member(client); m != nil {
		c.avoid(m, m.part(infohash), peers)
	}
}

// avoid counts the peers of a torrent that a client was not told of; c.mu is held.
func (c *crowd) avoid(m *member, p *part, peers int) {
	if more := peers - p.withheld; more > 0 {
		p.withheld += more
		m.Avoided += int64(more)
		c.figures.Avoided += int64(more)
	}
}

// member finds or makes the entry of a client, nil if there are too many; c.mu is
// held.
func (c *crowd) member(client netip.Addr) *member {
	m := c.clients[client]
	if m == nil && len(c.clients) < maxClients {
		m = &member{ClientStats: ClientStats{Addr: client}, torrents: map[[20]byte]*part{}}
		c.clients[client] = m
	}
	return m
}

// part finds or makes the entry of a torrent.
func (m *member) part(infohash [20]byte) *part {
	p := m.torrents[infohash]
	if p == nil {
		if len(m.torrents) >= maxTorrents {
			m.drop()
		}
		p = &part{}
		m.torrents[infohash] = p
	}
	return p
}

// drop forgets the torrent that was not heard of for longest.
func (m *member) drop() {
	var oldest [20]byte
	var at time.Time
	for h, p := range m.torrents {
		if at.IsZero() || p.seen.Before(at) {
			oldest, at = h, p.seen
		}
	}
	delete(m.torrents, oldest)
}

// count says how many clients have all of a torrent, and how many not.
func (c *crowd) count(infohash [20]byte, now time.Time) (complete, incomplete int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.clients {
		switch p := m.torrents[infohash]; {
		case p == nil || now.Sub(p.seen) > c.forget:
		case p.complete:
			complete++
		default:
			incomplete++
		}
	}
	return complete, incomplete
}

func (c *crowd) stats(now time.Time) Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.figures
	for _, m := range c.clients {
		st.Clients = append(st.Clients, m.ClientStats)
	}
	slices.SortFunc(st.Clients, func(a, b ClientStats) int {
		return cmp.Or(cmp.Compare(b.Avoided, a.Avoided), a.Addr.Compare(b.Addr))
	})
	return st
}

// limits bounds the answers to each client. Safe for concurrent use.
type limits struct {
	rate rate.Limit

	mu      sync.Mutex // guards what follows
	clients map[netip.Addr]*rate.Limiter
}

func newLimits(perSecond float64) *limits {
	return &limits{rate: rate.Limit(perSecond), clients: map[netip.Addr]*rate.Limiter{}}
}

// allow takes one answer off a client's due.
func (l *limits) allow(client netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.clients[client]
	if of == nil {
		if len(l.clients) >= maxClients {
			clear(l.clients) // whoever made so many names gains one burst for each
		}
		of = rate.NewLimiter(l.rate, max(1, int(5*l.rate)))
		l.clients[client] = of
	}
	return of.AllowN(now, 1)
}
