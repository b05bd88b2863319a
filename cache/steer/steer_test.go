package steer

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var one, two = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::2")

// TestWards tells who is kept from peers outside as time goes by.
func TestWards(t *testing.T) {
	w, now := newWards(), time.Unix(1e9, 0)
	for _, step := range []struct {
		what  string
		after time.Duration
		peers []Peer
		held  []netip.Addr
	}{
		{"nobody", 0, nil, nil},
		{"connected", 0, []Peer{{Addr: one}}, []netip.Addr{one}},
		{"waits", 29 * time.Second, []Peer{{Addr: one}}, []netip.Addr{one}},
		{"waited too long", time.Second, []Peer{{Addr: one}}, nil},
		{"still does", time.Minute, []Peer{{Addr: one}}, nil},
		{"is served", time.Second, []Peer{{Addr: one, Sent: 1}}, []netip.Addr{one}},
		{"by two connections", 20 * time.Second, []Peer{{Addr: one, Sent: 1}, {Addr: one, Sent: 5}, {Addr: two}}, []netip.Addr{one, two}},
		{"one has all, the other waits", 30 * time.Second, []Peer{{Addr: one, Sent: 6, Complete: true}, {Addr: two}}, []netip.Addr{one}},
		{"who has all does not wait", 10 * time.Minute, []Peer{{Addr: one, Sent: 6, Complete: true}, {Addr: two}}, []netip.Addr{one}},
		{"wants another", 0, []Peer{{Addr: one, Sent: 6, Complete: true}, {Addr: one}}, []netip.Addr{one}},
		{"which does not come", 30 * time.Second, []Peer{{Addr: one, Sent: 6, Complete: true}, {Addr: one}}, nil},
		{"comes", 0, []Peer{{Addr: one, Sent: 6}, {Addr: one, Sent: 9}}, []netip.Addr{one}},
		{"left", 60 * time.Second, nil, []netip.Addr{one}},
		{"forgotten", time.Second, nil, nil},
	} {
		now = now.Add(step.after)
		w.update(now, step.peers)
		if got := w.held(); !slices.Equal(got, step.held) {
			t.Errorf("%s: held %v, want %v", step.what, got, step.held)
		}
	}
	if len(w.clients) != 0 {
		t.Errorf("remembers %d clients", len(w.clients))
	}
}

func TestEndpoints(t *testing.T) {
	cfg := Config{LAN: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	e := newEndpoints()
	outside, inside := netip.MustParseAddrPort("203.0.113.9:6881"), netip.MustParseAddrPort("10.9.9.9:6881")
	now := time.Unix(1e9, 0)
	e.update(now, []netip.AddrPort{netip.MustParseAddrPort("[::ffff:203.0.113.9]:6881"), inside, netip.MustParseAddrPort("203.0.113.9:0"), netip.MustParseAddrPort("203.0.113.9:443"), netip.MustParseAddrPort("224.0.0.1:9"), {}})
	if got := e.list(cfg.inside); !slices.Equal(got, []netip.AddrPort{outside}) {
		t.Errorf("%v", got)
	}
	if e.update(now.Add(endpointLife+1), nil); len(e.list(cfg.inside)) != 0 {
		t.Error("nothing is forgotten")
	}
}

func TestContentsAreBounded(t *testing.T) {
	c := contents{infohashes: make([][20]byte, 5000), clients: make([]netip.Addr, 5000), peers: make([]netip.AddrPort, 5000)}
	for i := range c.infohashes {
		c.infohashes[i][0], c.infohashes[i][1] = byte(i), byte(i>>8)
	}
	c.infohashes = append(c.infohashes, c.infohashes[7])
	c.bound()
	if len(c.infohashes) != maxInfohashes || len(c.clients) != maxWards || len(c.peers) != maxPeers {
		t.Errorf("%d %d %d", len(c.infohashes), len(c.clients), len(c.peers))
	}
	if d := c; !d.equal(c) || d.equal(contents{}) {
		t.Error("equal is not")
	}
}

// TestFirstRequest: what is no HTTP is told at once, and every byte is kept.
func TestFirstRequest(t *testing.T) {
	for _, c := range []struct {
		name, sent       string
		http, tr, forWeb bool
	}{
		{"page", "GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n", true, false, true},
		{"body behind", "POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc", true, false, true},
		{"announce", "GET /announce?info_hash=x HTTP/1.1\r\nHost: t.example\r\n\r\n", true, true, true},
		{"with a passkey", "GET /0123/announce HTTP/1.0\r\n\r\n", true, true, false},
		{"upgrade", "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n", true, false, false},
		{"tunnel", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", true, false, false},
		{"TLS", "\x16\x03\x01\x02\x00", false, false, false},
		{"peer", "\x13BitTorrent protocol", false, false, false},
		{"broken", "GET / HTTP/9\r\n\r\n", false, false, false},
		{"endless", "GET /" + strings.Repeat("a", maxHead), false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go func() { _, _ = io.WriteString(near, c.sent); near.Close() }()
			head, req := firstRequest(far)
			if (req != nil) != c.http || !strings.HasPrefix(c.sent, string(head)) || len(head) == 0 {
				t.Fatalf("%v %q", req, head)
			}
			if req != nil && (isTracker(req) != c.tr || isWeb(req) != c.forWeb) {
				t.Errorf("tracker %t, web %t", isTracker(req), isWeb(req))
			}
		})
	}
}

func FuzzFirstRequest(f *testing.F) {
	f.Add([]byte("GET /announce?info_hash=x HTTP/1.1\r\nHost: t.example\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		near, far := net.Pipe()
		defer far.Close()
		go func() { _, _ = near.Write(sent); near.Close() }()
		head, req := firstRequest(far)
		if !bytes.HasPrefix(sent, head) || req != nil && !bytes.Contains(head, []byte("\r\n\r\n")) {
			t.Errorf("%q of %q", head, sent)
		}
		if req != nil {
			_, _ = isTracker(req), isWeb(req)
		}
	})
}

func TestSockaddr(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want string
		ok   bool
	}{
		{[]byte{2, 0, 0x1b, 0x39, 203, 0, 113, 9, 0, 0, 0, 0, 0, 0, 0, 0}, "203.0.113.9:6969", true},
		{append([]byte{10, 0, 0x1b, 0x39, 0, 0, 0, 0, 0xfd}, make([]byte, 19)...), "[fd00::]:6969", true},
		{[]byte{10, 0, 0x1b, 0x39, 0, 0, 0, 0}, "", false},
		{[]byte{2}, "", false},
	} {
		if got, ok := sockaddr(c.b); ok != c.ok || ok && got.String() != c.want {
			t.Errorf("%x: %v %t", c.b, got, ok)
		}
	}
}

func TestNoteFlows(t *testing.T) {
	flows := map[netip.Addr]*ClientFlows{}
	noteFlows(flows, map[netip.Addr]int{one: 3, two: 1})
	noteFlows(flows, map[netip.Addr]int{two: 9})
	if got := sortedFlows(flows); !slices.Equal(got, []ClientFlows{{two, 9, 9}, {one, 0, 3}}) {
		t.Errorf("%v", got)
	}
}

func TestConfig(t *testing.T) {
	err := Config{Mode: "x", Interfaces: []string{""}, LAN: []netip.Prefix{{}}, Ports: []uint16{0}, Table: -1}.Validate()
	for _, key := range []string{"mode", "interfaces[0]", "lan[0]", "ports", "table"} {
		if err == nil || !strings.Contains(err.Error(), "steer."+key) {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
	if err := (Config{Mode: Enforce}).Validate(); err == nil || !strings.Contains(err.Error(), "steer.interfaces") {
		t.Errorf("no interface: %v", err)
	}
	if _, err := New(Config{Mode: "x"}, nil, nil, nil, nil, nil); err == nil {
		t.Error("built with a faulty configuration")
	}
}
