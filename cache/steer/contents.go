package steer

import (
	"bytes"
	"net/netip"
	"slices"
	"time"
)

// contents is what the sets in the kernel are to hold.
type contents struct {
	ports      []uint16
	infohashes [][20]byte
	clients    []netip.Addr
	peers      []netip.AddrPort
}

// Bounds of the sets: one transaction renews them all.
const (
	maxInfohashes = 2048
	maxWards      = 1024
	maxPeers      = 2048
)

// bound puts everything in order and drops what is over the bounds.
func (c *contents) bound() {
	slices.SortFunc(c.infohashes, func(a, b [20]byte) int { return bytes.Compare(a[:], b[:]) })
	c.infohashes = slices.Compact(c.infohashes)
	c.infohashes = c.infohashes[:min(len(c.infohashes), maxInfohashes)]
	c.clients = c.clients[:min(len(c.clients), maxWards)]
	c.peers = c.peers[:min(len(c.peers), maxPeers)]
}

func (c contents) equal(o contents) bool {
	return slices.Equal(c.ports, o.ports) && slices.Equal(c.infohashes, o.infohashes) &&
		slices.Equal(c.clients, o.clients) && slices.Equal(c.peers, o.peers)
}

// endpointLife is how long an endpoint counts after the box has last heard of it.
const endpointLife = 10 * time.Minute

// endpoints remembers the peers that the box has heard of. Not safe for
// concurrent use.
type endpoints struct{ seen map[netip.AddrPort]time.Time }

func newEndpoints() *endpoints { return &endpoints{seen: map[netip.AddrPort]time.Time{}} }

func (e *endpoints) update(now time.Time, heard []netip.AddrPort) {
	for _, ap := range heard {
		e.seen[netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())] = now
	}
	for ap, at := range e.seen {
		if now.Sub(at) > endpointLife {
			delete(e.seen, ap)
		}
	}
}

// lowestPort is that of the endpoints that count. Anybody can name anything as a
// peer: a client is not to lose the web, mail or names for it.
const lowestPort = 1024

// list gives those outside, in order.
func (e *endpoints) list(inside func(netip.Addr) bool) []netip.AddrPort {
	var list []netip.AddrPort
	for ap := range e.seen {
		if ap.IsValid() && ap.Port() >= lowestPort && ap.Addr().IsGlobalUnicast() && !inside(ap.Addr()) {
			list = append(list, ap)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	return list
}
