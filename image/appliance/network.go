package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network gives every wired interface an address, or the bridge that they make:
// the fixed one to the first, DHCP to the rest. IPv6 is the kernel's (SLAAC).
type network struct {
	log *slog.Logger

	// mu guards what follows.
	mu  sync.Mutex
	ntp []string // servers of time that DHCP named
}

// run looks after the interfaces until ctx is done; new ones are taken as they
// come.
func (n *network) run(ctx context.Context, s networkSettings) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			n.log.Error("failed to bring up loopback", "err", err)
		}
	}
	var links sync.WaitGroup
	defer links.Wait()
	known, fixed := map[string]bool{}, false
	for rest := 100 * time.Millisecond; ; rest = min(rest*3/2, 5*time.Second) {
		for _, link := range wired() {
			name := link.Attrs().Name
			if known[name] {
				continue
			}
			known[name] = true
			port, err := n.port(link, s)
			if err != nil {
				n.log.Error("failed to bring up an interface", "interface", name, "err", err)
				continue
			}
			n.log.Info("brought up interface", "interface", name, "address", link.Attrs().HardwareAddr.String())
			switch {
			case known[port.Attrs().Name] && port != link: // the bridge, which has its address
			case s.Address != "" && !fixed:
				fixed = true
				n.setFixed(port, s)
			default:
				links.Go(func() { n.dhcp(ctx, port) })
			}
			known[port.Attrs().Name] = true
		}
		if pause(ctx, rest) {
			return
		}
	}
}

// wired are the interfaces with a cable.
func wired() (links []netlink.Link) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	for _, l := range all {
		a := l.Attrs()
		if l.Type() == "device" && a.Flags&net.FlagLoopback == 0 && len(a.HardwareAddr) == 6 {
			links = append(links, l)
		}
	}
	return links
}

func (n *network) setFixed(link netlink.Link, s networkSettings) {
	addr, err := netlink.ParseAddr(s.Address)
	if err == nil {
		err = apply(link, addr.IPNet, net.ParseIP(s.Gateway))
	}
	if err == nil && len(s.DNS) > 0 {
		err = resolvers(s.DNS, "")
	}
	if err != nil {
		n.log.Error("failed to set the fixed address", "err", err)
	}
}

// dhcp keeps a lease for one interface (RFC 2131): asked anew when half of it
// has gone, and from the beginning when it was lost.
func (n *network) dhcp(ctx context.Context, link netlink.Link) {
	name := link.Attrs().Name
	for rest := time.Second; ; {
		lease, err := ask(ctx, name)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = n.take(link, lease)
		}
		wait := rest
		if err != nil {
			n.log.Debug("got no lease", "interface", name, "err", err)
			rest = min(rest*2, 30*time.Second)
		} else {
			rest = time.Second
			wait = max(lease.ACK.IPAddressLeaseTime(time.Hour)/2, 30*time.Second)
		}
		if pause(ctx, wait) {
			return
		}
	}
}

func ask(ctx context.Context, name string) (*nclient4.Lease, error) {
	c, err := nclient4.New(name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, err
	}
	lease, err := c.Request(ctx, dhcpv4.WithOption(dhcpv4.OptHostName(hostname())), dhcpv4.WithRequestedOptions(dhcpv4.OptionNTPServers))
	return lease, errors.Join(err, c.Close())
}

func (n *network) take(link netlink.Link, lease *nclient4.Lease) error {
	ack := lease.ACK
	mask := ack.SubnetMask()
	if ack.YourIPAddr.To4() == nil || ack.YourIPAddr.IsUnspecified() || len(mask) != 4 {
		return errors.New("the lease has no address")
	}
	var gateway net.IP
	if routers := ack.Router(); len(routers) > 0 {
		gateway = routers[0]
	}
	ours := &net.IPNet{IP: ack.YourIPAddr, Mask: mask}
	old, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	fresh := true
	for _, a := range old {
		if a.IPNet.String() == ours.String() {
			fresh = false
		} else if err := netlink.AddrDel(link, &a); err != nil {
			return err
		}
	}
	if err := apply(link, ours, gateway); err != nil {
		return err
	}
	if fresh {
		n.log.Info("got a lease", "interface", link.Attrs().Name, "address", ours.String(), "gateway", gateway)
	}
	n.mu.Lock()
	n.ntp = texts(ack.NTPServers())
	n.mu.Unlock()
	return resolvers(texts(ack.DNS()), ack.DomainName())
}

func texts(addrs []net.IP) (list []string) {
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return list
}

// timeServers are those of network.toml, else DHCP's, else the public ones.
func (n *network) timeServers(fixed []string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case len(fixed) > 0:
		return fixed
	case len(n.ntp) > 0:
		return append([]string(nil), n.ntp...)
	default:
		return []string{defaultTime}
	}
}

func apply(link netlink.Link, addr *net.IPNet, gateway net.IP) error {
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: addr}); err != nil {
		return fmt.Errorf("set the address: %w", err)
	}
	if gateway == nil {
		return nil
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway}); err != nil {
		return fmt.Errorf("set the route: %w", err)
	}
	return nil
}

// resolvers writes resolv.conf; a domain that is more than a name is left out.
func resolvers(servers []string, domain string) error {
	var b strings.Builder
	for _, s := range servers {
		if net.ParseIP(s) != nil {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if domain != "" && strings.IndexFunc(domain, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
	}) < 0 {
		fmt.Fprintf(&b, "search %s\n", domain)
	}
	return writeFile("/etc/resolv.conf", []byte(b.String()), 0o644)
}

// ready says what the network lacks: a cable, an address.
func (n *network) ready() error {
	links := wired()
	if len(links) == 0 {
		return errors.New("a network interface")
	}
	if !slices.ContainsFunc(links, carrier) {
		return errors.New("a network cable")
	}
	if len(n.addresses()) == 0 {
		return errors.New("an address (DHCP)")
	}
	return nil
}

// carrier says whether somebody is at the other end of the cable.
func carrier(l netlink.Link) bool {
	return l.Attrs().OperState == netlink.OperUp || l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// addresses are those under which the box can be reached.
func (n *network) addresses() (list []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if reachable(a) {
			list = append(list, a.(*net.IPNet).IP.String())
		}
	}
	return list
}

// setHostname names the machine for whoever asks it.
func setHostname(name string) error {
	return os.WriteFile("/proc/sys/kernel/hostname", []byte(name+"\n"), 0o644)
}

// hostname is what the machine is called.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return defaultName
	}
	return name
}
