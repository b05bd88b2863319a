package multicast

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// Room for what comes from the kernel: packets, or bursts that it has put
// together again.
const (
	packetRoom = 9216
	burstRoom  = 64 << 10
)

// maxBatch is how many packets or bursts are worth one call to the kernel.
const maxBatch = 64

// packet is a datagram received.
type packet struct {
	data []byte
	from netip.AddrPort
}

// batch is packets received together. They lie in its buffers, which are used
// again for the next ones.
type batch struct {
	packets []packet
	limit   int            // packets, or bursts of them, that come at once
	full    bool           // so many came: there may be more
	buffers []ipv4.Message // of a socket; what is not used of them takes no memory
}

func newBatch(limit int) *batch { return &batch{limit: limit} }

// room gives the buffers to receive into, of size bytes each.
func (b *batch) room(size int) []ipv4.Message {
	for len(b.buffers) < b.limit {
		b.buffers = append(b.buffers, ipv4.Message{Buffers: [][]byte{make([]byte, size)}, OOB: make([]byte, controlSize)})
	}
	return b.buffers
}

// unpack takes the packets out of the first n buffers.
func (b *batch) unpack(n int) {
	b.packets, b.full = b.packets[:0], n == b.limit
	for i := range b.buffers[:n] {
		m := &b.buffers[i]
		rest, size := m.Buffers[0][:m.N], m.N
		if n, ok := segmentSize(m.OOB[:m.NN]); ok && n > 0 {
			size = n
		}
		var from netip.AddrPort
		if a, ok := m.Addr.(*net.UDPAddr); ok {
			at := a.AddrPort()
			from = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		}
		for len(rest) > 0 {
			n := min(size, len(rest))
			b.packets = append(b.packets, packet{rest[:n:n], from})
			rest = rest[n:]
		}
	}
}

// bytes is the length of all packets.
func (b *batch) bytes() (n int) {
	for _, p := range b.packets {
		n += len(p.data)
	}
	return n
}
