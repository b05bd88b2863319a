package proxy

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/journal"
)

// past waits until the journal has n entries of a URL, and gives the newest.
func (b *box) past(url string, n int) journal.Entry {
	b.t.Helper()
	for range 500 {
		if list := b.Past(journal.Query{URL: url}); len(list) >= n {
			return list[0]
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("the journal lacks entry %d of %s: %+v", n, url, b.Past(journal.Query{}))
	return journal.Entry{}
}

// ended is an entry in words: status, then what Cache-Status would say.
func ended(e journal.Entry) string {
	words := []string{fmt.Sprint(e.Status)}
	if e.Hit {
		words = append(words, "hit")
	}
	if e.Fwd != "" {
		words = append(words, "fwd="+e.Fwd)
	}
	if e.FwdStatus != 0 {
		words = append(words, fmt.Sprint("fwd-status=", e.FwdStatus))
	}
	if e.Stored {
		words = append(words, "stored")
	}
	if e.Collapsed {
		words = append(words, "collapsed")
	}
	return strings.Join(words, " ")
}

// answering gives a handler that answers as it is told, a text and its header. A
// validator makes it answer 304; with "Status: N" it answers that, and with
// "Then: N" it does so from the second request on.
func answering(fields ...string) http.HandlerFunc {
	var mu sync.Mutex
	asked := 0
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		status := 200
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			switch {
			case name == "Then" && asked > 1:
				_, _ = fmt.Sscan(value, &status)
			case name == "Then":
			case value == "changes":
				w.Header().Set(name, fmt.Sprintf("%q", fmt.Sprint(asked)))
			default:
				w.Header().Set(name, value)
			}
		}
		if status != 200 {
			w.WriteHeader(status)
			return
		}
		http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("0123456789"))
	}
}

// TestOutcomesAreExplained is the table of how requests end, and of which rule of
// which document is said to have decided. All requests of a row but the last one
// prepare it.
func TestOutcomesAreExplained(t *testing.T) {
	old := "Last-Modified: " + time.Now().Add(-1000*time.Hour).UTC().Format(http.TimeFormat)
	get := []string{"GET"}
	with := func(fields ...string) []string { return append([]string{"GET"}, fields...) }
	for _, c := range []struct {
		name     string
		site     http.HandlerFunc
		asks     [][]string // method and fields
		want     string     // outcome
		why      string
		detail   string
		bodiless bool // no object has the answer
	}{
		{"miss, cold", answering("Cache-Control: max-age=60"), [][]string{get}, "200 fwd=uri-miss fwd-status=200 stored", "nothing stored for this URL (RFC 9111 §4)", "", false},
		{"hit, fresh", answering("Cache-Control: max-age=60"), [][]string{get, get}, "200 hit", "fresh by max-age (RFC 9111 §4.2.1)", "", false},
		{"hit, fresh, not plain", answering("Cache-Control: s-maxage=60"), [][]string{get, with("X-Unknown: 1")}, "200 hit", "fresh by s-maxage (RFC 9111 §4.2.1)", "", false},
		{"hit, heuristic", answering(old), [][]string{get, get}, "200 hit", "fresh by heuristic: a tenth of the time from Last-Modified to Date, at most a day (RFC 9111 §4.2.2)", "", false},
		{"hit, by Expires", answering("Expires: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)), [][]string{get, get}, "200 hit", "fresh by Expires (RFC 9111 §4.2.1)", "", false},
		{"hit, targeted", answering("CDN-Cache-Control: max-age=60", "Cache-Control: no-store"), [][]string{get, get}, "200 hit", "fresh by CDN-Cache-Control max-age (RFC 9213 §2.2)", "", false},
		{"hit, immutable", answering("Cache-Control: max-age=60, immutable", "Age: 9"), [][]string{get, with("Cache-Control: max-age=0")}, "200 hit", "immutable, which a reload does not doubt (RFC 8246 §2.1)", "", false},
		{"hit, a part", answering("Cache-Control: max-age=60"), [][]string{get, with("Range: bytes=2-4")}, "206 hit", "fresh by max-age", "", false},
		{"hit, not modified", answering("Cache-Control: max-age=60", `ETag: "e"`), [][]string{get, with(`If-None-Match: "e"`)}, "304 hit", "fresh by max-age", "", false},
		{"hit, a part that there is not", answering("Cache-Control: max-age=60"), [][]string{get, with("Range: bytes=20-")}, "416 hit", "fresh by max-age", "nothing of it is within 10 bytes", false},
		{"hit, HEAD", answering("Cache-Control: max-age=60"), [][]string{get, {"HEAD"}}, "200 hit", "fresh by max-age", "", false},
		{"hit, stale while it is revalidated", answering("Cache-Control: max-age=5, stale-while-revalidate=60", "Age: 9"), [][]string{get, get}, "200 hit", "stale-while-revalidate (RFC 5861 §3)", "", false},
		{"hit, stale as the client allows", answering("Cache-Control: max-age=5", "Age: 9", `ETag: "e"`), [][]string{get, with("Cache-Control: max-stale")}, "200 hit", "request max-stale (RFC 9111 §5.2.1.2)", "", false},
		{"stale, the origin fails", answering("Cache-Control: max-age=5, stale-if-error=60", "Age: 9", "Then: 503"), [][]string{get, get}, "200 fwd=stale fwd-status=503", "stale by max-age (RFC 9111 §4.2.1)", "stale-if-error (RFC 5861 §4)", false},
		{"stale, the origin fails, and nothing allows it", answering("Cache-Control: max-age=5", "Age: 9", `ETag: "e"`, "Then: 503"), [][]string{get, get}, "503 fwd=stale fwd-status=503 stored", "stale by max-age", "", false},
		{"revalidated, 304", answering("Cache-Control: max-age=0", `ETag: "e"`), [][]string{get, get}, "200 fwd=stale fwd-status=304", "stale by max-age (RFC 9111 §4.2.1)", "", false},
		{"revalidated, changed", answering("Cache-Control: max-age=0", "ETag: changes"), [][]string{get, get}, "200 fwd=stale fwd-status=200 stored", "stale by max-age", "", false},
		{"revalidated, as the response asks", answering("Cache-Control: max-age=60, no-cache", `ETag: "e"`), [][]string{get, get}, "200 fwd=stale fwd-status=304", "response no-cache (RFC 9111 §5.2.2.4)", "", false},
		{"revalidated, must", answering("Cache-Control: max-age=5, must-revalidate", "Age: 9", `ETag: "e"`), [][]string{get, get}, "200 fwd=stale fwd-status=304", "must-revalidate asks for validation (RFC 9111 §4.2.4)", "", false},
		{"reload", answering("Cache-Control: max-age=60", `ETag: "e"`), [][]string{get, with("Cache-Control: no-cache")}, "200 fwd=request fwd-status=304", "request no-cache (RFC 9111 §5.2.1.4)", "", false},
		{"reload, as of old", answering("Cache-Control: max-age=60", `ETag: "e"`), [][]string{get, with("Pragma: no-cache")}, "200 fwd=request fwd-status=304", "request no-cache (RFC 9111 §5.2.1.4)", "", false},
		{"too old for the client", answering("Cache-Control: max-age=60", "Age: 9", `ETag: "e"`), [][]string{get, with("Cache-Control: max-age=5")}, "200 fwd=request fwd-status=304", "older than the request's max-age (RFC 9111 §5.2.1.1)", "", false},
		{"not fresh for long enough", answering("Cache-Control: max-age=60", `ETag: "e"`), [][]string{get, with("Cache-Control: min-fresh=90")}, "200 fwd=request fwd-status=304", "min-fresh (RFC 9111 §5.2.1.3)", "", false},
		{"miss, no-store", answering("Cache-Control: no-store"), [][]string{get}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "no-store (RFC 9111 §5.2.2.5)", true},
		{"miss, the request's no-store", answering("Cache-Control: max-age=60"), [][]string{with("Cache-Control: no-store")}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "request no-store (RFC 9111 §5.2.1.5)", true},
		{"miss, private", answering("Cache-Control: private"), [][]string{get}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "private (RFC 9111 §5.2.2.7)", true},
		{"miss, Authorization", answering("Cache-Control: max-age=60"), [][]string{with("Authorization: x")}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "Authorization (RFC 9111 §3.5)", true},
		{"miss, Set-Cookie", answering(old, "Set-Cookie: a=b"), [][]string{get}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "Set-Cookie without explicit freshness (RFC 9111 §7.3)", true},
		{"miss, nothing to go by", answering(), [][]string{get}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "neither fresh nor has it a validator (RFC 9111 §3)", true},
		{"miss, another variant", answering("Cache-Control: max-age=60", "Vary: X-Kind"), [][]string{with("X-Kind: 1"), with("X-Kind: 2")}, "200 fwd=vary-miss fwd-status=200 stored", "another variant is stored (RFC 9111 §4.1)", "", false},
		{"miss, Vary: *", answering("Cache-Control: max-age=60", "Vary: *"), [][]string{get}, "200 fwd=uri-miss fwd-status=200", "nothing stored", "Vary: * matches no later request (RFC 9111 §4.1)", true},
		{"unsafe method", answering("Cache-Control: max-age=60"), [][]string{{"POST"}}, "200 fwd=method fwd-status=200", "method POST is for the origin (RFC 9111 §4)", "", true},
		{"after an unsafe method", answering("Cache-Control: max-age=60"), [][]string{get, {"POST"}, get}, "200 fwd=uri-miss fwd-status=200 stored", "nothing stored for this URL", "", false},
		{"a method that caches do not answer", answering("Cache-Control: max-age=60"), [][]string{get, {"OPTIONS"}}, "200 fwd=method fwd-status=200", "method OPTIONS", "", true},
		{"a condition for the origin", answering("Cache-Control: max-age=60", `ETag: "e"`), [][]string{get, with(`If-Match: "f"`)}, "412 fwd=request fwd-status=412", "for the origin (RFC 9111 §4.3.2)", "", true},
		{"only-if-cached", answering("Cache-Control: max-age=60"), [][]string{with("Cache-Control: only-if-cached")}, "504", "only-if-cached (RFC 9111 §5.2.1.7), but nothing stored", "", true},
		{"a part, cold", answering("Cache-Control: max-age=60", `ETag: "e"`), [][]string{with("Range: bytes=2-4")}, "206 fwd=uri-miss", "nothing stored", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.site)
			b := simpleBox(t)
			url := s.URL + "/a"
			var r reply
			for _, ask := range c.asks {
				r = b.do(ask[0], url, ask[1:]...)
				b.settle()
			}
			e := b.past(url, len(c.asks))
			if got := ended(e); got != c.want && !strings.HasPrefix(got, c.want+" ") {
				t.Errorf("%q, want %q (%s)", got, c.want, r.status())
			}
			if !strings.Contains(e.Why, c.why) || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("why %q, want %q; detail %q, want %q", e.Why, c.why, e.Detail, c.detail)
			}
			if (e.Object == 0) != c.bodiless || e.Client.String() != "127.0.0.1" || e.Method != c.asks[len(c.asks)-1][0] || e.Bytes != int64(len(r.body)) {
				t.Errorf("%+v", e)
			}
			if e.Asked > e.Answered || e.Answered > e.Took || e.First > e.Took || e.At.IsZero() {
				t.Errorf("times: %+v", e)
			}
		})
	}
}

// What depends on more than one client, on the origin being gone, or on what may
// be reached.
func TestOutcomesOfTheWorld(t *testing.T) {
	t.Run("collapsed", func(t *testing.T) {
		gate := make(chan struct{})
		s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			<-gate
			answering("Cache-Control: max-age=60")(w, r)
		})
		b := simpleBox(t)
		var clients sync.WaitGroup
		for range 2 {
			clients.Go(func() { b.get(s.URL + "/a") })
		}
		for len(s.requests()) == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		close(gate)
		clients.Wait()
		b.past(s.URL+"/a", 2)
		said := map[string]bool{}
		for _, e := range b.Past(journal.Query{}) {
			said[ended(e)] = true
		}
		if !said["200 fwd=uri-miss fwd-status=200 stored collapsed"] || !said["200 fwd=uri-miss fwd-status=200 stored"] {
			t.Errorf("%v", said)
		}
	})
	t.Run("offline", func(t *testing.T) {
		s := newSite(t, answering("Cache-Control: max-age=5", "Age: 9", `ETag: "e"`))
		b := simpleBox(t)
		b.get(s.URL + "/a")
		b.settle()
		s.Close()
		b.get(s.URL + "/a")
		e := b.past(s.URL+"/a", 2)
		if ended(e) != "200 fwd=stale" || !strings.Contains(e.Detail, "disconnected (RFC 9111 §4.2.4)") || !strings.Contains(e.Why, "stale by max-age") {
			t.Errorf("%+v", e)
		}
		b.do("GET", s.URL+"/b")
		if e := b.past(s.URL+"/b", 1); ended(e) != "502 fwd=uri-miss" || !strings.Contains(e.Detail, "connection refused") || !e.Slow() {
			t.Errorf("%+v", e)
		}
	})
	t.Run("denied", func(t *testing.T) {
		s := newSite(t, answering("Cache-Control: max-age=60"))
		b := simpleBox(t)
		if _, err := b.store.Purge(s.URL+"/a", "a court said so", "test"); err != nil {
			t.Fatal(err)
		}
		b.do("GET", s.URL+"/a")
		if e := b.past(s.URL+"/a", 1); ended(e) != "451" || !strings.Contains(e.Detail, "a court said so") {
			t.Errorf("%+v", e)
		}
	})
	t.Run("forbidden", func(t *testing.T) {
		b := simpleBox(t)
		b.do("GET", "http://10.255.255.1/a")
		if e := b.past("http://10.255.255.1/a", 1); ended(e) != "403 fwd=uri-miss" || !strings.Contains(e.Detail, "10.255.255.1") {
			t.Errorf("%+v", e)
		}
	})
	t.Run("slow", func(t *testing.T) {
		s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(1100 * time.Millisecond)
			answering("Cache-Control: max-age=60")(w, r)
		})
		dir := t.TempDir()
		state := func(c *Config) { c.Dir = dir }
		b := newBox(t, filepath.Join(dir, "store"), loopback(t), state, nil)
		b.get(b.via(s, "/a"))
		b.past(s.URL+"/a", 1)
		b.stop()
		after := newBox(t, filepath.Join(dir, "store"), loopback(t), state, nil)
		e := after.past(s.URL+"/a", 1) // under the address outside, and over a restart
		if !e.Slow() || e.Answered < time.Second || e.First < e.Answered || e.Asked > time.Second || e.Took < e.First {
			t.Errorf("where the time went: %+v", e)
		}
	})
}
