package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/origin"
)

// testBody is n bytes that are the same each time.
func testBody(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// site is an origin of the test's own.
type site struct {
	*httptest.Server

	mu  sync.Mutex
	log []*http.Request
}

func newSite(t *testing.T, h http.HandlerFunc) *site {
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.log = append(s.log, r)
		s.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// requests are those that have come so far.
func (s *site) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.log...)
}

// file serves a body with a validator and freshness.
func file(body []byte, etag, control string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Cache-Control", control)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

// box is a proxy with its store, listening on loopback.
type box struct {
	*Server
	t      *testing.T
	addr   string
	store  *cache.Store
	client *http.Client
	stop   func()
}

func quiet() *slog.Logger {
	if os.Getenv("PROXY_TEST_LOG") != "" {
		return slog.Default()
	}
	return slog.New(slog.DiscardHandler)
}

// loopback is a Dialer that reaches the test's own servers.
func loopback(t *testing.T) *origin.Dialer {
	d, err := origin.ParseDestination("127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	return &origin.Dialer{Allow: []origin.Destination{d}}
}

func newBox(t *testing.T, dir string, dial *origin.Dialer, edit func(*Config), torrents Torrents) *box {
	t.Helper()
	store, err := cache.Open(cache.Config{Dir: dir, MinFree: 1, Small: true}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return boxOn(t, store, dial, edit, torrents)
}

// boxOn is a box on a store, which it closes at the end.
func boxOn(t *testing.T, store *cache.Store, dial *origin.Dialer, edit func(*Config), torrents Torrents) *box {
	t.Helper()
	m, err := origin.NewMirrors(origin.Config{Dial: dial.DialContext}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dial: dial.DialContext}
	if edit != nil {
		edit(&cfg)
	}
	s, err := New(cfg, quiet(), store, m, torrents)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	proxyURL := &url.URL{Scheme: "http", Host: l.Addr().String()}
	tr := &http.Transport{Proxy: http.ProxyURL(proxyURL), DisableCompression: true}
	b := &box{Server: s, t: t, addr: l.Addr().String(), store: store, client: &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	b.stop = sync.OnceFunc(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		m.Close()
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

func simpleBox(t *testing.T) *box { return newBox(t, t.TempDir(), loopback(t), nil, nil) }

// reply is an answer read to its end.
type reply struct {
	*http.Response
	body []byte
	err  error
}

func (r reply) status() string { return r.Header.Get("Cache-Status") }

// do sends a request through the box; fields are "Name: value".
func (b *box) do(method, target string, fields ...string) reply {
	b.t.Helper()
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if !strings.Contains(resp.Header.Get("Cache-Status"), "cistern") {
		b.t.Errorf("%s %s: %d without Cache-Status", method, target, resp.StatusCode)
	}
	return reply{resp, body, err}
}

// get asks for a body and insists on a sound one.
func (b *box) get(target string, fields ...string) reply {
	b.t.Helper()
	r := b.do(http.MethodGet, target, fields...)
	if r.err != nil {
		b.t.Fatalf("GET %s: %v", target, r.err)
	}
	return r
}

// settle waits until nothing is being filled.
func (b *box) settle() {
	b.t.Helper()
	for range 500 {
		busy := false
		for _, info := range b.store.List() {
			busy = busy || info.Filling
		}
		if !busy {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatal("a fill does not end")
}

func TestSecondRequestIsAHit(t *testing.T) {
	for _, size := range []int{0, 1, 100, 3<<20 + 17} {
		body := testBody(size)
		s := newSite(t, file(body, `"a"`, "max-age=60"))
		b := simpleBox(t)
		first := b.get(s.URL + "/x")
		if !bytes.Equal(first.body, body) || !strings.Contains(first.status(), "fwd=uri-miss") || !strings.Contains(first.status(), "stored") {
			t.Errorf("size %d: first: %d bytes, %s", size, len(first.body), first.status())
		}
		second := b.get(s.URL + "/x")
		if !bytes.Equal(second.body, body) || !strings.Contains(second.status(), "hit") {
			t.Errorf("size %d: second: %d bytes, %s", size, len(second.body), second.status())
		}
		if second.Header.Get("Age") == "" || second.Header.Get("Via") == "" || second.ContentLength != int64(size) || second.Header.Get("Content-Type") != first.Header.Get("Content-Type") {
			t.Errorf("size %d: header %v", size, second.Header)
		}
		if n := len(s.requests()); n != 1 {
			t.Errorf("size %d: %d origin requests", size, n)
		}
		b.settle()
		st := b.Stats()
		if st.Requests != 2 || st.Hits != 1 || st.Misses != 1 || st.Upstream != 1 || st.Bytes != 2*int64(size) || len(st.Clients) != 1 || st.Clients[0].Bytes != st.Bytes {
			t.Errorf("size %d: stats %+v", size, st)
		}
	}
}

func TestManyColdClientsShareOneRequest(t *testing.T) {
	body := testBody(1 << 20)
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond) // so that they really wait for the head
		file(body, `"a"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	b.client.Transport.(*http.Transport).MaxConnsPerHost = 0
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			resp, err := b.client.Get(s.URL + "/x")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wait.Wait()
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d origin requests", n)
	}
	if st := b.Stats(); st.Upstream != 1 || st.Requests != 50 {
		t.Errorf("stats %+v", st)
	}
}

func TestBytesStreamWhileTheyArrive(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		gate := make(chan struct{})
		s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			if !chunked {
				w.Header().Set("Content-Length", "10")
			}
			fmt.Fprint(w, "first")
			w.(http.Flusher).Flush()
			<-gate
			fmt.Fprint(w, "later")
		})
		b := simpleBox(t)
		var bodies []io.ReadCloser
		for range 2 { // the second joins the fill that runs
			resp, err := b.client.Get(s.URL + "/slow")
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 5)
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "first" {
				t.Fatalf("%q, %v", buf, err)
			}
			bodies = append(bodies, resp.Body)
		}
		close(gate)
		for _, body := range bodies {
			rest, err := io.ReadAll(body)
			if err != nil || string(rest) != "later" {
				t.Errorf("chunked %v: %q, %v", chunked, rest, err)
			}
			body.Close()
		}
		if n := len(s.requests()); n != 1 {
			t.Errorf("%d origin requests", n)
		}
	}
}

func TestClientThatLeavesDoesNotStopTheFill(t *testing.T) {
	body := testBody(2 << 20)
	gate := make(chan struct{})
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = w.Write(body[:1000])
		w.(http.Flusher).Flush()
		<-gate
		_, _ = w.Write(body[1000:])
	})
	b := simpleBox(t)
	resp, err := b.client.Get(s.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	b.client.CloseIdleConnections()
	close(gate)
	b.settle()
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, body) || !strings.Contains(r.status(), "hit") {
		t.Errorf("%d bytes, %s", len(r.body), r.status())
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d origin requests", n)
	}
}
