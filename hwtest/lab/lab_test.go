//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashing) != "" {
		fmt.Fprintln(os.Stderr, crash())
		os.Exit(1)
	}
	lab.Main(m)
}

// pair is two hosts on one switch, b's link as configured.
type pair struct {
	lab   *lab.Lab
	sw    *lab.Switch
	a, b  *lab.Host
	linkA *lab.Link
	linkB *lab.Link
}

func newPair(t *testing.T, cfg lab.LinkConfig, needs ...lab.Need) *pair {
	t.Helper()
	l := lab.Test(t, needs...)
	p := &pair{lab: l, a: l.Host("a"), b: l.Host("b")}
	p.sw = l.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24", "fd00:1::/64"}})
	p.linkA = p.a.Join(p.sw, lab.LinkConfig{MTU: cfg.MTU})
	p.linkB = p.b.Join(p.sw, cfg)
	up(t, l)
	return p
}

func up(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
}

// serve starts an HTTP server on h that answers with n bytes and tells who asked.
func serve(t *testing.T, h *lab.Host, n int) {
	t.Helper()
	ln, err := h.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), n)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("From", host)
		_, _ = w.Write(body)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

func get(t *testing.T, h *lab.Host, url string) (body []byte, from string) {
	t.Helper()
	resp, err := h.HTTPClient().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body, resp.Header.Get("From")
}

func counters(t *testing.T, l *lab.Link) lab.LinkCounters {
	t.Helper()
	c, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHostsTalkOverBothFamilies(t *testing.T) {
	p := newPair(t, lab.LinkConfig{})
	serve(t, p.b, 10)
	for i, addr := range p.b.Addrs() {
		body, from := get(t, p.a, "http://"+net.JoinHostPort(addr.String(), "80")+"/")
		if len(body) != 10 || from != p.a.Addrs()[i].String() {
			t.Errorf("%v: %d bytes from %s", addr, len(body), from)
		}
	}
	if body, _ := get(t, p.a, "http://b/"); len(body) != 10 {
		t.Errorf("by name: %d bytes", len(body))
	}
	if _, err := p.a.Dial("tcp", "nobody:80"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("unknown name: %v", err)
	}
}

func TestFaultsOfBuildingStickUntilUp(t *testing.T) {
	for name, tc := range map[string]struct {
		build func(*lab.Lab)
		want  string
	}{
		"address": {func(l *lab.Lab) {
			l.Host("x").Join(l.Switch("s", lab.SwitchConfig{}), lab.LinkConfig{Addrs: []string{"10.1"}})
		}, "10.1"},
		"none":     {func(l *lab.Lab) { l.Host("x").Join(l.Switch("s", lab.SwitchConfig{}), lab.LinkConfig{}) }, "no Prefixes"},
		"twice":    {func(l *lab.Lab) { l.Host("x"); l.Host("x") }, "host x: name is taken"},
		"querier":  {func(l *lab.Lab) { l.Switch("s", lab.SwitchConfig{Querier: true}) }, "needs Snooping"},
		"after it": {func(l *lab.Lab) { l.Switch("s", lab.SwitchConfig{Prefixes: []string{"?"}}); l.Host("x"); l.Host("x") }, "switch s"},
		"full": {func(l *lab.Lab) {
			s := l.Switch("s", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/30"}})
			for i := range 3 {
				l.Host(fmt.Sprint(i)).Join(s, lab.LinkConfig{})
			}
		}, "no free address"},
	} {
		t.Run(name, func(t *testing.T) {
			l := lab.Test(t)
			tc.build(l)
			if err := l.Up(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Up: %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestNATHidesTheLAN(t *testing.T) {
	l := lab.Test(t)
	wan := l.Switch("wan", lab.SwitchConfig{Prefixes: []string{"198.51.100.0/24", "2001:db8::/64"}})
	lan := l.Switch("lan", lab.SwitchConfig{
		Prefixes: []string{"10.0.0.0/24", "fd00::/64"}, Gateways: []string{"10.0.0.1", "fd00::1"},
	})
	r := l.Router("router")
	out := r.Join(wan, lab.LinkConfig{})
	r.Masquerade(out)
	in := r.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24", "fd00::1/64"}})
	server, pc := l.Host("server"), l.Host("pc")
	server.Join(wan, lab.LinkConfig{})
	server.Route("10.0.0.0/24", r.Addr().String())
	pc.Join(lan, lab.LinkConfig{})
	up(t, l)

	const size = 1 << 20
	serve(t, server, size)
	toLAN, err := r.CountIP(lab.Forward, lab.Filter{Out: in, Protocol: 6, SrcPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range server.Addrs() {
		if _, from := get(t, pc, "http://"+net.JoinHostPort(addr.String(), "80")+"/"); from != r.Addrs()[i].String() {
			t.Errorf("server saw %s, want the router's %s", from, r.Addrs()[i])
		}
	}
	n, err := toLAN.Read()
	if err != nil {
		t.Fatal(err)
	}
	ratio := float64(n.Bytes) / (2 * size)
	t.Logf("%.3f IP bytes for a byte of payload", ratio)
	if ratio < 1.02 || ratio > 1.2 { // headers, and what TCP sends twice
		t.Errorf("router forwarded %d IP bytes for %d bytes of payload, ratio %.3f", n.Bytes, 2*size, ratio)
	}
	serve(t, pc, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := server.DialContext(ctx, "tcp", pc.AddrPort(80)); err == nil {
		c.Close()
		t.Error("the WAN reached into the LAN unasked")
	}
}

func TestFlowsAreCounted(t *testing.T) {
	l := lab.Test(t)
	wan := l.Switch("wan", lab.SwitchConfig{Prefixes: []string{"198.51.100.0/24"}})
	lan := l.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24"}, Gateways: []string{"10.0.0.1"}})
	r := l.Router("router")
	r.Masquerade(r.Join(wan, lab.LinkConfig{}))
	r.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24"}})
	seeds, pc := l.Host("seeds"), l.Host("pc")
	seeds.Join(wan, lab.LinkConfig{Addrs: lab.Addrs("198.51.100.20/24", 60)}).AddAddr("198.51.100.90/24")
	pc.Join(lan, lab.LinkConfig{})
	up(t, l)
	if n := len(seeds.Addrs()); n != 61 {
		t.Fatalf("seeds has %d addresses, want 61", n)
	}

	ln, err := seeds.Listen("tcp4", ":6881")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peers := func(f lab.Flow) bool { return f.Established && f.Dst.Port() == 6881 }
	watch, err := r.WatchFlows(20*time.Millisecond, peers)
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for _, addr := range seeds.Addrs()[:12] {
		c, err := pc.Dial("tcp", net.JoinHostPort(addr.String(), "6881"))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	flows, err := r.Flows()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range flows {
		if !peers(f) {
			continue
		}
		n++
		if f.Src.Addr() != pc.Addr() || f.ReplyDst.Addr() != r.Addr() || f.SentBytes == 0 {
			t.Errorf("flow %+v: want from %v behind %v, with bytes", f, pc.Addr(), r.Addr())
		}
	}
	if n != 12 {
		t.Errorf("%d established flows, want 12", n)
	}
	for watch.Stats().Last != 12 { // the test's own deadline bounds it
		time.Sleep(5 * time.Millisecond)
	}
	for _, c := range conns {
		c.Close()
	}
	stats, err := watch.Stop()
	if err != nil || stats.Peak != 12 || stats.Last >= 12 || stats.Samples < 2 {
		t.Errorf("watch: %+v, %v; want a peak of 12 and fewer at the end", stats, err)
	}
}

func TestUnpluggedLinkCarriesNothing(t *testing.T) {
	p := newPair(t, lab.LinkConfig{})
	unplug(t, p)
}

func TestUnpluggedWireCarriesNothing(t *testing.T) {
	p := newPair(t, lab.LinkConfig{ToHost: lab.Path{Delay: time.Millisecond}}, lab.Wires)
	unplug(t, p)
}

func unplug(t *testing.T, p *pair) {
	t.Helper()
	serve(t, p.b, 10)
	get(t, p.a, "http://b/")
	for range 2 {
		if err := p.linkB.SetUp(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if carrier(t, p) {
			t.Error("the host sees a carrier on an unplugged link")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if c, err := p.a.DialContext(ctx, "tcp", p.b.AddrPort(80)); err == nil {
			c.Close()
			t.Error("connected over an unplugged link")
		}
		cancel()
		if err := p.linkB.SetUp(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		get(t, p.a, "http://b/")
	}
}

// carrier tells whether b sees a carrier, waiting a while for it to go.
func carrier(t *testing.T, p *pair) (running bool) {
	t.Helper()
	for range 300 {
		err := p.b.Do(func() error {
			dev, err := net.InterfaceByName(p.linkB.Interface())
			running = err == nil && dev.Flags&net.FlagRunning != 0
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !running {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return running
}

// A lab the size of the demonstration: it must be quick to build, and leave
// nothing behind.
func TestLargeLabComesAndGoes(t *testing.T) {
	lab.Require(t)
	before := namespaces(t)
	l, err := lab.New(lab.Config{}, discard())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wan := l.Switch("wan", lab.SwitchConfig{Prefixes: []string{"198.51.100.0/24"}})
	lan := l.Switch("lan", lab.SwitchConfig{
		Prefixes: []string{"10.0.0.0/24"}, Gateways: []string{"10.0.0.1"}, Snooping: true, Querier: true,
	})
	r := l.Router("router")
	r.Masquerade(r.Join(wan, lab.LinkConfig{ToHost: lab.Path{Rate: 200 * lab.Mbit}, FromHost: lab.Path{Rate: 100 * lab.Mbit}}))
	r.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24"}})
	l.Host("seeds").Join(wan, lab.LinkConfig{Addrs: lab.Addrs("198.51.100.20/24", 60)})
	lossy := lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: 0.02}}
	for i := range 12 {
		l.Host(fmt.Sprintf("pc%d", i)).Join(lan, lab.LinkConfig{ToHost: lossy})
	}
	late := l.Host("late")
	link := late.Join(lan, lab.LinkConfig{})
	began := time.Now()
	up(t, l)
	t.Logf("links were ready after %v", time.Since(began))
	if n := namespaces(t); n <= before {
		t.Fatalf("%d descriptors of namespaces, %d before: this test sees nothing", n, before)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := namespaces(t); n != before {
		t.Errorf("%d descriptors of namespaces, %d before", n, before)
	}
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("directory of the lab: %v, want it gone", err)
	}
	// What comes too late must not act on the machine's own network.
	_, countErr := link.Counters()
	for i, err := range []error{
		l.Up(t.Context()), link.SetUp(t.Context(), false), link.SetPath(lab.ToHost, lab.Path{}), countErr,
		lan.SetQuerier(true), late.Do(func() error { return nil }), late.Sysctl("net/ipv4/ip_forward", "0"),
	} {
		if err == nil {
			t.Errorf("call %d worked on a closed lab", i)
		}
	}
}

// namespaces counts this process's descriptors of network namespaces.
func namespaces(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(target, "net:[") {
			n++
		}
	}
	return n
}
