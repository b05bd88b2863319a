package multicast

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// hub is a LAN in memory: what is sent arrives at once, or is lost by the dice
// of the host that it goes to.
type hub struct {
	// mu guards what follows.
	mu    sync.Mutex
	conns []*hubConn
	port  uint16
	bytes map[netip.Addr]int64 // sent by each host, Ethernet, IP and UDP headers included
}

func newHub() *hub { return &hub{port: 40000, bytes: map[netip.Addr]int64{}} }

// host puts a machine on the LAN. loss is the fraction of packets that it
// misses.
func (h *hub) host(addr string, loss float64, seed uint64) *hubHost {
	return &hubHost{hub: h, addr: netip.MustParseAddr(addr), loss: loss, dice: rand.New(rand.NewPCG(seed, seed))}
}

// sent is how many bytes a host has sent.
func (h *hub) sent(host *hubHost) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes[host.addr]
}

// hubHost is a machine on the LAN: its network. hub.mu guards loss,
// dice and what bursts are made of.
type hubHost struct {
	hub  *hub
	addr netip.Addr
	loss float64
	dice *rand.Rand
	deaf bool // gets no multicast, as behind a switch that lost its querier

	burst  int // packets that are lost at once, 0 or 1 for one by one
	losing int // packets of a burst yet to be lost
}

// loses says what becomes of a packet; hub.mu is held.
func (m *hubHost) loses() bool {
	if m.losing == 0 && m.dice.Float64() < m.loss/float64(max(1, m.burst)) {
		m.losing = max(1, m.burst)
	}
	lost := m.losing > 0
	m.losing = max(0, m.losing-1)
	return lost
}

func (m *hubHost) address(string, netip.Addr) (netip.Addr, error) { return m.addr, nil }
func (m *hubHost) facing(netip.Addr) (string, error)              { return "lan", nil }

func (m *hubHost) nap(d time.Duration) { time.Sleep(d) }

func (m *hubHost) transmit(string, netip.Addr, socketOptions) (conn, error) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	m.hub.port++
	return m.attach(&hubConn{at: netip.AddrPortFrom(m.addr, m.hub.port)}), nil
}

func (m *hubHost) join(_ string, group netip.AddrPort, sources []netip.Addr, _ socketOptions) (conn, error) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	return m.attach(&hubConn{at: group, sources: sources}), nil
}

// attach puts a socket on the LAN; hub.mu is held.
func (m *hubHost) attach(c *hubConn) *hubConn {
	c.host, c.queue, c.gone = m, make(chan packet, 8192), make(chan struct{})
	m.hub.conns = append(m.hub.conns, c)
	return c
}

// hubConn is a socket on the LAN.
type hubConn struct {
	host    *hubHost
	at      netip.AddrPort
	sources []netip.Addr
	queue   chan packet
	gone    chan struct{}
	drops   uint64 // hub.mu guards it
}

func (c *hubConn) local() netip.AddrPort { return c.at }

func (c *hubConn) dropped() uint64 {
	c.host.hub.mu.Lock()
	defer c.host.hub.mu.Unlock()
	return c.drops
}

func (c *hubConn) close() error {
	h := c.host.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.conns, c); i >= 0 {
		h.conns = slices.Delete(h.conns, i, i+1)
		close(c.gone)
	}
	return nil
}

func (c *hubConn) send(packets [][]byte, to netip.AddrPort) error {
	h := c.host.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-c.gone:
		return net.ErrClosed
	default:
	}
	for _, p := range packets {
		h.bytes[c.host.addr] += int64(len(p) + headers(to.Addr()))
		h.deliver(slices.Clone(p), c.at, to)
	}
	return nil
}

// deliver gives a packet to those who listen; h.mu is held. Receivers share its
// bytes and do not change them.
func (h *hub) deliver(p []byte, from, to netip.AddrPort) {
	lost := map[*hubHost]bool{}
	for _, c := range h.conns {
		if c.at != to || len(c.sources) > 0 && !slices.Contains(c.sources, from.Addr()) {
			continue
		}
		if _, ok := lost[c.host]; !ok {
			lost[c.host] = c.host.loses() || c.host.deaf && to.Addr().IsMulticast()
		}
		if lost[c.host] {
			continue
		}
		select {
		case c.queue <- packet{p, from}:
		default:
			c.drops++
		}
	}
}

func (c *hubConn) room() int { return 8192 * 1400 }

func (c *hubConn) receive(b *batch) error {
	select {
	case p := <-c.queue:
		b.packets = append(b.packets[:0], p)
	case <-c.gone:
		return net.ErrClosed
	}
	for len(b.packets) < b.limit {
		select {
		case p := <-c.queue:
			b.packets = append(b.packets, p)
		default:
			b.full = false
			return nil
		}
	}
	b.full = true
	return nil
}
