package proxy

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	maxClients = 1024 // that are counted singly
	topClients = 32   // that Stats lists
)

// counters are a Server's figures.
type counters struct {
	requests, hits, misses, collapsed, refused, upstream, tunnels, bytes, passed, tunnelled atomic.Int64

	// mu guards what follows.
	mu      sync.Mutex
	clients map[netip.Addr]*ClientStats
}

// client adds to the figures of one client.
func (c *counters) client(a netip.Addr, requests, hits, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.clients[a]
	if st == nil {
		if len(c.clients) >= maxClients {
			a = netip.Addr{}
			st = c.clients[a]
		}
		if st == nil {
			st = &ClientStats{Addr: a}
			c.clients[a] = st
		}
	}
	st.Requests += requests
	st.Hits += hits
	st.Bytes += bytes
}

// tally counts an answer as a hit or a miss.
func (s *Server) tally(r *http.Request, a *answer) {
	if a.status.Hit {
		accessOf(r).hit = true
		s.count.hits.Add(1)
		s.count.client(client(r), 0, 1, 0)
		return
	}
	s.count.misses.Add(1)
}

// served counts body bytes sent.
func (s *Server) served(r *http.Request, f *found, n int64) {
	accessOf(r).bytes += n
	s.count.bytes.Add(n)
	s.count.client(client(r), 0, 0, n)
	if f != nil {
		s.store.CountServed(f.num(), "http", n)
		return
	}
	s.count.passed.Add(n)
}

// Stats gives a snapshot.
func (s *Server) Stats() Stats {
	c := &s.count
	st := Stats{
		Requests: c.requests.Load(), Hits: c.hits.Load(), Misses: c.misses.Load(), Collapsed: c.collapsed.Load(),
		Refused: c.refused.Load(), Upstream: c.upstream.Load(), Tunnels: c.tunnels.Load(),
		Bytes: c.bytes.Load(), Passed: c.passed.Load(), Tunnelled: c.tunnelled.Load(),
	}
	c.mu.Lock()
	for _, one := range c.clients {
		st.Clients = append(st.Clients, *one)
	}
	c.mu.Unlock()
	slices.SortFunc(st.Clients, func(a, b ClientStats) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Requests, a.Requests), a.Addr.Compare(b.Addr))
	})
	st.Clients = st.Clients[:min(len(st.Clients), topClients)]
	return st
}
