package multicast

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// Room for what one call to the kernel brings: packets, or bursts that it has
// put together again.
const (
	maxBatch   = 128
	packetRoom = 9216
	burstRoom  = 64 << 10
)

// unread is what the kernel has given and nobody has taken yet.
type unread struct {
	messages []ipv4.Message
	n        int // messages that have something in them
	at       int // the message to take from
	from     netip.AddrPort
	rest     []byte // of that message
	segment  int    // length of its packets, but for the last
}

// grow makes room for count messages.
func (u *unread) grow(count int, bulk bool) {
	room := packetRoom
	if bulk {
		room = burstRoom
	}
	for len(u.messages) < count {
		u.messages = append(u.messages, ipv4.Message{Buffers: [][]byte{make([]byte, room)}, OOB: make([]byte, controlSize)})
	}
}

// begin starts taking from the first n messages.
func (u *unread) begin(n int) {
	u.n, u.at = n, -1
	u.next()
}

func (u *unread) done() bool { return u.at >= u.n }

// next goes on to the next message that is not empty.
func (u *unread) next() {
	for u.at++; u.at < u.n; u.at++ {
		m := &u.messages[u.at]
		if m.N == 0 {
			continue
		}
		u.rest, u.segment, u.from = m.Buffers[0][:m.N], m.N, netip.AddrPort{}
		if size, ok := segmentSize(m.OOB[:m.NN]); ok && size > 0 {
			u.segment = size
		}
		if a, ok := m.Addr.(*net.UDPAddr); ok {
			from := a.AddrPort()
			u.from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		}
		return
	}
}

// take gives the next packet, valid until the kernel is asked for more.
func (u *unread) take() (data []byte, from netip.AddrPort) {
	n := min(u.segment, len(u.rest))
	data, from = u.rest[:n], u.from
	if u.rest = u.rest[n:]; len(u.rest) == 0 {
		u.next()
	}
	return data, from
}
