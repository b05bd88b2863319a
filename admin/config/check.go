package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cistern-edge/cistern/cache"
)

// Validate reports every fault at once, as Faults.
func (c Config) Validate() error {
	var f Faults
	if c.Version != Version {
		f.add(0, "version", "is %d; this program knows %d", c.Version, Version)
	}
	c.Proxy.check(&f)
	c.Origin.check(&f)
	c.WAN.check(&f)
	c.Admin.check(&f)
	c.Store.check(&f)
	c.Peering.check(&f)
	c.Tracker.check(&f)
	c.Steer.check(&f, c.Peering.Enabled)
	c.Multicast.check(&f)
	oneOf(&f, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(&f, "log.format", c.Log.Format, "text", "json")
	if clash(c.Proxy.Listen, c.Admin.Listen) {
		f.add(0, "admin.listen", "%s is the proxy's: foreign content would share the panel's origin", c.Admin.Listen)
	}
	return f.err()
}

func (p Proxy) check(f *Faults) {
	listenable(f, "proxy.listen", p.Listen)
	if p.Advertise != "" {
		host, port, err := net.SplitHostPort(p.Advertise)
		if err != nil || !hostName(host) && !isAddr(host) || !portNumber(port, 1) {
			f.add(0, "proxy.advertise", "%q is not host:port, such as \"192.168.1.2:3142\"", clip([]byte(p.Advertise)))
		}
	}
	hostNames(f, "proxy.names", p.Names)
	networks(f, "proxy.clients", p.Clients)
	for _, d := range p.AllowDestinations {
		networks(f, "proxy.allow_destinations", []netip.Prefix{d.Prefix})
	}
}

func (a Admin) check(f *Faults) {
	listenable(f, "admin.listen", a.Listen)
	hostNames(f, "admin.names", a.Names)

	if d := time.Duration(a.Session); d < time.Minute || d > 30*24*time.Hour {
		f.add(0, "admin.session", "%v is not between 1m and 720h", d)
	}
}

func (s Store) check(f *Faults) {
	if s.Dir == "" {
		f.add(0, "store.dir", "names no directory")
	}
	if s.MaxBytes < 16<<20 {
		f.add(0, "store.max_bytes", "%v is less than 16MiB", s.MaxBytes)
	}
	if s.MinFree < 0 {
		f.add(0, "store.min_free", "%v is negative", s.MinFree)
	}
	for i, dir := range s.Volumes {
		switch {
		case dir == "":
			f.add(0, "store.volumes", "names no directory")
		case filepath.Clean(dir) == filepath.Clean(s.Dir) || slices.Index(s.Volumes, dir) != i:
			f.add(0, "store.volumes", "%q is named twice", clip([]byte(dir)))
		}
	}
	if s.SmallBytes < 0 || s.SmallBytes > s.MaxBytes {
		f.add(0, "store.small_bytes", "%v is more than max_bytes (%v)", s.SmallBytes, s.MaxBytes)
	}
	if s.RAM < 1<<20 || s.RAM > 64<<30 {
		f.add(0, "store.ram", "%v is not between 1MiB and 64GiB", s.RAM)
	}
	if d := time.Duration(s.ScrubPeriod); d != 0 && (d < time.Hour || d > 366*day) {
		f.add(0, "store.scrub_period", "%v is not between 1h and 366d", s.ScrubPeriod)
	}
	if len(s.Quotas) > maxQuotas {
		f.add(0, "store.quota", "bounds %d services; %d is the most", len(s.Quotas), maxQuotas)
	}
	for i, q := range s.Quotas {
		same := func(other Quota) bool { return other.Name == q.Name }
		q.check(f, fmt.Sprintf("store.quota[%d].", i), slices.IndexFunc(s.Quotas, same) != i)
	}
}

// maxQuotas is how many services the store tells apart.
const maxQuotas = 254

// check reports the faults of one quota, whose keys begin with at.
func (q Quota) check(f *Faults, at string, twice bool) {
	switch {
	case q.Name == "" || len(q.Name) > 64 || strings.ContainsFunc(q.Name, unicode.IsControl):
		f.add(0, at+"name", "%q is not a name of 1 to 64 characters", clip([]byte(q.Name)))
	case twice:
		f.add(0, at+"name", "%q is used twice", q.Name)
	}
	if len(q.Match) == 0 {
		f.add(0, at+"match", "names nothing that belongs to the service")
	}
	for _, pattern := range q.Match {
		if err := cache.CheckPattern(pattern); err != nil {
			f.add(0, at+"match", "%v", err)
		}
	}
	if q.MaxBytes < 1<<20 {
		f.add(0, at+"max_bytes", "%v is less than 1MiB", q.MaxBytes)
	}
}

func (p Peering) check(f *Faults) {
	if p.Listen != "" {
		listenable(f, "peering.listen", p.Listen)
	}
	between(f, "peering.max_connections", p.MaxConnections, 1, 1000)
	networks(f, "peering.lan", p.LAN)
	p.checkSeeding(f)
	if p.Upload < 0 {
		f.add(0, "peering.upload", "%v is negative", p.Upload)
	}
}

func (m Multicast) check(f *Faults) {
	for i, name := range m.Interfaces {
		if name == "" || len(name) > 255 || strings.ContainsAny(name, " \t\n/") {
			f.add(0, "multicast.interfaces", "%q is not the name of a network interface", clip([]byte(name)))
		}
		if slices.Index(m.Interfaces, name) != i {
			f.add(0, "multicast.interfaces", "%q is named twice", clip([]byte(name)))
		}
	}
	oneOf(f, "multicast.mode", m.Mode, "ssm", "asm")
	m.checkGroups(f)
	between(f, "multicast.port", m.Port, 1, 65535)
	between(f, "multicast.ttl", m.TTL, 1, 255)
	between(f, "multicast.min_agents", m.MinAgents, 1, 10000)
	if m.Rate < 100e3 || m.Rate > 100e9 {
		f.add(0, "multicast.rate", "%v is not between 100kbit and 100Gbit", m.Rate)
	}
	if m.MinSize < 1 {
		f.add(0, "multicast.min_size", "%v is less than 1B", m.MinSize)
	}
}

// checkGroups holds a group range to the mode: SSM lives in 232/8 and ff3x::/32
// (RFC 4607 §1).
func (m Multicast) checkGroups(f *Faults) {
	g := m.Groups
	if !g.IsValid() {
		return
	}
	a := g.Addr()
	b := a.As16()
	ssm := a.Is4() && g.Bits() >= 8 && a.As4()[0] == 232 || a.Is6() && g.Bits() >= 32 && b[0] == 0xff && b[1]>>4 == 3
	multicast := a.IsMulticast() && (a.Is4() && g.Bits() >= 4 || a.Is6() && g.Bits() >= 8)
	switch {
	case !multicast:
		f.add(0, "multicast.groups", "%v is not a range of multicast addresses", g)
	case g.Bits() > a.BitLen()-8:
		f.add(0, "multicast.groups", "%v has fewer than 256 addresses", g)
	case a.Is4() && a.As4()[0] == 224 && a.As4()[1] == 0 && a.As4()[2] == 0:
		f.add(0, "multicast.groups", "%v belongs to routing protocols", g)
	case m.Mode == "ssm" && !ssm:
		f.add(0, "multicast.groups", "%v is not source-specific; take a range of 232.0.0.0/8, or mode \"asm\"", g)
	case m.Mode == "asm" && ssm:
		f.add(0, "multicast.groups", "%v is source-specific; take a range of 239.0.0.0/8, or mode \"ssm\"", g)
	}
}

// listenable wants address:port, the address an IP address, localhost or empty.
func listenable(f *Faults, key, s string) {
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		f.add(0, key, "%q is not address:port, such as \"127.0.0.1:3142\" or \":3142\"", clip([]byte(s)))
	case host != "" && host != "localhost" && !isAddr(host):
		f.add(0, key, "%q: %q is not an IP address of this box", clip([]byte(s)), clip([]byte(host)))
	case !portNumber(port, 0):
		f.add(0, key, "%q: %q is not a port from 0 to 65535", clip([]byte(s)), clip([]byte(port)))
	}
}

func networks(f *Faults, key string, list []netip.Prefix) {
	for _, p := range list {
		if !p.IsValid() {
			f.add(0, key, "names an empty network")
		}
	}
}

// clash reports whether two listeners would meet on one port. Port 0 is a port
// of the system's choice and meets nobody.
func clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	any := func(host string) bool {
		addr, err := netip.ParseAddr(host)
		return host == "" || err == nil && addr.IsUnspecified()
	}
	return hostA == hostB || any(hostA) || any(hostB)
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func portNumber(s string, least int) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && int(n) >= least
}

// hostNames checks a list of host names.
func hostNames(f *Faults, key string, names []string) {
	for _, name := range names {
		if !hostName(name) {
			f.add(0, key, "%q is not a host name (without port)", clip([]byte(name)))
		}
	}
}

// hostName accepts letters, digits, hyphens and dots (RFC 1123 §2.1).
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}) {
			return false
		}
	}
	return true
}

func between(f *Faults, key string, n, least, most int) {
	if n < least || n > most {
		f.add(0, key, "%d is not between %d and %d", n, least, most)
	}
}

func oneOf(f *Faults, key, s string, choices ...string) {
	if !slices.Contains(choices, s) {
		f.add(0, key, "%q is none of %s", clip([]byte(s)), fmt.Sprintf("%q", choices))
	}
}
