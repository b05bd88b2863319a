//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// queryResponse is the Max Response Time of the switches' queriers: until it has
// passed a bridge floods, so it is far below the 10 s of RFC 3376 §8.3.
const queryResponse = 300 * time.Millisecond

// SwitchConfig says how to make a Switch. The zero value is a plain switch
// without automatic addresses.
type SwitchConfig struct {
	// Prefixes are the networks on the switch, from which Join takes the next
	// free address where LinkConfig.Addrs is empty.
	Prefixes []string
	// Gateways are the routers that hosts on the switch get as default route,
	// at most one per family.
	Gateways []string
	// Snooping keeps multicast from ports without a member, once a querier is
	// there (IGMP and MLD). Without a querier a Linux bridge floods.
	Snooping bool
	// Querier makes the switch itself the querier; needs Snooping.
	Querier bool
}

// Switch is a Linux bridge in a namespace of its own.
type Switch struct {
	name string
	lab  *Lab
	ns   *namespace
	cfg  SwitchConfig

	prefixes []netip.Prefix
	gateways []netip.Addr
	bridge   int // interface index

	mu         sync.Mutex // guards all below
	used       map[netip.Addr]bool
	effectual  time.Time // when the querier has begun to count
	hasQuerier bool
}

// Switch adds a switch.
func (l *Lab) Switch(name string, cfg SwitchConfig) *Switch {
	s := &Switch{name: name, lab: l, cfg: cfg, used: map[netip.Addr]bool{}}
	l.build("switch "+name, func() error {
		l.mu.Lock()
		taken := l.switches[name] != nil
		if !taken {
			l.switches[name] = s
		}
		l.mu.Unlock()
		if taken {
			return errors.New("name is taken")
		}
		if err := s.parse(); err != nil {
			return err
		}
		return s.make()
	})
	return s
}

func (s *Switch) parse() error {
	var faults []error
	for _, text := range s.cfg.Prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			faults = append(faults, inField("Prefixes", err))
			continue
		}
		s.prefixes = append(s.prefixes, p.Masked())
	}
	for _, text := range s.cfg.Gateways {
		a, err := netip.ParseAddr(text)
		if err != nil {
			faults = append(faults, inField("Gateways", err))
			continue
		}
		s.gateways = append(s.gateways, a)
		s.used[a] = true
	}
	if s.cfg.Querier && !s.cfg.Snooping {
		faults = append(faults, inField("Querier", errors.New("needs Snooping")))
	}
	return errors.Join(faults...)
}

func (s *Switch) make() error {
	ns, err := s.lab.newNamespace()
	if err != nil {
		return err
	}
	s.ns = ns
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "br0", s.lab.nextMAC()
	if err := ns.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &s.cfg.Snooping}); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	bridge, err := ns.nl.LinkByName("br0")
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	s.bridge = bridge.Attrs().Index
	if err := ns.nl.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge up: %w", err)
	}
	if !s.cfg.Querier {
		return nil
	}
	return s.SetQuerier(true)
}

// SetQuerier starts or stops the querier of the switch. Stopped, the switch
// waits for the memberships it knows to age out, and may then starve members:
// the black hole a LAN falls into when its querier dies.
func (s *Switch) SetQuerier(on bool) error {
	if err := s.lab.alive(); err != nil {
		return fmt.Errorf("set querier of switch %s: %w", s.name, err)
	}
	var enable byte
	if on {
		enable = 1
		if err := s.addLinkLocal(); err != nil {
			return fmt.Errorf("set querier of switch %s: %w", s.name, err)
		}
	}
	ticks := uint64(queryResponse / (10 * time.Millisecond)) // USER_HZ
	err := s.ns.do(func() error {
		// One after the other: the kernel would start the querier first, and
		// with the interval it had before.
		return errors.Join(
			setBridge(s.bridge, []bridgeAttr{
				{nl.IFLA_BR_MCAST_QUERY_RESPONSE_INTVL, nl.Uint64Attr(ticks)},
				{nl.IFLA_BR_MCAST_IGMP_VERSION, nl.Uint8Attr(3)},
				{nl.IFLA_BR_MCAST_MLD_VERSION, nl.Uint8Attr(2)},
			}),
			setBridge(s.bridge, []bridgeAttr{{nl.IFLA_BR_MCAST_QUERIER, nl.Uint8Attr(enable)}}))
	})
	if err != nil {
		return fmt.Errorf("set querier of switch %s: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hasQuerier = on
	s.effectual = time.Now().Add(queryResponse + 50*time.Millisecond)
	return nil
}

// addLinkLocal gives the bridge the link-local address of its MAC at once. The
// kernel would wait for a first port, and an MLD querier without an address
// stays silent until its next turn.
func (s *Switch) addLinkLocal() error {
	bridge, err := s.ns.nl.LinkByIndex(s.bridge)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	mac := bridge.Attrs().HardwareAddr
	ip := net.IP{
		0xfe, 0x80, 0, 0, 0, 0, 0, 0, // RFC 4291 appendix A
		mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	err = s.ns.nl.AddrAdd(bridge, addr)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add link-local address: %w", err)
	}
	return nil
}

// waitSnooping waits until the bridge trusts its querier and stops to flood.
func (s *Switch) waitSnooping(ctx context.Context) error {
	s.mu.Lock()
	wait := time.Until(s.effectual)
	s.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for querier of switch %s: %w", s.name, ctx.Err())
	case <-time.After(wait):
		return nil
	}
}

// assign takes the next free address of each prefix.
func (s *Switch) assign() ([]netip.Prefix, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.prefixes) == 0 {
		return nil, errors.New("no Addrs given, and the switch has no Prefixes")
	}
	var out []netip.Prefix
	for _, p := range s.prefixes {
		a := p.Addr().Next()
		for s.used[a] {
			a = a.Next()
		}
		if !p.Contains(a) || !p.Contains(a.Next()) {
			return nil, fmt.Errorf("no free address in %s", p)
		}
		s.used[a] = true
		out = append(out, netip.PrefixFrom(a, p.Bits()))
	}
	return out, nil
}

func (s *Switch) reserve(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[a] = true
}

// bridgeAttr is one IFLA_BR_* attribute; the netlink package knows only a few.
type bridgeAttr struct {
	kind  int
	value []byte
}

// setBridge changes attributes of a bridge in the namespace of the thread.
func setBridge(index int, set []bridgeAttr) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for _, a := range set {
		data.AddRtAttr(a.kind, a.value)
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
