//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addrs lists the addresses of the host's end in the order they were given.
func (l *Link) Addrs() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]netip.Addr, len(l.addrs))
	for i, p := range l.addrs {
		out[i] = p.Addr()
	}
	return out
}

// Interface is the name of the link's interface in the host, like "eth0".
func (l *Link) Interface() string { return l.near.name }

// AddAddr gives the host's end one more address, with its prefix length.
func (l *Link) AddAddr(addr string) {
	l.host.lab.build("address of "+l.host.name, func() error {
		p, err := netip.ParsePrefix(addr)
		if err != nil {
			return err
		}
		return l.addAddr(p)
	})
}

// address gives the host's end its addresses and routes.
func (l *Link) address() error {
	addrs := make([]netip.Prefix, len(l.cfg.Addrs))
	for i, text := range l.cfg.Addrs {
		addrs[i] = netip.MustParsePrefix(text) // Validate has seen it
	}
	if len(addrs) == 0 {
		assigned, err := l.sw.assign()
		if err != nil {
			return err
		}
		addrs = assigned
	}
	for _, p := range addrs {
		if err := l.addAddr(p); err != nil {
			return err
		}
	}
	return l.addRoutes()
}

func (l *Link) addAddr(p netip.Prefix) error {
	dev, err := l.near.ns.nl.LinkByIndex(l.near.index)
	if err != nil {
		return fmt.Errorf("find %s: %w", l.near.name, err)
	}
	full := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	a := &netlink.Addr{IPNet: full}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := l.near.ns.nl.AddrAdd(dev, a); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	l.sw.reserve(p.Addr())
	l.mu.Lock()
	l.addrs = append(l.addrs, p)
	l.mu.Unlock()
	return l.host.lab.publish(l.host.name, p.Addr())
}

// addRoutes adds the gateways of the switch and, on the first link, a route for
// IPv4 multicast, so that a sender need not choose an interface.
func (l *Link) addRoutes() error {
	add := func(r *netlink.Route) error {
		// An earlier link may have the route: it wins.
		if err := l.near.ns.nl.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route to %v: %w", r.Dst, err)
		}
		return nil
	}
	groups := netip.MustParsePrefix("224.0.0.0/4")
	if l.near.name == "eth0" {
		err := add(&netlink.Route{Dst: ipNet(groups), LinkIndex: l.near.index, Scope: netlink.SCOPE_LINK})
		if err != nil {
			return err
		}
	}
	if l.host.routes {
		return nil
	}
	for _, gw := range l.sw.gateways {
		if !l.onLink(gw) {
			continue
		}
		all := netip.PrefixFrom(gw, 0)
		err := add(&netlink.Route{Dst: ipNet(all), Gw: gw.AsSlice(), LinkIndex: l.near.index})
		if err != nil {
			return err
		}
	}
	return nil
}

// onLink tells whether an address of the link shares a network with gw, and is
// not gw itself.
func (l *Link) onLink(gw netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	reachable := false
	for _, p := range l.addrs {
		if p.Addr() == gw {
			return false
		}
		reachable = reachable || p.Contains(gw)
	}
	return reachable
}
