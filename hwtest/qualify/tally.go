package qualify

import (
	"encoding/binary"

	"github.com/cistern-edge/cistern/admin/client"
)

// packetBytes is the payload of a test packet. It begins with a word that tells
// it from others, the number of the run, its own number and, in the last ones,
// how many there were.
const packetBytes = 1400

const packetWord = 0x63697374_71756c79

// headBytes is what of a packet says something.
const headBytes = 32

// maxPackets bounds a run, and with it what a receiver remembers.
const maxPackets = 1 << 26

// packet is a test packet.
type packet struct {
	run, num, total uint64 // total is 0 but in the last ones, which have no number
}

func (p packet) put(b []byte) {
	be := binary.BigEndian
	be.PutUint64(b, packetWord)
	be.PutUint64(b[8:], p.run)
	be.PutUint64(b[16:], p.num)
	be.PutUint64(b[24:], p.total)
}

// parsePacket reads what came from a network.
func parsePacket(b []byte) (packet, bool) {
	be := binary.BigEndian
	if len(b) < headBytes || be.Uint64(b) != packetWord {
		return packet{}, false
	}
	p := packet{be.Uint64(b[8:]), be.Uint64(b[16:]), be.Uint64(b[24:])}
	return p, p.num < maxPackets && p.total <= maxPackets
}

// tally counts what came of one run.
type tally struct {
	run              uint64
	seen             []uint64 // a bit for each number
	next             uint64   // one more than the highest number
	unique, late, by uint64
	total            uint64 // 0 until the sender has said it
}

// add takes a packet; those of other runs are none of its business.
func (t *tally) add(p packet) {
	if t.unique == 0 && t.total == 0 {
		t.run = p.run
	}
	if p.run != t.run {
		return
	}
	if p.total > 0 {
		t.total = p.total
		return
	}
	word, bit := p.num/64, uint64(1)<<(p.num%64)
	for uint64(len(t.seen)) <= word {
		t.seen = append(t.seen, make([]uint64, 1024)...)
	}
	if t.seen[word]&bit != 0 {
		t.by++
		return
	}
	t.seen[word] |= bit
	t.unique++
	if p.num < t.next {
		t.late++
	}
	t.next = max(t.next, p.num+1)
}

// result says how it went. Without the sender's word the highest number has to
// do for how many there were.
func (t *tally) result() client.MulticastTest {
	sent := t.total
	if sent == 0 {
		sent = t.next
	}
	return client.MulticastTest{Sent: sent, Received: t.unique, Lost: sent - min(t.unique, sent), Reordered: t.late, Duplicates: t.by}
}

// parseQuery reads an IP packet and says whether it is an IGMP query, from whom
// and of which version (RFC 3376 §7.1).
func parseQuery(ip []byte) (from [4]byte, version int, ok bool) {
	if len(ip) < 20 || ip[0]>>4 != 4 || ip[9] != 2 {
		return from, 0, false
	}
	head := int(ip[0]&15) * 4
	if head < 20 || len(ip) < head+8 {
		return from, 0, false
	}
	// Ethernet may pad: the packet's own length counts.
	length := min(int(binary.BigEndian.Uint16(ip[2:])), len(ip))
	igmp := ip[head:max(length, head)]
	if len(igmp) < 8 || igmp[0] != 0x11 {
		return from, 0, false
	}
	copy(from[:], ip[12:16])
	switch {
	case len(igmp) >= 12:
		version = 3
	case igmp[1] != 0:
		version = 2
	default:
		version = 1
	}
	return from, version, true
}
