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
	"golang.org/x/sys/unix"
)

// LinkConfig says how a host is plugged into a switch. The zero value is a
// perfect link with the next free address of each prefix of the switch.
type LinkConfig struct {
	// Addrs are the host's addresses with their prefix length, IPv4 or IPv6.
	// Empty: the next free one of each prefix of the switch.
	Addrs []string
	// MTU in bytes, 0: 1500.
	MTU int
	// Offloads leaves segmentation, receive and checksum offloads on: faster,
	// but frames are then no longer frames (see the package comment).
	Offloads bool
	// ToHost is the way from the switch to the host, FromHost the way back.
	ToHost, FromHost Path
}

// Validate reports every fault of c at once, each naming its field.
func (c LinkConfig) Validate() error {
	var faults []error
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 9000) {
		faults = append(faults, inField("MTU", fmt.Errorf("%d is outside 576..9000", c.MTU)))
	}
	for _, a := range c.Addrs {
		if _, err := netip.ParsePrefix(a); err != nil {
			faults = append(faults, inField("Addrs", err))
		}
	}
	if err := c.ToHost.Validate(); err != nil {
		faults = append(faults, inField("ToHost", err))
	}
	if err := c.FromHost.Validate(); err != nil {
		faults = append(faults, inField("FromHost", err))
	}
	return errors.Join(faults...)
}

// Direction names one of the two ways of a Link.
type Direction int

// The two directions of a link.
const (
	ToHost Direction = iota
	FromHost
)

// Link joins a host to a switch.
type Link struct {
	host *Host
	sw   *Switch
	cfg  LinkConfig

	near, far end   // near: in the host; far: the port of the switch
	wire      *wire // nil where the kernel makes both paths

	mu    sync.Mutex // guards all below
	addrs []netip.Prefix
	down  bool
	lossy [2]bool // per Direction: an nftables loss table is there
}

// end is one interface of a link.
type end struct {
	ns    *namespace
	name  string
	index int
}

// Join plugs h into a switch.
func (h *Host) Join(s *Switch, cfg LinkConfig) *Link {
	l := &Link{host: h, sw: s, cfg: cfg}
	h.lab.build("link of "+h.name+" to "+s.name, func() error {
		if s.lab != h.lab {
			return errors.New("the switch is of another lab")
		}
		if err := cfg.Validate(); err != nil {
			return err
		}
		if l.cfg.MTU == 0 {
			l.cfg.MTU = 1500
		}
		return l.make()
	})
	return l
}

func (l *Link) make() error {
	l.host.mu.Lock()
	l.near = end{ns: l.host.ns, name: fmt.Sprintf("eth%d", len(l.host.links))}
	l.host.links = append(l.host.links, l)
	l.host.mu.Unlock()
	l.far = end{ns: l.sw.ns, name: fmt.Sprintf("port%d", l.host.lab.next())}
	plug := l.plugVeth
	if l.cfg.ToHost.needsWire() || l.cfg.FromHost.needsWire() {
		plug = l.plugWire
	}
	for _, step := range []func() error{plug, l.configure, l.shape, l.address} {
		if err := step(); err != nil {
			return err
		}
	}
	lab := l.host.lab
	lab.mu.Lock()
	lab.links = append(lab.links, l)
	lab.mu.Unlock()
	return nil
}

func (l *Link) plugVeth() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = l.far.name, l.cfg.MTU, l.host.lab.nextMAC()
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = l.near.name, netlink.NsFd(l.near.ns.fd)
	veth.PeerMTU, veth.PeerHardwareAddr = uint32(l.cfg.MTU), l.host.lab.nextMAC()
	if err := l.far.ns.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth pair: %w", err)
	}
	return nil
}

// configure sets both ends up, the far one as a port of the bridge.
func (l *Link) configure() error {
	for _, e := range []*end{&l.near, &l.far} {
		dev, err := e.ns.nl.LinkByName(e.name)
		if err != nil {
			return fmt.Errorf("find %s: %w", e.name, err)
		}
		e.index = dev.Attrs().Index
		if !l.cfg.Offloads {
			if err := e.ns.do(func() error { return offloadsOff(e.name) }); err != nil {
				return err
			}
		}
		if e == &l.far {
			if err := e.ns.nl.LinkSetMasterByIndex(dev, l.sw.bridge); err != nil {
				return fmt.Errorf("add port to bridge: %w", err)
			}
		}
		if err := e.ns.nl.LinkSetUp(dev); err != nil {
			return fmt.Errorf("set %s up: %w", e.name, err)
		}
	}
	return nil
}

// shape applies the paths of the configuration where the kernel makes them.
func (l *Link) shape() error {
	if l.wire != nil {
		return nil
	}
	return errors.Join(l.shapeKernel(ToHost, l.cfg.ToHost), l.shapeKernel(FromHost, l.cfg.FromHost))
}

// SetPath replaces one direction of the link while it runs. A link that began
// without a wire refuses what needs one.
func (l *Link) SetPath(d Direction, p Path) error {
	what := fmt.Sprintf("set path of %s", l.host.name)
	if err := errors.Join(l.host.lab.alive(), p.Validate()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if l.wire != nil {
		l.wire.lanes[d].set(l.host.lab.seeded(p))
		return nil
	}
	if p.needsWire() {
		return fmt.Errorf("%s: needs a wire, and the link was made without one", what)
	}
	if err := l.shapeKernel(d, p); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// SetUp pulls the plug (false) or puts it back (true) and then waits, at most
// until ctx ends, until the link works again. Both ends see the carrier go.
func (l *Link) SetUp(ctx context.Context, up bool) error {
	if err := l.host.lab.alive(); err != nil {
		return fmt.Errorf("plug of %s: %w", l.host.name, err)
	}
	dev, err := l.far.ns.nl.LinkByIndex(l.far.index)
	if err != nil {
		return fmt.Errorf("find %s: %w", l.far.name, err)
	}
	l.mu.Lock()
	l.down = !up
	l.mu.Unlock()
	set := l.far.ns.nl.LinkSetDown
	if up {
		set = l.far.ns.nl.LinkSetUp
	}
	if err := set(dev); err != nil {
		return fmt.Errorf("set %s up=%v: %w", l.far.name, up, err)
	}
	if l.wire != nil {
		if err := l.wire.setCarrier(up); err != nil {
			return err
		}
	}
	if !up {
		return nil
	}
	return l.waitUp(ctx)
}

// waitUp waits until both ends are operational and no address is tentative.
func (l *Link) waitUp(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		reason, err := l.notReady()
		if err != nil {
			return fmt.Errorf("wait for link of %s: %w", l.host.name, err)
		}
		if reason == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for link of %s: %s: %w", l.host.name, reason, ctx.Err())
		case <-tick.C:
		}
	}
}

func (l *Link) notReady() (reason string, err error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return "", nil
	}
	for _, e := range []end{l.near, l.far} {
		dev, err := e.ns.nl.LinkByIndex(e.index)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", e.name, err)
		}
		a := dev.Attrs()
		running := a.OperState == netlink.OperUp ||
			a.OperState == netlink.OperUnknown && a.RawFlags&unix.IFF_RUNNING != 0
		if !running {
			return e.name + " is " + a.OperState.String(), nil
		}
	}
	dev, err := l.near.ns.nl.LinkByIndex(l.near.index)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", l.near.name, err)
	}
	addrs, err := l.near.ns.nl.AddrList(dev, netlink.FAMILY_V6)
	if err != nil {
		return "", fmt.Errorf("list addresses of %s: %w", l.near.name, err)
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return "address " + a.IP.String() + " is tentative", nil
		}
	}
	return "", nil
}

// nextMAC gives locally administered addresses, the same in each run.
func (l *Lab) nextMAC() net.HardwareAddr {
	n := l.next()
	return net.HardwareAddr{0x02, 0xc1, 0x57, byte(n >> 16), byte(n >> 8), byte(n)}
}
