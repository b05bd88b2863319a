package multicast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// kernel is the network of the operating system.
type kernel struct{}

func (kernel) address(iface string, group netip.Addr) (netip.Addr, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s: %w", iface, err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of interface %s: %w", iface, err)
	}
	var spare netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || prefix.Addr().Is4() != group.Is4() {
			continue
		}
		if !prefix.Addr().IsLinkLocalUnicast() {
			return prefix.Addr(), nil
		}
		if prefix.Addr().Is4() { // IPv6 ones mean nothing without their zone
			spare = prefix.Addr()
		}
	}
	if !spare.IsValid() {
		return spare, fmt.Errorf("interface %s has no address to send to %s from", iface, group)
	}
	return spare, nil
}

// facing asks the routing table; connecting a UDP socket sends nothing.
func (k kernel) facing(host netip.Addr) (string, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(host, 9).String())
	if err != nil {
		return "", fmt.Errorf("find the way to %s: %w", host, err)
	}
	defer c.Close()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	ifaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	for _, ifi := range ifaces {
		addrs, err := ifi.Addrs()
		if err != nil {
			continue // it may have gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == local {
				return ifi.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has address %s, which leads to %s", local, host)
}

// options are what ipv4.PacketConn and ipv6.PacketConn have in common. The
// Message types of both packages are the same type.
type options interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
	JoinGroup(ifi *net.Interface, group net.Addr) error
	JoinSourceSpecificGroup(ifi *net.Interface, group, source net.Addr) error
	SetMulticastInterface(ifi *net.Interface) error
	SetMulticastLoopback(on bool) error
	SetBPF(filter []bpf.RawInstruction) error
}

// socket is a conn of the kernel.
type socket struct {
	options
	udp     net.PacketConn
	out     []ipv4.Message
	burst   []ipv4.Message // one, with a burst to be cut up
	cuts    segmentation
	offload bool
	size    int // of the largest packet or burst that it can receive
	held    int // of its receive buffer, in bytes
	drops   atomic.Uint64
}

// open makes a UDP socket bound to at, on an interface.
func open(iface string, at netip.AddrPort, opt socketOptions) (*socket, *net.Interface, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	var held int
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { held, err = prepare(fd, opt.buffer, opt.bulk) }), err)
	}}
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp6"
	}
	pc, err := lc.ListenPacket(context.Background(), network, bindAddress(at))
	if err != nil {
		return nil, nil, fmt.Errorf("open socket on %s: %w", iface, err)
	}
	udp, err := unpolled(pc.(*net.UDPConn))
	if err != nil {
		return nil, nil, err
	}
	s := &socket{udp: udp, offload: opt.offload && segments, size: packetRoom, held: held}
	if opt.bulk && segments {
		s.size = burstRoom
	}
	if at.Addr().Is4() {
		s.options = ipv4.NewPacketConn(udp)
	} else {
		s.options = ipv6.NewPacketConn(udp)
	}
	return s, ifi, nil
}

// bindAddress is the address to bind to. Where a system lets a socket be bound
// to a group, the socket gets nothing else.
func bindAddress(at netip.AddrPort) string {
	if at.Addr().IsMulticast() && !bindsGroups {
		return ":" + strconv.Itoa(int(at.Port()))
	}
	return at.String()
}

func (k kernel) transmit(iface string, group netip.Addr, opt socketOptions) (conn, error) {
	from, err := k.address(iface, group)
	if err != nil {
		return nil, err
	}
	s, ifi, err := open(iface, netip.AddrPortFrom(from, 0), opt)
	if err != nil {
		return nil, err
	}
	ttl := max(1, opt.ttl)
	if p, ok := s.options.(*ipv4.PacketConn); ok {
		err = p.SetMulticastTTL(ttl)
	} else {
		err = s.options.(*ipv6.PacketConn).SetMulticastHopLimit(ttl)
	}
	// An agent may live on the box itself, so its own packets come back to it.
	err = errors.Join(err, s.SetMulticastInterface(ifi), s.SetMulticastLoopback(true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare to send from %s: %w", iface, err), s.close())
	}
	return s, nil
}

func (kernel) join(iface string, group netip.AddrPort, sources []netip.Addr, opt socketOptions) (conn, error) {
	s, ifi, err := open(iface, group, opt)
	if err != nil {
		return nil, err
	}
	to := &net.UDPAddr{IP: group.Addr().AsSlice()}
	if len(sources) == 0 {
		err = s.JoinGroup(ifi, to)
	}
	for _, source := range sources {
		err = errors.Join(err, s.JoinSourceSpecificGroup(ifi, to, &net.UDPAddr{IP: source.AsSlice()}))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("join %s on %s: %w", group, iface, err), s.close())
	}
	if opt.replies {
		_ = s.takeReplies() // else the sender's own packets are sorted out later, at some cost
	}
	return s, nil
}

// takeReplies has the kernel drop NORM messages of senders, whose type is below
// 4: a sender that listens to its group would get its own packets. The filter
// sees a packet from its UDP header on.
func (s *socket) takeReplies() error {
	const udpHeader, senders = 8, 4
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: udpHeader, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: senders, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	return s.SetBPF(filter)
}

func (s *socket) local() netip.AddrPort {
	a := s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (s *socket) dropped() uint64 { return s.drops.Load() }
func (s *socket) room() int       { return s.held }
func (s *socket) close() error    { return s.udp.Close() }

func (s *socket) send(packets [][]byte, to netip.AddrPort) error {
	if s.offload {
		done, err := s.sendSegmented(packets, to)
		if done || errors.Is(err, net.ErrClosed) {
			return err
		}
		s.offload = false // this card or kernel cannot; do it by hand
	}
	addr := net.UDPAddrFromAddrPort(to)
	for len(s.out) < len(packets) {
		s.out = append(s.out, ipv4.Message{Buffers: make([][]byte, 1)})
	}
	for i, p := range packets {
		s.out[i].Buffers[0], s.out[i].Addr, s.out[i].OOB = p, addr, nil
	}
	for rest := s.out[:len(packets)]; len(rest) > 0; {
		n, err := s.WriteBatch(rest, 0)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil || n == 0 {
			n = max(n, 0) + 1 // full queue, link down, firewall: that packet is lost
		}
		rest = rest[min(n, len(rest)):]
	}
	return nil
}

// sendSegmented sends each run of packets of one length as one burst that the
// kernel or the card cuts up. done says that all went out.
func (s *socket) sendSegmented(packets [][]byte, to netip.AddrPort) (done bool, err error) {
	addr := net.UDPAddrFromAddrPort(to)
	for len(packets) > 0 {
		size, n := len(packets[0]), 1
		for n < len(packets) && len(packets[n-1]) == size && len(packets[n]) <= size {
			n++
		}
		s.burst = append(s.burst[:0], ipv4.Message{Buffers: packets[:n], Addr: addr, OOB: s.cuts.control(size)})
		if _, err := s.WriteBatch(s.burst, 0); err != nil {
			return false, err
		}
		packets = packets[n:]
	}
	return true, nil
}

func (s *socket) receive(b *batch) error {
	b.packets = b.packets[:0]
	for failed := 0; len(b.packets) == 0; {
		n, err := s.ReadBatch(b.room(s.size), 0)
		if err != nil || n <= 0 {
			// It may be an ICMP error that somebody's host sent us.
			if failed++; failed > 100 || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("receive: %w", err)
			}
			continue
		}
		last := b.buffers[n-1]
		if drops, ok := dropCount(last.OOB[:last.NN]); ok {
			s.drops.Store(drops)
		}
		b.unpack(n)
	}
	return nil
}
