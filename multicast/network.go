package multicast

import (
	"net/netip"
	"time"
)

// Bytes that a UDP datagram costs beyond its payload. What an interface counts
// is the Ethernet, IP and UDP headers; what it occupies on the line is also the
// preamble (8), the frame check sequence (4) and the gap (12).
const (
	headers4 = 14 + 20 + 8
	headers6 = 14 + 40 + 8
	lineOnly = 8 + 4 + 12
)

// headers is what an interface counts for each packet of a group beyond its
// payload.
func headers(group netip.Addr) int {
	if group.Is4() {
		return headers4
	}
	return headers6
}

// network is the seam between sessions and the kernel. Tests put a LAN in
// memory behind it.
type network interface {
	// address is the unicast address of an interface, of the family of group.
	address(iface string, group netip.Addr) (netip.Addr, error)
	// facing is the interface that leads to a host.
	facing(host netip.Addr) (iface string, err error)
	// transmit opens a socket that sends from an interface's address, to groups
	// and to hosts, and receives what is sent to it.
	transmit(iface string, group netip.Addr, opt socketOptions) (conn, error)
	// nap sleeps for a short time, as exactly as it can.
	nap(time.Duration)
	// join opens a socket that receives what is sent to a group on an interface,
	// by the sources alone if any are given.
	join(iface string, group netip.AddrPort, sources []netip.Addr, opt socketOptions) (conn, error)
}

// socketOptions are what sockets may differ in.
type socketOptions struct {
	ttl     int  // of multicast sent
	buffer  int  // of the receiving side, in bytes; 0: the system's default
	offload bool // let the kernel cut bursts into packets
	bulk    bool // let the kernel put bursts together again
	replies bool // take what receivers say alone, where the system can tell
}

// conn is a UDP socket. send and receive may be called at the same time, each
// by one goroutine.
type conn interface {
	// send sends the packets. What the network does not take is lost, as on any
	// network; the error says that the socket is closed.
	send(packets [][]byte, to netip.AddrPort) error
	// receive waits for packets and puts them into b, in place of those it had. It
	// fails if the socket is closed.
	receive(b *batch) error
	// room is how many bytes of packets wait for receive, roughly.
	room() int
	// local is the address that the socket sends from.
	local() netip.AddrPort
	// dropped is how many packets the kernel dropped for want of buffer.
	dropped() uint64
	close() error
}

// pump reads a conn in a goroutine of its own, so that the kernel's buffer is
// emptied while its owner works. It ends when the conn is closed.
type pump struct {
	full chan *batch // closed at the end
	free chan *batch
	rest time.Duration
}

// restTime is how long a pump waits at most where much comes, so that it wakes
// for several bursts at once. The kernel's buffer holds them: it may fill by a
// quarter.
const (
	restTime    = 16 * time.Millisecond
	restPackets = 8
)

// startPump reads c into batches of at most limit packets or bursts. It rests
// for up to a time after it has read several packets, but not a full batch.
func startPump(c conn, limit int, rest time.Duration) *pump {
	const batches = 2 // one is filled while the other is emptied
	p := &pump{full: make(chan *batch, batches), free: make(chan *batch, batches), rest: rest}
	for range batches {
		p.free <- newBatch(limit)
	}
	go p.run(c)
	return p
}

func (p *pump) run(c conn) {
	defer close(p.full)
	last := time.Now()
	for b := range p.free {
		if c.receive(b) != nil {
			return
		}
		var rest time.Duration
		if len(b.packets) >= restPackets && !b.full && p.rest > 0 {
			now := time.Now()
			quarter := float64(now.Sub(last)) * float64(c.room()/4) / float64(b.bytes())
			rest, last = min(p.rest, time.Duration(quarter)), now
		}
		p.full <- b
		time.Sleep(rest)
	}
}

// stop closes the conn and waits until the pump has ended.
func (p *pump) stop(c conn) error {
	err := c.close()
	close(p.free)
	for range p.full {
	}
	return err
}
