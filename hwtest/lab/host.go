//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// Host is a machine of the lab: a network namespace with links. Its methods may
// be called from any goroutine.
type Host struct {
	name   string
	lab    *Lab
	ns     *namespace
	routes bool // forwards packets, so it gets no default gateway by itself

	mu        sync.Mutex // guards all below
	links     []*Link
	processes []*Process
}

// Host adds a host. Its name resolves to its addresses in Dial, HTTPClient and,
// through /etc/hosts, in the processes of every host.
func (l *Lab) Host(name string) *Host {
	return l.addHost(name, false)
}

func (l *Lab) addHost(name string, routes bool) *Host {
	h := &Host{name: name, lab: l, routes: routes}
	l.build("host "+name, func() error {
		l.mu.Lock()
		taken := l.hosts[name] != nil
		if !taken {
			l.hosts[name] = h
		}
		l.mu.Unlock()
		if taken {
			return errors.New("name is taken")
		}
		ns, err := l.newNamespace()
		h.ns = ns
		return err
	})
	return h
}

// Name is the name given to Lab.Host.
func (h *Host) Name() string { return h.name }

// File is a path for a file of the host's, outside of what a story does to its
// disks. It goes with the lab.
func (h *Host) File(base string) string { return filepath.Join(h.lab.dir, h.name+"-"+base) }

// Addrs lists the addresses of h in the order they were given.
func (h *Host) Addrs() []netip.Addr {
	h.mu.Lock()
	links := append([]*Link(nil), h.links...)
	h.mu.Unlock()
	var out []netip.Addr
	for _, link := range links {
		out = append(out, link.Addrs()...)
	}
	return out
}

// Addr is the first address of h; the zero Addr before the first Join.
func (h *Host) Addr() netip.Addr {
	if all := h.Addrs(); len(all) > 0 {
		return all[0]
	}
	return netip.Addr{}
}

// AddrPort is the first address of h with a port, as Dial and URLs take it.
func (h *Host) AddrPort(port uint16) string {
	return netip.AddrPortFrom(h.Addr(), port).String()
}

// Do runs f in the network namespace of h. Sockets that f opens stay there for
// good; goroutines that f starts do not run there, and neither does what the
// standard library does in goroutines of its own (DNS, several addresses). f may
// call t.Fatal.
func (h *Host) Do(f func() error) error {
	if h.ns == nil {
		return fmt.Errorf("host %s was not built", h.name)
	}
	return h.ns.do(f)
}

// Sysctl sets a value below /proc/sys of h, for example
// Sysctl("net/ipv4/tcp_congestion_control", "reno"). Without root only what
// belongs to a network namespace can be set.
func (h *Host) Sysctl(key, value string) error {
	if h.ns == nil {
		return fmt.Errorf("host %s was not built", h.name)
	}
	return h.ns.sysctl(key, value)
}

// Route sends what goes to a prefix ("0.0.0.0/0") through a router's address.
func (h *Host) Route(prefix, via string) {
	h.lab.build("route of "+h.name, func() error {
		p, err := netip.ParsePrefix(prefix)
		if err != nil {
			return err
		}
		gw, err := netip.ParseAddr(via)
		if err != nil {
			return err
		}
		r := &netlink.Route{Dst: ipNet(p), Gw: gw.AsSlice()}
		if err := h.ns.nl.RouteReplace(r); err != nil {
			return fmt.Errorf("add route to %s via %s: %w", p, gw, err)
		}
		return nil
	})
}

// Dial connects from h. The host part of addr is an address or the name of a
// host of the lab, whose addresses are tried in order.
func (h *Host) Dial(network, addr string) (net.Conn, error) {
	return h.DialContext(context.Background(), network, addr)
}

// DialContext is Dial under a context.
func (h *Host) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", addr, h.name, err)
	}
	targets := []string{addr}
	if _, err := netip.ParseAddr(host); err != nil {
		targets = targets[:0]
		for _, a := range h.lab.lookup(host) {
			targets = append(targets, net.JoinHostPort(a.String(), port))
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("dial %s from %s: no such host in the lab", addr, h.name)
	}
	var errs []error
	for _, target := range targets {
		var conn net.Conn
		err := h.Do(func() (err error) {
			d := net.Dialer{FallbackDelay: -1}
			conn, err = d.DialContext(ctx, network, target)
			return err
		})
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("dial from %s: %w", h.name, errors.Join(errs...))
}

// Listen opens a listener in h; the host part of addr is empty or an address.
func (h *Host) Listen(network, addr string) (net.Listener, error) {
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(context.Background(), network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h.name, err)
	}
	return ln, nil
}

// ListenPacket opens a packet socket in h; the host part of addr is empty or an
// address.
func (h *Host) ListenPacket(network, addr string) (net.PacketConn, error) {
	var pc net.PacketConn
	err := h.Do(func() (err error) {
		pc, err = (&net.ListenConfig{}).ListenPacket(context.Background(), network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h.name, err)
	}
	return pc, nil
}

// HTTPClient is a client whose connections start in h, without a proxy (set one
// on its *http.Transport). Names of lab hosts resolve. Close of the lab ends its
// idle connections.
func (h *Host) HTTPClient() *http.Client {
	transport := &http.Transport{
		DialContext:         h.DialContext,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
	}
	h.lab.onClose(func() error { transport.CloseIdleConnections(); return nil })
	return &http.Client{Transport: transport}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
