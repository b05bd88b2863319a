package proxy

import (
	"cmp"
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
