//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// LinkCounters tells what was put on a link since it was made, by direction.
type LinkCounters struct {
	ToHost, FromHost LinkCount
}

// LinkCount counts whole Ethernet frames (without FCS and preamble) that the
// sender put on the link, lost ones included.
type LinkCount struct {
	Frames, Bytes uint64
	// Lost counts those of Frames that the loss model took (since the last
	// SetPath), Overflow those that found the queue of a wire full. A token
	// bucket in the kernel drops before it counts: Overflow is then 0.
	Lost, Overflow uint64
}

// Counters reads the link bytes of both directions.
func (l *Link) Counters() (LinkCounters, error) {
	var c LinkCounters
	if err := l.host.lab.alive(); err != nil {
		return c, fmt.Errorf("count link of %s: %w", l.host.name, err)
	}
	for d, out := range map[Direction]*LinkCount{ToHost: &c.ToHost, FromHost: &c.FromHost} {
		if err := l.count(d, out); err != nil {
			return LinkCounters{}, fmt.Errorf("count link of %s: %w", l.host.name, err)
		}
	}
	return c, nil
}

func (l *Link) count(d Direction, out *LinkCount) error {
	from, to := l.ends(d)
	dev, err := from.ns.nl.LinkByIndex(from.index)
	if err != nil {
		return fmt.Errorf("find %s: %w", from.name, err)
	}
	stats := dev.Attrs().Statistics
	out.Frames, out.Bytes = stats.TxPackets, stats.TxBytes
	if l.wire != nil {
		lane := l.wire.lanes[d]
		out.Lost, out.Overflow = lane.lost.Load(), lane.overflow.Load()
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lossy[d] {
		return nil
	}
	n, err := readCounter(to.ns, &nftables.CounterObj{Table: lossTable(to), Name: "lost"})
	out.Lost = n.Packets
	return err
}

// Hook is a place in the way of IP packets through a host.
type Hook int

// The hooks, as netfilter names them.
const (
	Prerouting  Hook = iota // all that arrives, for groups nobody joined too
	Input                   // what arrives for the host itself
	Forward                 // what passes through
	Output                  // what the host itself sends; a multicast packet once
	Postrouting             // all that leaves, after NAT
)

// Filter selects IP packets; zero fields match everything.
type Filter struct {
	In, Out *Link // In not at Output and Postrouting, Out not at Prerouting and Input
	// Src and Dst select by address, of either family.
	Src, Dst netip.Prefix
	// Protocol is an IP protocol number like unix.IPPROTO_TCP. The ports need it.
	Protocol         uint8
	SrcPort, DstPort uint16
}

// IPCounter counts packets at a Hook. It lives as long as the lab.
type IPCounter struct {
	host *Host
	obj  *nftables.CounterObj
}

// IPCount is a reading of an IPCounter. Bytes include the IP header, but no
// Ethernet header.
type IPCount struct {
	Packets, Bytes uint64
}

// CountIP starts to count the packets that match f at a hook of h.
func (h *Host) CountIP(at Hook, f Filter) (*IPCounter, error) {
	if h.ns == nil {
		return nil, fmt.Errorf("host %s was not built", h.name)
	}
	match, err := f.exprs()
	if err = errors.Join(err, h.lab.alive()); err != nil {
		return nil, fmt.Errorf("count on %s: %w", h.name, err)
	}
	if at < Prerouting || at > Postrouting {
		return nil, fmt.Errorf("count on %s: unknown hook %d", h.name, at)
	}
	hook := [...]struct {
		name     string
		hook     *nftables.ChainHook
		priority *nftables.ChainPriority
	}{
		{"prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw},
		{"input", nftables.ChainHookInput, nftables.ChainPrioritySecurity},
		{"forward", nftables.ChainHookForward, nftables.ChainPrioritySecurity},
		{"output", nftables.ChainHookOutput, nftables.ChainPrioritySecurity},
		{"postrouting", nftables.ChainHookPostrouting, nftables.ChainPrioritySELinuxLast},
	}[at]
	c, err := nftables.New(nftables.WithNetNSFd(h.ns.fd))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "lab-count"})
	chain := c.AddChain(&nftables.Chain{
		Name: hook.name, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: hook.hook, Priority: hook.priority,
	})
	obj := &nftables.CounterObj{Table: table, Name: fmt.Sprintf("count%d", h.lab.next())}
	c.AddObj(obj)
	match = append(match, &expr.Objref{Type: int(nftables.ObjTypeCounter), Name: obj.Name})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: match})
	if err := c.Flush(); err != nil {
		return nil, fmt.Errorf("count on %s: %w", h.name, err)
	}
	return &IPCounter{host: h, obj: obj}, nil
}

// Read tells what was counted so far.
func (c *IPCounter) Read() (IPCount, error) {
	if err := c.host.lab.alive(); err != nil {
		return IPCount{}, fmt.Errorf("count on %s: %w", c.host.name, err)
	}
	return readCounter(c.host.ns, c.obj)
}

func readCounter(ns *namespace, obj *nftables.CounterObj) (IPCount, error) {
	c, err := nftables.New(nftables.WithNetNSFd(ns.fd))
	if err != nil {
		return IPCount{}, fmt.Errorf("open nftables: %w", err)
	}
	got, err := c.GetObject(obj)
	if err != nil {
		return IPCount{}, fmt.Errorf("read counter %s: %w", obj.Name, err)
	}
	counter, ok := got.(*nftables.CounterObj)
	if !ok {
		return IPCount{}, fmt.Errorf("read counter %s: got a %T", obj.Name, got)
	}
	return IPCount{Packets: counter.Packets, Bytes: counter.Bytes}, nil
}

func (f Filter) exprs() ([]expr.Any, error) {
	var out []expr.Any
	if f.In != nil {
		out = append(out, load(expr.MetaKeyIIFNAME), equal(ifname(f.In.near.name)))
	}
	if f.Out != nil {
		out = append(out, load(expr.MetaKeyOIFNAME), equal(ifname(f.Out.near.name)))
	}
	if f.Src.IsValid() && f.Dst.IsValid() && f.Src.Addr().Is4() != f.Dst.Addr().Is4() {
		return nil, fmt.Errorf("filter: %s and %s are of two families", f.Src, f.Dst)
	}
	out = append(out, matchPrefix(f.Src, 12, 8)...)
	out = append(out, matchPrefix(f.Dst, 16, 24)...)
	if f.Protocol != 0 {
		out = append(out, load(expr.MetaKeyL4PROTO), equal([]byte{f.Protocol}))
	} else if f.SrcPort != 0 || f.DstPort != 0 {
		return nil, fmt.Errorf("filter: a port needs a Protocol")
	}
	for offset, port := range []uint16{f.SrcPort, f.DstPort} {
		if port != 0 {
			out = append(out,
				&expr.Payload{
					DestRegister: 1, Base: expr.PayloadBaseTransportHeader,
					Offset: uint32(2 * offset), Len: 2,
				},
				equal(binaryutil.BigEndian.PutUint16(port)))
		}
	}
	return out, nil
}

// matchPrefix compares the address at an offset of the IPv4 or IPv6 header.
func matchPrefix(p netip.Prefix, offset4, offset6 uint32) []expr.Any {
	if !p.IsValid() {
		return nil
	}
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	net := ipNet(p)
	size := uint32(len(net.Mask))
	return []expr.Any{
		load(expr.MetaKeyNFPROTO), equal([]byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.Mask, Xor: make([]byte, size)},
		equal(net.IP),
	}
}

// ifname is an interface name as nftables compares it.
func ifname(name string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, name)
	return out
}
