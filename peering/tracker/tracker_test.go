package tracker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeSwarm takes part in what it lists.
type fakeSwarm struct {
	torrents map[[20]byte]Torrent
	joined   []string
	greeted  []string
}

func (f *fakeSwarm) Torrent(h [20]byte) (Torrent, bool) { t, ok := f.torrents[h]; return t, ok }

func (f *fakeSwarm) Infohashes() (list [][20]byte) {
	for h, t := range f.torrents {
		if !t.Private {
			list = append(list, h)
		}
	}
	return list
}

func (f *fakeSwarm) Join(h [20]byte, via string, peers []netip.AddrPort) {
	f.joined = append(f.joined, fmt.Sprintf("%x %s%v", h[:1], via, peers))
}

func (f *fakeSwarm) Greet(h [20]byte, client netip.AddrPort, wants bool) {
	f.greeted = append(f.greeted, fmt.Sprintf("%x %v %t", h[:1], client, wants))
}

func hash(b byte) [20]byte { return [20]byte(bytes.Repeat([]byte{b}, 20)) }

var (
	held, private, allowed, strange = hash('h'), hash('p'), hash('a'), hash('s')
	box4, box6                      = netip.MustParseAddrPort("10.0.0.1:6881"), netip.MustParseAddrPort("[fd00::1]:6881")
	client4, client6                = netip.MustParseAddrPort("10.0.0.9:1234"), netip.MustParseAddrPort("[fd00::9]:1234")
)

func newServer(t testing.TB, change func(*Config)) (*Server, *fakeSwarm) {
	t.Helper()
	cfg := Config{
		Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("127.0.0.0/8")},
		Peers:   []netip.AddrPort{box4, box6}, Allow: [][20]byte{allowed, private},
	}
	if change != nil {
		change(&cfg)
	}
	swarm := &fakeSwarm{torrents: map[[20]byte]Torrent{held: {Complete: true, Peers: 30}, private: {Private: true}}}
	s, err := New(cfg, slog.New(slog.DiscardHandler), swarm)
	if err != nil {
		t.Fatal(err)
	}
	return s, swarm
}

func query(h [20]byte, more string) string {
	return "info_hash=" + url.QueryEscape(string(h[:])) + "&peer_id=-XX0000-000000000000&port=51413&uploaded=0&downloaded=0&left=7&numwant=80" + more
}

func TestAnnounceByHTTP(t *testing.T) {
	const peers4, peers6 = "6:\x0a\x00\x00\x01\x1a\xe1", "6:peers618:\xfd\x00"
	for _, c := range []struct {
		name, target string
		client       netip.AddrPort
		status       int
		has, hasNot  string
	}{
		{"held", "/announce?" + query(held, ""), client4, 200, "5:peers" + peers4, ""},
		{"one address is enough", "/announce?" + query(held, ""), client4, 200, peers4, peers6},
		{"by IPv6", "/announce?" + query(held, "&compact=1"), client6, 200, peers6, peers4},
		{"as a list", "/announce?" + query(held, "&compact=0"), client4, 200, "5:peersld2:ip8:10.0.0.14:porti6881ee", ""},
		{"stopped", "/announce?" + query(held, "&event=stopped"), client4, 200, "5:peers0:", ""},
		{"allowed", "/announce?" + query(allowed, ""), client4, 200, peers4, ""},
		{"private", "/announce?" + query(private, ""), client4, 200, "5:peers0:", ""},
		{"unknown", "/announce?" + query(strange, ""), client4, 200, "5:peers0:", ""},
		{"no infohash", "/announce?port=1", client4, 200, "14:failure reason", "peers"},
		{"short infohash", "/announce?info_hash=abc&port=1", client4, 200, "14:failure reason", "peers"},
		{"bad port", "/announce?" + query(held, "&port=99999"), client4, 200, "14:failure reason", "peers"},
		{"from elsewhere", "/announce?" + query(held, ""), netip.MustParseAddrPort("8.8.8.8:1"), 403, "", peers4},
		{"scrape", "/scrape?info_hash=" + url.QueryEscape(string(held[:])) + "&info_hash=" + url.QueryEscape(string(private[:])), client4, 200, "d5:filesd20:" + string(held[:]) + "d8:completei1e", string(private[:])},
		{"elsewhere", "/", client4, 404, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newServer(t, nil)
			r := httptest.NewRequest(http.MethodGet, c.target, nil)
			r.RemoteAddr = c.client.String()
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			body := w.Body.String()
			if w.Code != c.status || !strings.Contains(body, c.has) || c.hasNot != "" && strings.Contains(body, c.hasNot) {
				t.Errorf("%d %q", w.Code, body)
			}
		})
	}
}

// TestOnTheWayToAnotherTracker: only an announce that any public tracker would
// understand the same is answered in its place.
func TestOnTheWayToAnotherTracker(t *testing.T) {
	for _, c := range []struct {
		name, target string
		ok           bool
	}{
		{"held", "/announce?" + query(held, ""), true},
		{"allowed", "/announce?" + query(allowed, ""), true},
		{"unknown", "/announce?" + query(strange, ""), false},
		{"private", "/announce?" + query(private, ""), false},
		{"passkey in the path", "/0123456789abcdef0123456789abcdef/announce?" + query(held, ""), false},
		{"passkey in the query", "/announce?passkey=1&" + query(held, ""), false},
		{"scrape", "/scrape?" + query(held, ""), false},
		{"no announce", "/announce", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, swarm := newServer(t, nil)
			body, ok := s.AnswerHTTP(client4.Addr(), httptest.NewRequest(http.MethodGet, "http://tracker.example"+c.target, nil))
			if ok != c.ok || ok != (len(body) > 0) {
				t.Errorf("%t %q", ok, body)
			}
			if want := map[bool]int{true: 1}[c.name == "allowed"]; len(swarm.joined) != want {
				t.Errorf("joined %q", swarm.joined)
			}
		})
	}
	s, _ := newServer(t, nil)
	with := httptest.NewRequest(http.MethodGet, "/announce?"+query(held, ""), nil)
	with.Header.Set("Cookie", "uid=1")
	if _, ok := s.AnswerHTTP(client4.Addr(), with); ok {
		t.Error("answered for one who is known by a cookie")
	}
}

// TestClientsAreGreeted: whoever is answered with the box is told to it, with the
// port that it listens on and whether it wants data.
func TestClientsAreGreeted(t *testing.T) {
	s, swarm := newServer(t, nil)
	for _, q := range []string{
		query(held, ""), query(held, "&left=0"), query(held, "&event=stopped"), query(held, "&port=0"), query(private, ""), query(strange, ""),
	} {
		_, _ = s.AnswerHTTP(client4.Addr(), httptest.NewRequest(http.MethodGet, "/announce?"+q, nil))
		r := httptest.NewRequest(http.MethodGet, "/announce?"+q, nil)
		r.RemoteAddr = client4.String()
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	_, _ = s.AnswerUDP(client6, netip.MustParseAddrPort("[2001:db8::1]:6969"), datagram(1, held, ""))
	wants, not := "68 10.0.0.9:51413 true", "68 10.0.0.9:51413 false"
	want := []string{wants, wants, not, not, not, not, "68 [fd00::9]:51413 false"}
	if !slices.Equal(swarm.greeted, want) {
		t.Errorf("%q", swarm.greeted)
	}
}

// datagram is an announce of BEP 15.
func datagram(connection uint64, h [20]byte, options string) []byte {
	b := binary.BigEndian.AppendUint64(nil, connection)
	b = binary.BigEndian.AppendUint32(b, uint32(actionAnnounce))
	b = binary.BigEndian.AppendUint32(b, 77)
	b = append(append(b, h[:]...), make([]byte, 56)...)
	b = binary.BigEndian.AppendUint32(b, 0xffffffff) // numwant
	return append(binary.BigEndian.AppendUint16(b, 51413), options...)
}

// TestRetracker: who announces to retracker.local is answered by the box, as its
// tracker and on the way to another, and the box does not announce there itself.
func TestRetracker(t *testing.T) {
	for _, host := range []string{"retracker.local", "Retracker.local.:80"} {
		s, _ := newServer(t, nil)
		r := httptest.NewRequest(http.MethodGet, "http://"+host+"/announce?"+query(allowed, ""), nil)
		r.RemoteAddr = client4.String()
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); !strings.Contains(w.Body.String(), "5:peers6:\x0a") {
			t.Errorf("%s: answered %q", host, w.Body)
		}
		s, swarm := newServer(t, nil)
		if body, ok := s.AnswerHTTP(client4.Addr(), r); !ok || !strings.Contains(string(body), "5:peers6:\x0a") {
			t.Errorf("%s: on the way answered %t %q", host, ok, body)
		}
		if !slices.Equal(swarm.joined, []string{"61 []"}) { // by no tracker's address
			t.Errorf("%s: joined by %q", host, swarm.joined)
		}
	}
}

func TestAnnounceByUDP(t *testing.T) {
	s, _ := newServer(t, nil)
	now := time.Unix(1e9, 0)
	hello := binary.BigEndian.AppendUint64(nil, protocolID)
	hello = append(hello, 0, 0, 0, 0, 0, 0, 0, 77)
	for _, c := range []struct {
		client netip.AddrPort
		peer   []byte
	}{{client4, appendPeer(nil, box4)}, {client6, appendPeer(nil, box6)}} {
		welcome := s.reply(c.client, hello, now)
		if len(welcome) != 16 || binary.BigEndian.Uint32(welcome[4:]) != 77 {
			t.Fatalf("connect: %x", welcome)
		}
		id := binary.BigEndian.Uint64(welcome[8:])
		got := s.reply(c.client, datagram(id, held, ""), now.Add(2*time.Minute))
		if len(got) < 20 || binary.BigEndian.Uint32(got) != 1 || !bytes.Equal(got[20:], c.peer) {
			t.Errorf("announce from %v: %x", c.client, got)
		}
		for name, late := range map[string][]byte{
			"too late":     s.reply(c.client, datagram(id, held, ""), now.Add(5*time.Minute)),
			"another host": s.reply(netip.MustParseAddrPort("10.9.9.9:1234"), datagram(id, held, ""), now),
			"another port": s.reply(netip.AddrPortFrom(c.client.Addr(), 7), datagram(id, held, ""), now),
		} {
			if len(late) < 8 || binary.BigEndian.Uint32(late) != uint32(actionError) {
				t.Errorf("%s: %x", name, late)
			}
		}
		scrape := append(binary.BigEndian.AppendUint64(nil, id), 0, 0, 0, 2, 0, 0, 0, 77)
		got = s.reply(c.client, append(append(scrape, held[:]...), strange[:]...), now)
		if len(got) != 8+2*12 || got[11] != 1 || got[23] != 0 {
			t.Errorf("scrape: %x", got)
		}
	}
	if got := s.reply(netip.MustParseAddrPort("8.8.8.8:1"), hello, now); got != nil {
		t.Errorf("answered somebody outside: %x", got)
	}
}

func TestOnTheWayByUDP(t *testing.T) {
	s, _ := newServer(t, nil)
	tracker := netip.MustParseAddrPort("198.51.100.2:6969")
	for _, c := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"held", datagram(9, held, ""), true},
		{"with its path", datagram(9, held, "\x02\x09/announce\x00"), true},
		{"in two parts", datagram(9, held, "\x02\x04/ann\x01\x02\x05ounce"), true},
		{"passkey", datagram(9, held, "\x02\x0c/0123456789a"), false},
		{"passkey in the query", datagram(9, held, "\x02\x0d/announce?k=1"), false},
		{"broken option", datagram(9, held, "\x02\x20/ann"), false},
		{"unknown", datagram(9, strange, ""), false},
		{"private", datagram(9, private, ""), false},
		{"short", datagram(9, held, "")[:97], false},
	} {
		if got, ok := s.AnswerUDP(client4, tracker, c.b); ok != c.ok || ok && len(got) != 26 {
			t.Errorf("%s: %x %t", c.name, got, ok)
		}
	}
}

func TestAClientIsBounded(t *testing.T) {
	s, _ := newServer(t, func(c *Config) { c.Rate = 1 })
	hello := append(binary.BigEndian.AppendUint64(nil, protocolID), 0, 0, 0, 0, 0, 0, 0, 77)
	answered := 0
	for range 100 {
		if s.reply(client4, hello, time.Unix(1e9, 0)) != nil {
			answered++
		}
	}
	if answered != 5 {
		t.Errorf("%d answers at once, want 5", answered)
	}
	if s.reply(client6, hello, time.Unix(1e9, 0)) == nil {
		t.Error("another client must wait too")
	}
}

func TestAvoidedIsCountedOnce(t *testing.T) {
	s, _ := newServer(t, nil)
	for range 3 {
		if _, ok := s.AnswerHTTP(client4.Addr(), httptest.NewRequest(http.MethodGet, "/announce?"+query(held, ""), nil)); !ok {
			t.Fatal("not answered")
		}
	}
	if st := s.Stats(); st.Answered != 3 || st.Avoided != 30 || len(st.Clients) != 1 || st.Clients[0].Avoided != 30 {
		t.Errorf("%+v", st)
	}
}

func TestInfohashes(t *testing.T) {
	s, _ := newServer(t, nil)
	got := map[[20]byte]bool{}
	for _, h := range s.Infohashes() {
		got[h] = true
	}
	if len(got) != 2 || !got[held] || !got[allowed] {
		t.Errorf("%d infohashes, want the one held and the one allowed", len(got))
	}
}

// TestListens asks over real sockets.
func TestListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s, _ := newServer(t, func(c *Config) { c.Listen = []string{addr} })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var body []byte
	for {
		resp, err := http.Get("http://" + addr + "/announce?" + query(held, ""))
		if err == nil {
			body, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if !bytes.Contains(body, []byte("5:peers6:")) {
		t.Errorf("%q", body)
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 100)
	for n := 0; n != 16; { // the datagram may have come before the socket
		_, _ = conn.Write(append(binary.BigEndian.AppendUint64(nil, protocolID), make([]byte, 8)...))
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, _ = conn.Read(answer)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	err := Config{
		Listen: []string{"x"}, Clients: []netip.Prefix{{}}, Peers: []netip.AddrPort{{}}, Interval: -1, Rate: -1,
	}.Validate()
	for _, key := range []string{"listen[0]", "clients[0]", "peers[0]", "interval", "rate"} {
		if err == nil || !strings.Contains(err.Error(), "tracker."+key) {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
	if _, err := New(Config{Rate: -1}, nil, nil); err == nil {
		t.Error("built with a faulty configuration")
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("/announce", query(held, "&compact=0&event=started"))
	f.Add("/announce", "info_hash=%zz&left=-1")
	f.Add("/x/announce", query(held, "&passkey=1"))
	s, _ := newServer(f, nil)
	f.Fuzz(func(t *testing.T, path, query string) {
		a, err := parseQuery(path, query)
		if err == nil && (a.numWant < 0 || a.numWant > mostWanted || a.left < -1 || a.plain && !isPlain(path)) {
			t.Errorf("%+v", a)
		}
		s.scrape(query)
	})
}

func FuzzDatagram(f *testing.F) {
	f.Add(datagram(9, held, "\x02\x09/announce\x00"))
	f.Add(append(binary.BigEndian.AppendUint64(nil, protocolID), make([]byte, 8)...))
	s, _ := newServer(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(1e9, 0)
		if answer := s.reply(client4, b, now); len(answer) > max(len(b), 44) {
			t.Errorf("%d bytes answered with %d to somebody unknown", len(b), len(answer))
		}
		if answer, ok := s.AnswerUDP(client4, client4, b); ok && len(answer) > len(b) {
			t.Errorf("%d bytes answered with %d", len(b), len(answer))
		}
		p, err := parsePacket(b)
		if err == nil {
			_, err = p.announce()
			_ = s.scrapePacket(p)
		}
		if err != nil && !errors.Is(err, errPacket) {
			t.Error(err)
		}
	})
}
