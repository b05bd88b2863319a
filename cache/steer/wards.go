package steer

import (
	"net/netip"
	"slices"
	"time"
)

// Peer is a BitTorrent connection of a LAN client with the box.
type Peer struct {
	Addr netip.Addr
	// Sent is how many piece bytes the client got by it.
	Sent int64
	// Complete clients want nothing.
	Complete bool
}

const (
	// servedFor is how long a client that got something stays a ward once it has
	// left.
	servedFor = 60 * time.Second
	// stalledFor is how long a ward may wait for the box before it is released.
	stalledFor = 30 * time.Second
)

// wards are the clients that the box looks after, and that need nobody else
// therefore. No I/O, no clock; not safe for concurrent use.
type wards struct {
	clients map[netip.Addr]*ward
}

type ward struct {
	sent      int64
	since     time.Time // connected
	served    time.Time // got something last
	connected bool
	waits     bool
	released  bool
}

func newWards() *wards { return &wards{clients: map[netip.Addr]*ward{}} }

// update takes in who is connected now.
func (w *wards) update(now time.Time, peers []Peer) {
	sums := map[netip.Addr]*ward{}
	for _, p := range peers {
		sum := sums[p.Addr]
		if sum == nil {
			sum = &ward{}
			sums[p.Addr] = sum
		}
		sum.sent += p.Sent
		sum.waits = sum.waits || !p.Complete
	}
	for addr, c := range w.clients {
		if sums[addr] == nil {
			c.connected, c.sent = false, 0
			if now.Sub(c.served) > servedFor {
				delete(w.clients, addr)
			}
		}
	}
	for addr, sum := range sums {
		c := w.clients[addr]
		if c == nil {
			c = &ward{}
			w.clients[addr] = c
		}
		if !c.connected || sum.waits && !c.waits {
			c.since = now
		}
		if sum.sent > c.sent {
			c.served, c.released = now, false
		}
		c.connected, c.sent, c.waits = true, sum.sent, sum.waits
		last := c.served
		if c.since.After(last) {
			last = c.since
		}
		c.released = c.waits && (c.released || now.Sub(last) >= stalledFor)
	}
}

// held lists the wards that are not released, in order.
func (w *wards) held() []netip.Addr {
	var list []netip.Addr
	for addr, c := range w.clients {
		if !c.released {
			list = append(list, addr)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}
