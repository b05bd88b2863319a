package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written "50GB" (powers of 1000) or "64MiB" (powers
// of 1024); a plain number is bytes.
type Size int64

// Rate is a number of bits each second, written "100Mbit" (powers of 1000).
type Rate int64

// Duration is a length of time as time.ParseDuration reads it: "90s", "12h".
type Duration time.Duration

// Period is a length of time in days, "14d", or as time.ParseDuration reads it;
// "0" and "off" are none.
type Period time.Duration

const day = 24 * time.Hour

// Destination is a private destination that the box may reach on purpose.
type Destination struct {
	// Prefix of addresses; a single address has all its bits.
	Prefix netip.Prefix
	// Port that is open; 0: every port.
	Port uint16
}

type unit struct {
	name   string
	factor int64
}

// The first name of a factor is how values are written; reading ignores case.
var (
	sizeUnits = []unit{
		{"", 1},
		{"B", 1},
		{"kB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"KiB", 1 << 10},
		{"MiB", 1 << 20},
		{"GiB", 1 << 30},
		{"TiB", 1 << 40},
	}
	rateUnits = []unit{{"bit", 1}, {"", 1}, {"kbit", 1e3}, {"Mbit", 1e6}, {"Gbit", 1e9}}
)

// UnmarshalText reads a size. It refuses fractions and negative numbers.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := parseQuantity(string(text), sizeUnits)
	if err != nil {
		return fmt.Errorf("size %q: %w; write it like \"50GB\" or \"64MiB\"", clip(text), err)
	}
	*s = Size(n)
	return nil
}

// MarshalText writes the size exactly, in the unit that makes it shortest.
func (s Size) MarshalText() ([]byte, error) { return formatQuantity(int64(s), sizeUnits), nil }

// String is what MarshalText writes.
func (s Size) String() string { return string(formatQuantity(int64(s), sizeUnits)) }

// UnmarshalText reads a rate. It refuses fractions and negative numbers.
func (r *Rate) UnmarshalText(text []byte) error {
	n, err := parseQuantity(strings.TrimSuffix(string(text), "/s"), rateUnits)
	if err != nil {
		return fmt.Errorf("rate %q: %w; write it like \"100Mbit\"", clip(text), err)
	}
	*r = Rate(n)
	return nil
}

// MarshalText writes the rate exactly, in the unit that makes it shortest.
func (r Rate) MarshalText() ([]byte, error) { return formatQuantity(int64(r), rateUnits), nil }

// String is what MarshalText writes.
func (r Rate) String() string { return string(formatQuantity(int64(r), rateUnits)) }

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write it like \"90s\" or \"12h\"", clip(text))
	}
	*d = Duration(v)
	return nil
}

// MarshalText gives String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is what time.Duration writes, without units that are zero at the end:
// "12h", not "12h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalText reads a period. It refuses negative ones.
func (p *Period) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			*p = Period(time.Duration(n) * day)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	switch {
	case s == "off":
		v = 0
	case err != nil || v < 0:
		return fmt.Errorf("period %q: write it like \"14d\", \"36h\" or \"off\"", clip(text))
	}
	*p = Period(v)
	return nil
}

// MarshalText gives String.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String is the period in days if it is whole days, else in hours, minutes and
// seconds; "off" for none.
func (p Period) String() string {
	switch d := time.Duration(p); {
	case d == 0:
		return "off"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	default:
		return Duration(d).String()
	}
}

// UnmarshalText reads "10.0.0.0/8", "10.1.2.3", "127.0.0.1:8090" or
// "[fd00::1]:8090".
func (d *Destination) UnmarshalText(text []byte) error {
	s := string(text)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		if ap.Port() == 0 || ap.Addr().Zone() != "" {
			return fmt.Errorf("destination %q: want a port from 1 to 65535 and no zone", clip(text))
		}
		*d = Destination{whole(ap.Addr()), ap.Port()}
		return nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		*d = Destination{Prefix: whole(a)}
		return nil
	}
	p, err := parsePrefix(s)
	if err != nil {
		return fmt.Errorf("destination %q: write a network like \"10.0.0.0/8\" or an address and port like \"127.0.0.1:8090\"", clip(text))
	}
	*d = Destination{Prefix: p}
	return nil
}

// MarshalText gives String.
func (d Destination) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the network, or the address and port.
func (d Destination) String() string {
	if d.Port != 0 {
		return netip.AddrPortFrom(d.Prefix.Addr(), d.Port).String()
	}
	return d.Prefix.String()
}

func whole(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

// parsePrefix reads a network. Bits beyond the mask are refused: whoever wrote
// them meant one or the other.
func parsePrefix(s string) (netip.Prefix, error) {
	if s == "" { // as if the key were left out
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("network %q: write it like \"192.168.0.0/16\"", clip([]byte(s)))
	case p != p.Masked():
		return p, fmt.Errorf("network %q: has bits beyond its mask; %s is the network", s, p.Masked())
	}
	return p, nil
}

func parseQuantity(s string, units []unit) (int64, error) {
	digits := s
	if i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = s[:i]
	}
	name := strings.TrimPrefix(s[len(digits):], " ")
	if digits == "" {
		return 0, errors.New("does not begin with a number")
	}
	for _, u := range units {
		if !strings.EqualFold(u.name, name) {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.factor {
			return 0, errors.New("is too large")
		}
		return n * u.factor, nil
	}
	return 0, fmt.Errorf("has no unit known here (%q)", clip([]byte(name)))
}

func formatQuantity(n int64, units []unit) []byte {
	if n == 0 {
		return []byte("0")
	}
	best := units[0]
	for _, u := range units {
		if n%u.factor == 0 && u.factor > best.factor {
			best = u
		}
	}
	return []byte(strconv.FormatInt(n/best.factor, 10) + best.name)
}

// clip keeps foreign text in a fault short.
func clip(text []byte) string {
	if len(text) > 60 {
		return string(text[:60]) + "…"
	}
	return string(text)
}
