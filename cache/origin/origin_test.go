package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	"github.com/cistern-edge/cistern/cache/httpcache"
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

// held serves a body whose first answer stops after a part until it is let go.
func held(t *testing.T, body []byte, first int) (s *site, release func()) {
	gate := make(chan struct{})
	s = newSite(t, body, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:first])
		w.(http.Flusher).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
		}
		_, _ = w.Write(body[first:])
		return true
	})
	return s, sync.OnceFunc(func() { close(gate) })
}

func TestReadersFarAheadGetRanges(t *testing.T) {
	body := testBody(40 << 20)
	s, release := held(t, body, 1<<20)
	defer release()
	f := fill(t, newStore(t), newMirrors(t), s.URL)
	for _, off := range []int64{30 << 20, 15 << 20, 39 << 20} {
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := r.WriteRange(t.Context(), &got, content.Range{Off: off, End: off + 1000}); err != nil {
			t.Fatal(err)
		}
		r.Close()
		if !bytes.Equal(got.Bytes(), body[off:off+1000]) {
			t.Fatalf("bytes at %d differ", off)
		}
	}
	release()
	arrives(t, f, body)
	if n := len(s.ranges()); n > 6 {
		t.Errorf("%d requests: %q", n, s.ranges())
	}
}

func TestReaderNearAheadWaits(t *testing.T) {
	body := testBody(12 << 20)
	s, release := held(t, body, 1<<20)
	defer release()
	f := fill(t, newStore(t), newMirrors(t), s.URL)
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Wait(t.Context(), 0); err != nil { // the first bytes are here
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Wait(ctx, 6<<20); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait: %v", err)
	}
	release()
	arrives(t, f, body)
	if n := len(s.ranges()); n != 1 {
		t.Errorf("%d requests: %q", n, s.ranges())
	}
}

func TestResume(t *testing.T) {
	body := testBody(4 << 20)
	s := newSite(t, body, nil)
	m := newMirrors(t)
	offer, err := m.Open(t.Context(), get(t, s.URL))
	if err != nil {
		t.Fatal(err)
	}
	offer.Body.Close()
	stored := httpcache.NewResponse(get(t, s.URL), offer.Status, offer.Header, offer.Requested, offer.Received)
	offer, err = m.Resume(t.Context(), get(t, s.URL), stored, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(offer.Body)
	offer.Body.Close()
	if offer.Status != http.StatusPartialContent || offer.Object.Size != int64(len(body)) || !bytes.Equal(rest, body[1<<20:]) {
		t.Fatalf("status %d, size %d, %d bytes", offer.Status, offer.Object.Size, len(rest))
	}
	if got := offer.Header.Get("Content-Length"); got != itoa(len(body)) {
		t.Errorf("Content-Length %s", got)
	}
	s.mu.Lock()
	s.etag = `"two"`
	s.mu.Unlock()
	offer, err = m.Resume(t.Context(), get(t, s.URL), stored, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	rest, _ = io.ReadAll(offer.Body)
	offer.Body.Close()
	if offer.Status != http.StatusOK || !bytes.Equal(rest, body) {
		t.Fatalf("after a change: status %d, %d bytes", offer.Status, len(rest))
	}
}

func TestRangesFillsGaps(t *testing.T) {
	body := testBody(20<<20 + 5)
	s := newSite(t, body, nil)
	store := newStore(t)
	f, err := store.Create(cache.Spec{Object: content.Object{Size: int64(len(body))}, Title: "x"}, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(parts{body, []content.Range{{Off: 0, End: 3 << 20}, {Off: 5 << 20, End: 11<<20 + 9}}}, Ranges(s.Client(), s.URL, "box"))
	arrives(t, f, body)
	info, _ := store.Get(f.Num())
	if info.From["box"] != int64(len(body))-9<<20-9 {
		t.Errorf("from %v", info.From)
	}
}

// parts is a source that has some ranges of a body.
type parts struct {
	body []byte
	have []content.Range
}

func (p parts) Name() string { return "parts" }

func (p parts) Fill(_ context.Context, sink content.Sink) error {
	for _, r := range p.have {
		if _, err := sink.WriteAt(p.body[r.Off:r.End], r.Off); err != nil {
			return err
		}
		if err := sink.Accept(r); err != nil {
			return err
		}
	}
	return content.ErrNotHere
}

func FuzzCheckPart(f *testing.F) {
	for _, s := range []string{"bytes 5-9/20", "bytes 5-9/*", "bytes 5-4/20", "bytes 0-9/20", "bytes 5-99/20", "bytes 5-9223372036854775807/9223372036854775807", "5-9/20", ""} {
		f.Add(s, "5", 206)
	}
	f.Fuzz(func(t *testing.T, field, length string, status int) {
		asked := content.Range{Off: 5, End: 15}
		got := &httpcache.Response{Status: status, Header: http.Header{"Content-Range": {field}, "Content-Length": {length}}}
		p, err := checkPart(got, asked, nil)
		if err != nil {
			return
		}
		if p.rng.Off != 5 || p.rng.Len() < 1 || p.rng.End > asked.End || p.size >= 0 && p.size < p.rng.End {
			t.Fatal(fmt.Sprint(field, p.rng, p.size))
		}
	})
}
