package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// serve runs s on loopback until the test ends and gives its address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + listener.Addr().String()
}

// stream opens the events and gives a function that returns the next one.
func stream(t *testing.T, address string, header http.Header) func() (name, data string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", address+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("events answered %d %s", resp.StatusCode, got)
	}
	lines := bufio.NewReader(resp.Body)
	return func() (name, data string, err error) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return "", "", err
			}
			if rest, ok := strings.CutPrefix(line, "event: "); ok {
				name = strings.TrimSpace(rest)
			}
			if rest, ok := strings.CutPrefix(line, "data: "); ok {
				data = strings.TrimSpace(rest)
			}
			if line == "\n" {
				return name, data, nil
			}
		}
	}
}

func TestEventsShowWhatChanges(t *testing.T) {
	parts := sample(time.Now())
	store := parts.Objects.(*shelf)
	s := newServer(t, Config{}, parts)
	address := serve(t, s)
	next := stream(t, address, http.Header{"Authorization": {bearer(t, s)}})
	seen := map[string]string{}
	read := func() string {
		name, data, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if name == "fragment" {
			var f struct{ ID, HTML string }
			if err := json.Unmarshal([]byte(data), &f); err != nil {
				t.Fatal(err)
			}
			seen[f.ID] = f.HTML
		}
		return name
	}
	for read() != "alive" {
	}
	for _, id := range fragments {
		if seen[id] == "" {
			t.Errorf("fragment %s was not sent at first", id)
		}
	}
	if err := store.edit(5, func(i int) { store.all[i].Title = "<script>alert(1)</script>" }); err != nil {
		t.Fatal(err)
	}
	clear(seen)
	for !strings.Contains(seen["objects"], "alert(1)") {
		read()
	}
	if strings.Contains(seen["objects"], "<script>") {
		t.Error("a title from the network became markup")
	}
}

func TestEventsEndWithTheSession(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	address := serve(t, s)
	cookie := setUp(t, s, "correct horse")
	next := stream(t, address, http.Header{"Cookie": {cookie}})
	if _, _, err := next(); err != nil {
		t.Fatal(err)
	}
	request(s, "POST", "/logout", "", "Cookie", cookie)
	for {
		if _, _, err := next(); err != nil {
			if err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Errorf("events ended with %v", err)
			}
			return
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	for range maxStreams {
		s.streams <- struct{}{}
	}
	w := request(s, "GET", "/events", "", "Authorization", bearer(t, s))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one page too many answered %d", w.Code)
	}
}

func TestServeStopsWithReaders(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Serve(ctx, listener) }()
	next := stream(t, "http://"+listener.Addr().String(), http.Header{"Authorization": {bearer(t, s)}})
	if _, _, err := next(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Errorf("serve with an open page ended with %v", err)
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := s.Serve(context.Background(), listener); err == nil || !strings.Contains(err.Error(), "serve the panel") {
		t.Errorf("a listener that is closed: %v", err)
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, err := New(Config{Listen: taken.Addr().String(), DataDir: t.TempDir()}, slog.New(slog.DiscardHandler), Parts{Objects: &shelf{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "listen for the panel") {
		t.Errorf("a taken port: %v", err)
	}
	for name, cfg := range map[string]Config{"no data directory": {}, "bad listen": {DataDir: "x", Listen: "nonsense"}, "bad session": {DataDir: "x", Session: -1}} {
		if _, err := New(cfg, slog.New(slog.DiscardHandler), Parts{Objects: &shelf{}}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := New(Config{DataDir: "x"}, slog.New(slog.DiscardHandler), Parts{}); err == nil {
		t.Error("no store was accepted")
	}
}

func TestPanelSaysWhatToDoNext(t *testing.T) {
	s := newServer(t, Config{Proxy: "192.168.1.2:3142"}, Parts{Objects: &shelf{}, Swarms: &swarmList{}, Casts: &castList{}, Agents: &agentList{}})
	page := request(s, "GET", "/", "", "Authorization", bearer(t, s)).Body.String()
	for _, line := range []string{
		"curl -x http://192.168.1.2:3142 -O http://deb.debian.org/debian/README", "export http_proxy=http://192.168.1.2:3142",
		"cistern add https://example.org/large.iso", "cistern-agent enrol --box http://192.168.1.2:3142 --key SHA256:4ZqOQ8mV2yq1",
	} {
		if !strings.Contains(page, line) {
			t.Errorf("the empty panel lacks %q", line)
		}
	}
}

func TestPanelShows(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	page := strings.ReplaceAll(request(s, "GET", "/", "", "Authorization", bearer(t, s)).Body.String(), "\u00a0", " ")
	for _, want := range []string{
		"45.6 GB</span> saved", "ubuntu-24.04.3-live-server-amd64.iso", "releases.ubuntu.com", "41 %", "lab-pc-04", "12 %",
		"loss bad", "waits for its metadata", "multicast", "pinned", "proved", "private",
		"452 flows avoided", "192.168.1.51", "at most 7", "fd00::9",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the panel lacks %q", want)
		}
	}
}

func TestPagesShareAView(t *testing.T) {
	parts := sample(time.Now())
	store := parts.Objects.(*shelf)
	s := newServer(t, Config{}, parts)
	now := time.Now()
	before := len(s.view("a:1", now).Objects)
	if err := store.Evict(5); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, proxy string
		at          time.Time
		want        int
	}{
		{"half a second later", "a:1", now.Add(refresh / 2), before},
		{"a second later", "a:1", now.Add(refresh), before - 1},
		{"somebody who came another way", "b:1", now.Add(refresh), before - 1},
	} {
		if v := s.view(c.proxy, c.at); len(v.Objects) != c.want || v.Status.Proxy != c.proxy {
			t.Errorf("%s: %d objects by %s, want %d", c.name, len(v.Objects), v.Status.Proxy, c.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9_994: "9.99 kB", 9_995: "10.0 kB", 99_949: "99.9 kB", 99_950: "100 kB",
		999_499: "999 kB", 999_500: "1.00 MB", 4_700_372_992: "4.70 GB", 1 << 62: "4612 PB",
	} {
		if got := strings.ReplaceAll(formatBytes(n), "\u00a0", " "); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for f, want := range map[float64]string{0: "0 %", 0.0004: "0.0 %", 0.021: "2.1 %", 0.12: "12 %", 1: "100 %"} {
		if got := strings.ReplaceAll(formatPercent(f), "\u00a0", " "); got != want {
			t.Errorf("%v is %q, want %q", f, got, want)
		}
	}
	if got := newProgress(99.99, "").Fraction; got != 0.99 {
		t.Errorf("99.99 percent shows as %v", got)
	}
}

func TestRates(t *testing.T) {
	var r rates
	if c := r.chart(); c.Peak != 1 || c.ServedLine != "" {
		t.Errorf("no traffic draws %+v", c)
	}
	for i := range int64(3 * remembered) {
		r.add(totals{served: i * 100, filled: i * 10})
	}
	r.add(totals{served: 50, filled: 5}) // objects went
	c := r.chart()
	if len(r.served) != remembered || c.Peak != 100 || c.Served != 0 || c.Filled != 0 {
		t.Errorf("%d seconds, chart %+v", len(r.served), c)
	}
	if !strings.HasPrefix(c.ServedLine, "1,3.0 ") || !strings.HasSuffix(c.ServedLine, " 120,40.0") {
		t.Errorf("the line is %q", c.ServedLine)
	}
}

func TestMetrics(t *testing.T) {
	parts := sample(time.Now())
	parts.Stats = map[string]func() any{"proxy": func() any {
		return struct {
			Hits    int64             `json:"hits"`
			Ratio   float64           `json:"ratio"`
			By      map[string]uint64 `json:"by"`
			Inner   struct{ N int }   `json:"inner"`
			Skipped []int             `json:"skipped"`
			hidden  int
		}{Hits: 7, Ratio: 0.5, By: map[string]uint64{"a\xff": 3}}
	}}
	s := newServer(t, Config{}, parts)
	text := request(s, "GET", "/metrics", "", "Authorization", bearer(t, s)).Body.String()
	for _, want := range []string{
		"cistern_store_objects 5\n", `cistern_store_filled{name="origin"} `, `cistern_store_served{name="multicast"} 3.7602983936e+10`,
		"cistern_proxy_hits 7\n", "cistern_proxy_ratio 0.5\n", `cistern_proxy_by{name="a?"} 3`, "cistern_swarms 2\n",
		"cistern_swarm_outside_connections 9\n", `cistern_receiver_loss_ratio{node="104"} 0.12`, "cistern_casts 1\n", "go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	if strings.Contains(text, "ubuntu") {
		t.Error("hosts became labels")
	}
}

func TestProxyAddress(t *testing.T) {
	for cfg, want := range map[string]string{"192.168.1.2:3142": "192.168.1.2:3142", "box.lan:3142": "box.lan:3142", ":3142": "192.0.2.7:3142", "[::]:80": "192.0.2.7:80"} {
		s := newServer(t, Config{Proxy: cfg}, Parts{Objects: &shelf{}})
		r := &http.Request{Host: "evil.test", URL: &url.URL{}}
		r = r.WithContext(context.WithValue(context.Background(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8080}))
		if got := s.proxyFor(r); got != want {
			t.Errorf("proxy %q is reached at %q, want %q", cfg, got, want)
		}
	}
}

// The panel is drawn each second: a store of this size must not make it heavy.
func BenchmarkView(b *testing.B) {
	store := &shelf{}
	for n := range uint64(10_000) {
		store.all = append(store.all, cache.Info{Num: n, Size: 1000, Readable: 1000, Complete: true, Title: "http://a.test/b", From: map[string]int64{"origin a.test": 1000}})
	}
	s, err := New(Config{DataDir: b.TempDir()}, slog.New(slog.DiscardHandler), Parts{Objects: store})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.pages.render("panel", "panel", s.gather("127.0.0.1:3142", time.Now())); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPanelShowsTheStore(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	html, err := s.pages.render("panel", "store", s.view("box:3142", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"/mnt/second", "gone", "input/output error", "steam", "court order 7", `data-call="/api/v1/takedowns?what=http%3A%2F%2Fwarez.example%2F%2A"`,
		"Nothing was found damaged", `data-method="POST" data-call="/api/v1/scrub"`,
	} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the panel lacks %q:\n%s", want, html)
		}
	}
}
