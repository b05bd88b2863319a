package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/origin"
)

// pulled is an origin that counts the body bytes it was asked for.
func pulled(t *testing.T, body []byte, etag string) (*site, *atomic.Int64) {
	var sum atomic.Int64
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(&counting{w, &sum}, r, "", time.Time{}, bytes.NewReader(body))
	})
	return s, &sum
}

// waitFor waits until something has happened.
func waitFor(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for range 2000 {
		if happened() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal(what, "did not come")
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func bytesOf(off, end int) string { return fmt.Sprintf("Range: bytes=%d-%d", off, end-1) }

func TestColdRangePullsItsBlocks(t *testing.T) {
	body := testBody(20 << 20)
	s, sum := pulled(t, body, `"e"`)
	dir := t.TempDir()
	b := newBox(t, dir, loopback(t), nil, nil)
	want := func(off, end int, status string) {
		t.Helper()
		r := b.get(s.URL+"/x", bytesOf(off, end))
		if r.StatusCode != 206 || !bytes.Equal(r.body, body[off:end]) || !strings.Contains(r.status(), status) || r.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", off, end-1, len(body)) {
			t.Errorf("%d-%d: %d, %d bytes, %s, %v", off, end, r.StatusCode, len(r.body), r.status(), r.Header)
		}
	}
	want(9_500_000, 10_500_000, "fwd=uri-miss;fwd-status=206;stored")
	if n := sum.Load(); n > 2<<20 {
		t.Errorf("%d bytes pulled", n)
	}
	want(10_480_000, 11_500_000, "hit")         // of blocks that came
	want(11_500_000, 12_000_000, "fwd=partial") // goes on where the other left: read-ahead
	want(12_000_000, 13_500_000, "hit")
	waitFor(t, "the read-ahead", func() bool { return b.store.List()[0].Readable == sum.Load() })
	before := sum.Load()
	b.stop() // and what is here is kept
	b = newBox(t, dir, loopback(t), nil, nil)
	want(9_500_000, 10_500_000, "hit")
	if n := sum.Load(); n != before {
		t.Errorf("%d bytes pulled for what is here", n-before)
	}
	want(1000, 2000, "partial")
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, body) {
		t.Errorf("the whole: %d bytes, %s", len(r.body), r.status())
	}
	b.settle()
	if n := sum.Load(); n != int64(len(body)) {
		t.Errorf("%d bytes pulled for a body of %d", n, len(body))
	}
	want(1, 3, "hit")
}

func TestManyColdRangesShareAFill(t *testing.T) {
	body := testBody(12 << 20)
	s, sum := pulled(t, body, `"e"`)
	b := simpleBox(t)
	var wait sync.WaitGroup
	for i := range 24 {
		wait.Go(func() {
			off := i % 12 << 20
			r := b.get(s.URL+"/x", bytesOf(off, off+1<<20))
			if r.StatusCode != 206 || !bytes.Equal(r.body, body[off:off+1<<20]) {
				t.Errorf("%d: %d, %d bytes, %s", off, r.StatusCode, len(r.body), r.status())
			}
		})
	}
	wait.Wait()
	b.settle()
	if n := sum.Load(); n != int64(len(body)) {
		t.Errorf("%d bytes pulled for a body of %d, by %d requests", n, len(body), len(s.requests()))
	}
	if list := b.store.List(); len(list) != 1 || !list[0].Complete {
		t.Errorf("%+v", list)
	}
}

// TestColdRangesOfEveryKind: what an origin may answer to a range, and what
// comes of it.
func TestColdRangesOfEveryKind(t *testing.T) {
	body := testBody(3<<20 + 5)
	size := len(body)
	serve := func(etag, control string, edit func(w http.ResponseWriter, r *http.Request) bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", control)
			if etag != "" {
				w.Header().Set("ETag", etag)
			}
			if edit == nil || !edit(w, r) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			}
		}
	}
	deaf := func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }
	sizeless := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			return false
		}
		w.Header().Set("Content-Range", "bytes 0-1048575/*")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body[:1<<20])
		return true
	}
	for name, row := range map[string]struct {
		site     http.HandlerFunc
		fields   []string
		off, end int
		status   int
		first    string // Cache-Status
		then     string
		asked    int
		whole    bool // it is whole in the end
	}{
		"suffix":                   {serve(`"e"`, "max-age=60", nil), []string{"Range: bytes=-5"}, size - 5, size, 206, "stored", "hit", 1, false},
		"open end":                 {serve(`"e"`, "max-age=60", nil), []string{"Range: bytes=2097160-"}, 2<<20 + 8, size, 206, "stored", "hit", 1, false},
		"from the start":           {serve(`"e"`, "max-age=60", nil), []string{"Range: bytes=0-"}, 0, size, 206, "stored", "hit", 1, true},
		"If-Range holds":           {serve(`"e"`, "max-age=60", nil), []string{bytesOf(5, 9), `If-Range: "e"`}, 5, 9, 206, "stored", "hit", 1, false},
		"If-Range does not":        {serve(`"e"`, "max-age=60", nil), []string{bytesOf(5, 9), `If-Range: "f"`}, 0, size, 200, "stored", "hit", 1, true},
		"no ranges at the origin":  {serve(`"e"`, "max-age=60", deaf), []string{bytesOf(5, 9)}, 5, 9, 206, "stored", "hit", 1, true},
		"no validator":             {serve("", "max-age=60", nil), []string{bytesOf(2<<20+5, 2<<20+9)}, 2<<20 + 5, 2<<20 + 9, 206, "validator", "uri-miss", 2, false},
		"weak validator":           {serve(`W/"e"`, "max-age=60", nil), []string{bytesOf(5, 9)}, 5, 9, 206, "validator", "uri-miss", 2, false},
		"not to be kept":           {serve(`"e"`, "no-store", nil), []string{bytesOf(1<<20+5, 1<<20+9)}, 1<<20 + 5, 1<<20 + 9, 206, "no-store", "uri-miss", 2, false},
		"not to be kept, deaf":     {serve(`"e"`, "no-store", deaf), []string{bytesOf(5, 9)}, 0, size, 200, "no-store", "uri-miss", 2, false},
		"unknown size":             {serve(`"e"`, "max-age=60", sizeless), []string{bytesOf(5, 9)}, 5, 9, 206, "no size", "", 2, false},
		"beyond the end":           {serve(`"e"`, "max-age=60", nil), []string{bytesOf(9<<20, 9<<20+1)}, 0, 0, 416, "", "", 2, false},
		"beyond, in the last part": {serve(`"e"`, "max-age=60", nil), []string{bytesOf(size+3, size+5)}, 0, 0, 416, "", "", 1, false},
		"an old one of the client": {serve(`"e"`, "max-age=60", nil), []string{bytesOf(5, 9), `If-None-Match: "e"`}, 0, 0, 304, "stored", "hit", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, row.site)
			b := simpleBox(t)
			for i, status := range []string{row.first, row.then} {
				r := b.get(s.URL+"/x", row.fields...)
				right := bytes.Equal(r.body, body[row.off:row.end]) || row.status == 416 || name == "unknown size" && i > 0
				if r.StatusCode != row.status || !right || !strings.Contains(r.status(), status) {
					t.Errorf("request %d: %d, %d bytes, %s", i, r.StatusCode, len(r.body), r.status())
				}
				if row.whole {
					b.settle()
				}
			}
			if n := len(s.requests()); n != row.asked {
				t.Errorf("%d requests at the origin, want %d", n, row.asked)
			}
			if list := b.store.List(); row.whole != (len(list) == 1 && list[0].Complete) {
				t.Errorf("%+v", list)
			}
		})
	}
}

// TestPartOfAnotherRepresentation: parts are only put together that have the
// same strong validator; whoever waits gets the new one or an error.
func TestPartOfAnotherRepresentation(t *testing.T) {
	old, now := testBody(4<<20), bytes.ToUpper(testBody(4<<20))
	var changed atomic.Bool
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if changed.Load() {
			file(now, `"two"`, "max-age=60")(w, r)
			return
		}
		file(old, `"one"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	b.get(s.URL+"/x", bytesOf(0, 1000))
	changed.Store(true)
	if r := b.get(s.URL+"/x", bytesOf(2<<20, 2<<20+1000)); r.StatusCode != 206 || !bytes.Equal(r.body, now[2<<20:2<<20+1000]) || r.Header.Get("ETag") != `"two"` {
		t.Errorf("%d, %d bytes, %s %v", r.StatusCode, len(r.body), r.status(), r.Header)
	}
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, now) {
		t.Errorf("the whole: %d bytes, %s", len(r.body), r.status())
	}
	b.settle()
	if list := b.store.List(); len(list) != 1 || !list[0].Complete {
		t.Errorf("%+v", list)
	}
}

func TestStalePartIsValidated(t *testing.T) {
	body := testBody(4 << 20)
	s := newSite(t, file(body, `"e"`, "max-age=0"))
	dir := t.TempDir()
	b := newBox(t, dir, loopback(t), nil, nil)
	b.get(s.URL+"/x", bytesOf(0, 1000))
	waitFor(t, "a block", func() bool { return b.store.List()[0].Readable == 1<<20 })
	b.stop()
	b = newBox(t, dir, loopback(t), nil, nil)
	if r := b.get(s.URL+"/x", bytesOf(0, 1000)); r.StatusCode != 206 || !bytes.Equal(r.body, body[:1000]) {
		t.Errorf("%d, %d bytes, %s", r.StatusCode, len(r.body), r.status())
	}
	all := s.requests()
	if last := all[len(all)-1]; len(all) > 3 || last.Header.Get("If-None-Match") != `"e"` {
		t.Errorf("%d requests, the last %v", len(all), last.Header)
	}
}

func TestCompleteRangesBringsTheRest(t *testing.T) {
	body := testBody(5 << 20)
	s, _ := pulled(t, body, `"e"`)
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) { c.CompleteRanges = true }, nil)
	b.get(s.URL+"/x", bytesOf(2<<20, 2<<20+1000))
	b.settle()
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, body) || !strings.Contains(r.status(), "hit") {
		t.Errorf("%d bytes, %s", len(r.body), r.status())
	}
}

// TestNoStormOnAnOriginThatFails: whoever waited for an answer that was an error
// is told so, and does not ask again at once.
func TestNoStormOnAnOriginThatFails(t *testing.T) {
	gate := make(chan struct{})
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	b := simpleBox(t)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if r := b.get(s.URL + "/x"); r.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%d %s", r.StatusCode, r.status())
			}
		})
	}
	waitFor(t, "all requests", func() bool { return b.Stats().Requests == 20 })
	time.Sleep(50 * time.Millisecond) // until they wait
	close(gate)
	wait.Wait()
	if n := len(s.requests()); n > 3 { // one more round for those who came late
		t.Errorf("%d requests at the origin", n)
	}
}

func TestOverloadIsTold(t *testing.T) {
	b := simpleBox(t)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://origin.example/", nil)
	b.refuse(w, r, unreachable(fmt.Errorf("ask: %w", &origin.BusyError{Host: "origin.example", Why: "too many", RetryAfter: 7 * time.Second}), "uri-miss"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "7" || !strings.Contains(w.Body.String(), "too many") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// TestTorrentOfAPartFetchesTheRest: what says "not yet" sees to it that it will be.
func TestTorrentOfAPartFetchesTheRest(t *testing.T) {
	body := testBody(9 << 20)
	s, _ := pulled(t, body, `"e"`)
	b := newBox(t, t.TempDir(), loopback(t), nil, metainfo{1})
	if r := b.get(s.URL+"/x", bytesOf(0, 1000)); r.StatusCode != 206 {
		t.Fatalf("%d %q", r.StatusCode, r.body)
	}
	if r := b.get(b.via(s, "/x?torrent")); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(string(r.body), "% are done") {
		t.Errorf("of a part: %d %q", r.StatusCode, r.body)
	}
	waitFor(t, "the torrent", func() bool { return b.get(b.via(s, "/x?torrent")).StatusCode == 200 })
}

// TestRangesNearEachOtherAreOneRequest: ranges of one request that lie close behind
// each other come by one to the origin.
func TestRangesNearEachOtherAreOneRequest(t *testing.T) {
	body := testBody(9 << 20)
	s, _ := pulled(t, body, `"e"`)
	b := simpleBox(t)
	r := b.get(s.URL+"/x", "Range: bytes=10-19, 1500000-1500009, 3000000-3000009")
	if r.StatusCode != 206 || !strings.Contains(r.Header.Get("Content-Type"), "multipart/byteranges") || !bytes.Contains(r.body, body[3000000:3000010]) {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}
