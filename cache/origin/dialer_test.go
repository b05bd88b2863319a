package origin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestCheckRefusesClosedAddresses(t *testing.T) {
	for _, row := range []struct{ addr, reason string }{
		{"127.0.0.1:80", "loopback"},
		{"127.255.0.9:80", "loopback"},
		{"[::1]:80", "loopback"},
		{"[::ffff:127.0.0.1]:80", "loopback"},
		{"[::ffff:10.0.0.1]:80", "private"},
		{"[::127.0.0.1]:80", "reserved"},
		{"0.0.0.0:80", "unspecified"},
		{"0.1.2.3:80", "unspecified"},
		{"[::]:80", "unspecified"},
		{"10.1.2.3:80", "private"},
		{"172.31.255.255:80", "private"},
		{"192.168.1.1:80", "private"},
		{"100.64.0.1:80", "private"},
		{"[fd00::1]:80", "private"},
		{"[fec0::1]:80", "private"},
		{"169.254.169.254:80", "link-local"},
		{"[fe80::1%eth0]:80", "link-local"},
		{"224.0.0.1:80", "multicast"},
		{"[ff02::1]:80", "multicast"},
		{"255.255.255.255:80", "reserved"},
		{"240.0.0.1:80", "reserved"},
		{"[64:ff9b::7f00:1]:80", "loopback"},
		{"[64:ff9b:1::1]:80", "private"},
		{"[2002:a00:1::1]:80", "private"},
	} {
		err := (&Dialer{}).Check(netip.MustParseAddrPort(row.addr))
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, row.reason) {
			t.Errorf("Check(%s) = %v, want refused as %s", row.addr, err, row.reason)
		}
	}
	for _, addr := range []string{"93.184.216.34:80", "[2606:2800::1]:443", "[64:ff9b::5db8:d822]:80", "172.32.0.1:80"} {
		if err := (&Dialer{}).Check(netip.MustParseAddrPort(addr)); err != nil {
			t.Errorf("Check(%s) = %v, want nil", addr, err)
		}
	}
}

func TestCheckObeysAllow(t *testing.T) {
	allow := func(list ...string) *Dialer {
		d := &Dialer{}
		for _, s := range list {
			dst, err := ParseDestination(s)
			if err != nil {
				t.Fatal(err)
			}
			if dst.String() != s {
				t.Errorf("%q reads back as %q", s, dst)
			}
			d.Allow = append(d.Allow, dst)
		}
		return d
	}
	d := allow("10.0.0.0/8", "127.0.0.1:8090", "fd00::1", "[::1]:81")
	for addr, open := range map[string]bool{
		"10.9.9.9:1": true, "127.0.0.1:8090": true, "127.0.0.1:8091": false, "127.0.0.2:8090": false,
		"[fd00::1]:9": true, "[fd00::2]:9": false, "[::1]:81": true, "[::1]:80": false,
		"[::ffff:10.1.1.1]:80": true, "192.168.0.1:80": false,
	} {
		if err := d.Check(netip.MustParseAddrPort(addr)); (err == nil) != open {
			t.Errorf("Check(%s) = %v, want open %v", addr, err, open)
		}
	}
}

func TestDialChecksAfterDNS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	var refused *RefusedError
	for _, host := range []string{"localhost", "127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"} {
		address := net.JoinHostPort(host, itoa(port))
		if conn, err := (&Dialer{}).DialContext(context.Background(), "tcp", address); err == nil {
			conn.Close()
			t.Errorf("connected to %s", address)
		} else if !errors.As(err, &refused) {
			t.Errorf("connect to %s: %v, want a RefusedError", address, err)
		}
	}
	for _, host := range []string{"2130706433", "0x7f.1", "017700000001", "127.1"} {
		if conn, err := (&Dialer{}).DialContext(context.Background(), "tcp", net.JoinHostPort(host, itoa(port))); err == nil {
			conn.Close()
			t.Errorf("connected to %s", host)
		}
	}
	open := &Dialer{Allow: []Destination{{prefix: netip.MustParsePrefix("127.0.0.0/8")}}}
	conn, err := open.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "127.0.0.1:80", "[::1]:80", "fd00::1", "example.org", "::ffff:1.2.3.4", "::ffff:1.2.3.4/100", "fe80::1%eth0", "1.2.3.4:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDestination(s)
		if err != nil {
			return
		}
		again, err := ParseDestination(d.String())
		if err != nil || again != d {
			t.Fatalf("%q gives %v, which reads back as %v, %v", s, d, again, err)
		}
	})
}

func TestANetworkDoesNotOpenTheBoxItself(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		to := netip.AddrPortFrom(p.Addr(), 8080)
		for text, open := range map[string]bool{"0.0.0.0/0": false, "::/0": false, p.Masked().String(): p.IsSingleIP(), p.Addr().String(): true, to.String(): true} {
			d, err := ParseDestination(text)
			if err != nil {
				t.Fatal(err)
			}
			err = (&Dialer{Allow: []Destination{d}}).Check(to)
			var refused *RefusedError
			if (err == nil) != open || err != nil && (!errors.As(err, &refused) || refused.Reason != "an address of this box") {
				t.Errorf("%s with %s open: %v", to, text, err)
			}
		}
	}
}
