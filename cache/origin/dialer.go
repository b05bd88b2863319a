package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Destination is an address range that the Dialer may reach although it is
// closed by default. ParseDestination makes it.
type Destination struct {
	prefix netip.Prefix
	port   uint16 // 0: every port
}

// ParseDestination reads a prefix ("10.0.0.0/8"), an address ("10.1.2.3",
// "fd00::1") or an address with a port ("127.0.0.1:8090", "[::1]:8090"). Names
// are refused: they can change their address.
func ParseDestination(s string) (Destination, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return Destination{prefix: p.Masked()}, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return Destination{prefix: whole(ap.Addr()), port: ap.Port()}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return Destination{prefix: whole(a)}, nil
	}
	return Destination{}, fmt.Errorf("%q is neither a prefix, nor an address, nor address:port", s)
}

// String is the form that ParseDestination reads.
func (d Destination) String() string {
	switch {
	case d.port != 0:
		return netip.AddrPortFrom(d.prefix.Addr(), d.port).String()
	case d.prefix.IsSingleIP():
		return d.prefix.Addr().String()
	}
	return d.prefix.String()
}

func (d Destination) contains(ap netip.AddrPort) bool {
	return d.prefix.Contains(ap.Addr()) && (d.port == 0 || d.port == ap.Port())
}

func whole(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// RefusedError says that the Dialer may not connect to an address.
type RefusedError struct {
	// Addr is the address that the name stood for.
	Addr netip.AddrPort
	// Reason says what the address is, such as "a loopback address".
	Reason string
}

// Error names the address and the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("destination %s is %s, closed unless proxy.allow_destinations opens it", e.Addr, e.Reason)
}

// Dialer is the only way out of the box. It looks at the address at the moment
// of connecting, after DNS, so that no name, redirect or rebinding leads to an
// address that is closed: loopback, link-local, private, shared, multicast,
// reserved, unspecified, and the box's own. It is not changed once in use and
// safe for concurrent use then.
type Dialer struct {
	// Allow opens destinations that are closed by default. A network does not
	// open the box's own addresses in it, where its panel is and where requests
	// would go in circles: these are opened one by one.
	Allow []Destination
	// Timeout of one connection attempt, DNS included; 0 means 10 s.
	Timeout time.Duration
	// resolver answers for names; nil is the machine's own.
	resolver *net.Resolver
	// also, if not nil, has a say on addresses that are open.
	also func(netip.Addr) error
}

// DialContext connects as net.Dialer does. The error wraps *RefusedError if the
// address is closed.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	timeout := d.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	dialer := net.Dialer{Timeout: timeout, Resolver: d.resolver, ControlContext: d.control}
	conn, err := dialer.DialContext(ctx, network, address)
	if err == nil {
		return conn, nil
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("connect to %s: %w", address, refused)
	}
	return nil, fmt.Errorf("connect to %s: %w", address, err)
}

// control is called with each address that a name resolved to, before the
// connect.
func (d *Dialer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	if err := d.Check(netip.AddrPortFrom(ip, uint16(n))); err != nil || d.also == nil {
		return err
	}
	return d.also(ip.Unmap())
}

// Check tells whether the Dialer may connect to an address: nil or a
// *RefusedError.
func (d *Dialer) Check(ap netip.AddrPort) error {
	ip := ap.Addr().Unmap()
	reason := closed(ip)
	mine := !ip.IsLoopback() && own(ip)
	if mine {
		reason = "an address of this box"
	}
	if reason == "" {
		return nil
	}
	plain := netip.AddrPortFrom(ip.WithZone(""), ap.Port())
	for _, open := range d.Allow {
		if open.contains(plain) && (!mine || open.prefix.IsSingleIP()) {
			return nil
		}
	}
	return &RefusedError{Addr: netip.AddrPortFrom(ip, ap.Port()), Reason: reason}
}

// Ranges beyond those that netip knows by name, and those in which an IPv4
// address hides.
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	shared      = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	reserved4   = netip.MustParsePrefix("240.0.0.0/4")
	siteLocal   = netip.MustParsePrefix("fec0::/10") // RFC 3879
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour   = netip.MustParsePrefix("2002::/16")
	compatible  = netip.MustParsePrefix("::/96") // RFC 4291 §2.5.5.1
)

// closed says what an address is that nobody may reach by default, "" for one
// that is open.
func closed(ip netip.Addr) string {
	switch {
	case ip.IsUnspecified() || thisNetwork.Contains(ip):
		return "an unspecified address"
	case ip.IsLoopback():
		return "a loopback address"
	case ip.IsLinkLocalUnicast():
		return "a link-local address"
	case ip.IsMulticast():
		return "a multicast address"
	case ip.IsPrivate(), shared.Contains(ip), siteLocal.Contains(ip), nat64Local.Contains(ip):
		return "a private address"
	case reserved4.Contains(ip), compatible.Contains(ip):
		return "a reserved address"
	}
	if inner, ok := hidden(ip); ok {
		if reason := closed(inner); reason != "" {
			return "a way to " + strings.TrimPrefix(reason, "a ")
		}
	}
	return ""
}

// hidden is the IPv4 address that a translator would send packets for ip to.
func hidden(ip netip.Addr) (netip.Addr, bool) {
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// own reports whether ip is one of this machine's addresses. If they cannot be
// read, every address counts as its own: closed is the safe side.
func own(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap().WithZone("") == ip.WithZone("") {
			return true
		}
	}
	return false
}
