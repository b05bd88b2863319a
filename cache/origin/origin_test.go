package origin

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

func itoa(n int) string { return strconv.Itoa(n) }

// testBody is n bytes that are the same each time.
func testBody(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// site is an origin that serves one body and can be told to misbehave.
type site struct {
	*httptest.Server
	body []byte

	mu       sync.Mutex
	etag     string
	requests []*http.Request
	hook     func(w http.ResponseWriter, r *http.Request, n int) bool // true: answered
}

func newSite(t *testing.T, body []byte, hook func(w http.ResponseWriter, r *http.Request, n int) bool) *site {
	s := &site{body: body, etag: `"one"`, hook: hook}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r)
		n, etag := len(s.requests), s.etag
		s.mu.Unlock()
		w.Header().Set("ETag", etag)
		if s.hook != nil && s.hook(w, r, n) {
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.body))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) ranges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, r := range s.requests {
		all = append(all, r.Header.Get("Range"))
	}
	return all
}

func newMirrors(t *testing.T) *Mirrors {
	m, err := NewMirrors(Config{Dial: (&net.Dialer{}).DialContext}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func newStore(t *testing.T) *cache.Store {
	store, err := cache.Open(cache.Config{Dir: t.TempDir(), MinFree: 1, Small: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func get(t *testing.T, url string) *http.Request {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// fill opens url and fills a new object with the answer.
func fill(t *testing.T, store *cache.Store, m *Mirrors, url string) *cache.Fill {
	offer, err := m.Open(t.Context(), get(t, url))
	if err != nil {
		t.Fatal(err)
	}
	f, err := store.Create(cache.Spec{Object: offer.Object, Title: url}, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(offer.Sources...)
	return f
}

// arrives waits for the end of a fill and compares the bytes.
func arrives(t *testing.T, f *cache.Fill, want []byte) {
	t.Helper()
	<-f.Done()
	if err := f.Err(); err != nil {
		t.Fatalf("fill: %v", err)
	}
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got bytes.Buffer
	if _, err := r.WriteRange(t.Context(), &got, content.Range{End: int64(len(want))}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatal("bytes differ")
	}
}

func TestFillInOneAnswer(t *testing.T) {
	for _, size := range []int{0, 1, content.LeafSize, 5<<20 + 7} {
		s := newSite(t, testBody(size), nil)
		m := newMirrors(t)
		arrives(t, fill(t, newStore(t), m, s.URL), s.body)
		if st := m.Stats(); st.Requests != 1 || st.Bytes != int64(size) {
			t.Errorf("size %d: stats %+v", size, st)
		}
	}
}

func TestUnknownSizeIsKnownAtTheEnd(t *testing.T) {
	body := testBody(3<<20 + 1)
	s := newSite(t, body, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.(http.Flusher).Flush()
		_, _ = w.Write(body)
		return true
	})
	arrives(t, fill(t, newStore(t), newMirrors(t), s.URL), body)
}

// cutAfter sends a part of the body and then closes the connection.
func cutAfter(w http.ResponseWriter, body []byte, chunked bool) {
	if chunked {
		w.(http.Flusher).Flush()
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	_, _ = w.Write(body[:len(body)/2])
	panic(http.ErrAbortHandler)
}

func TestCutBodyGoesOn(t *testing.T) {
	body := testBody(6 << 20)
	for _, chunked := range []bool{false, true} {
		s := newSite(t, body, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				cutAfter(w, body, chunked)
			}
			if n == 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			if got := r.Header.Get("If-Range"); got != `"one"` {
				t.Errorf("If-Range %q", got)
			}
			return false
		})
		m := newMirrors(t)
		arrives(t, fill(t, newStore(t), m, s.URL), body)
		if st := m.Stats(); st.Resumed != 1 || st.Bytes > int64(len(body)) {
			t.Errorf("chunked %v: stats %+v", chunked, st)
		}
	}
}

func TestCutBodyFailsWhenItMust(t *testing.T) {
	body := testBody(2 << 20)
	for name, row := range map[string]struct {
		hook func(s *site, w http.ResponseWriter, r *http.Request) bool
		want error
	}{
		"weak validator": {func(_ *site, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("ETag", `W/"weak"`)
			cutAfter(w, body, false)
			return true
		}, io.ErrUnexpectedEOF},
		"chunked without validator": {func(_ *site, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Del("ETag")
			cutAfter(w, body, true)
			return true
		}, io.ErrUnexpectedEOF},
		"changed": {func(s *site, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") != "" {
				w.Header().Set("ETag", `"two"`)
				return false
			}
			cutAfter(w, body, false)
			return true
		}, ErrChanged},
		"changed, If-Range ignored": {func(s *site, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") != "" {
				w.Header().Set("ETag", `"two"`)
				r.Header.Del("If-Range")
				return false
			}
			cutAfter(w, body, false)
			return true
		}, ErrChanged},
		"other size": {func(s *site, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") != "" {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(body, 1)))
				return true
			}
			cutAfter(w, body, false)
			return true
		}, ErrChanged},
		"no ranges": {func(s *site, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") != "" {
				r.Header.Del("Range")
				return false
			}
			cutAfter(w, body, false)
			return true
		}, errNoRanges},
	} {
		t.Run(name, func(t *testing.T) {
			var s *site
			s = newSite(t, body, func(w http.ResponseWriter, r *http.Request, _ int) bool { return row.hook(s, w, r) })
			f := fill(t, newStore(t), newMirrors(t), s.URL)
			<-f.Done()
			if !errors.Is(f.Err(), row.want) {
				t.Errorf("fill: %v, want %v", f.Err(), row.want)
			}
		})
	}
}

func TestStatusThatIsNoAnswer(t *testing.T) {
	for _, status := range []string{"099 Low", "000 Nothing", "101 Switching Protocols"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
			}
		}()
		m, err := NewMirrors(Config{Dial: (&net.Dialer{}).DialContext}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/", nil)
		if o, err := m.Open(t.Context(), req); err == nil {
			o.Body.Close()
			t.Errorf("%s: offered with status %d", status, o.Status)
		}
		m.Close()
	}
}
