package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAnswers is the table of what goes to the origin and what does not. Each
// row sends requests one after the other; want is "status cache-status-part".
func TestAnswers(t *testing.T) {
	type ask struct {
		method, path string
		fields       []string
		want         string
	}
	text := func(control string, more ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", control)
			for i := 0; i+1 < len(more); i += 2 {
				w.Header().Set(more[i], more[i+1])
			}
			http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("0123456789"))
		}
	}
	var n atomic.Int64
	for name, row := range map[string]struct {
		site http.HandlerFunc
		asks []ask
		hits int // requests at the origin
	}{
		"fresh": {text("max-age=60"), []ask{
			{"GET", "/a", nil, "200 stored"},
			{"GET", "/a", nil, "200 hit"},
			{"HEAD", "/a", nil, "200 hit"},
			{"GET", "/a?q", nil, "200 uri-miss"},
		}, 2},
		"no-store": {text("no-store"), []ask{
			{"GET", "/a", nil, "200 no-store"}, {"GET", "/a", nil, "200 fwd=uri-miss"},
		}, 2},
		"no validator, no freshness": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") }, []ask{
			{"GET", "/a", nil, "200 uri-miss"}, {"GET", "/a", nil, "200 uri-miss"},
		}, 2},
		"stale and still the same": {text("max-age=0", "ETag", `"e"`), []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd=stale; fwd-status=304"}, {"HEAD", "/a", nil, "200 fwd-status=304"},
		}, 3},
		"stale and changed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=0")
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n.Add(1)))
			fmt.Fprint(w, "x")
		}, []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd=stale; fwd-status=200; stored"},
		}, 2},
		"conditional": {text("max-age=60", "ETag", `"e"`, "Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), []ask{
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 stored"}, // cold: fetched whole, then evaluated
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 hit"},
			{"GET", "/a", []string{`If-None-Match: "f"`}, "200 hit"},
			{"GET", "/a", []string{"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"}, "304 hit"},
			{"GET", "/a", []string{"If-Modified-Since: Sun, 06 Nov 1993 08:49:37 GMT"}, "200 hit"},
			{"GET", "/a", []string{`If-Match: "zzz"`}, "412 fwd=request"}, // the origin's to say
		}, 2},
		"ranges": {text("max-age=60", "ETag", `"e"`), []ask{
			{"GET", "/a", []string{"Range: bytes=2-4"}, "206 stored 2-4/10"},
			{"GET", "/a", []string{"Range: bytes=-3"}, "206 hit 7-9/10"},
			{"GET", "/a", []string{"Range: bytes=8-"}, "206 hit 8-9/10"},
			{"GET", "/a", []string{"Range: bytes=20-"}, "416 nothing of it is within 10 bytes"},
			{"GET", "/a", []string{"Range: bytes=4-2"}, "400 ends before it starts"},
			{"GET", "/a", []string{"Range: bytes=x"}, "400 is not first-last"},
			{"GET", "/a", []string{"Range: lines=1-2"}, "200 hit"},
			{"GET", "/a", []string{"Range: bytes=2-4", `If-Range: "e"`}, "206 hit"},
			{"GET", "/a", []string{"Range: bytes=2-4", `If-Range: "f"`}, "200 hit"},
		}, 1},
		"range of what is not stored": {text("no-store", "ETag", `"e"`), []ask{
			{"GET", "/a", []string{"Range: bytes=2-4"}, "206 2-4/10"},
			{"GET", "/a", []string{"Range: bytes=2-4"}, "206 2-4/10"},
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 fwd"},
		}, 3},
		"condition of what is not stored": {text("no-store", "ETag", `"e"`), []ask{
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 no-store"},
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 fwd=uri-miss; fwd-status=304"},
		}, 2},
		"vary": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "X-Kind")
			text("max-age=60")(w, r)
		}, []ask{
			{"GET", "/a", []string{"X-Kind: one"}, "200 uri-miss"},
			{"GET", "/a", []string{"X-Kind: two"}, "200 vary-miss"},
			{"GET", "/a", []string{"X-Kind: one"}, "200 hit"},
			{"GET", "/a", []string{"X-Kind: two"}, "200 hit"},
			{"GET", "/a", nil, "200 vary-miss"},
		}, 3},
		"head alone is not stored": {text("max-age=60"), []ask{
			{"HEAD", "/a", nil, "200 uri-miss"}, {"HEAD", "/a", nil, "200 uri-miss"}, {"GET", "/a", nil, "200 stored"},
		}, 3},
		"authorization": {text("max-age=60"), []ask{
			{"GET", "/a", []string{"Authorization: x"}, "200 Authorization"}, {"GET", "/a", nil, "200 stored"},
		}, 2},
		"authorization, public": {text("public, max-age=60"), []ask{
			{"GET", "/a", []string{"Authorization: x"}, "200 stored"}, {"GET", "/a", nil, "200 hit"},
		}, 1},
		"reload": {text("max-age=60", "ETag", `"e"`), []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", []string{"Cache-Control: no-cache"}, "200 fwd=request; fwd-status=304"}, {"GET", "/a", nil, "200 hit"},
		}, 2},
		"only-if-cached": {text("max-age=60"), []ask{{"GET", "/a", []string{"Cache-Control: only-if-cached"}, "504 only-if-cached"}}, 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			http.Redirect(w, r, "/b", http.StatusFound)
		}, []ask{{"GET", "/a", nil, "302 stored"}, {"GET", "/a", nil, "302 hit"}}, 1},
		"not found, for a while": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			http.Error(w, "no", http.StatusNotFound)
		}, []ask{{"GET", "/a", nil, "404 stored"}, {"GET", "/a", nil, "404 hit"}}, 1},
		"unsafe method": {text("max-age=60"), []ask{
			{"GET", "/a", nil, "200 stored"}, {"POST", "/a", nil, "200 fwd=method"}, {"GET", "/a", nil, "200 uri-miss"},
		}, 3},
		"unsafe method drops every variant": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "X-Kind")
			text("max-age=60")(w, r)
		}, []ask{
			{"GET", "/a", []string{"X-Kind: one"}, "200 stored"},
			{"GET", "/a", []string{"X-Kind: two"}, "200 stored"},
			{"DELETE", "/a", nil, "200 fwd=method"},
			{"GET", "/a", []string{"X-Kind: two"}, "200 uri-miss"},
			{"GET", "/a", []string{"X-Kind: one"}, "200 vary-miss"},
		}, 5},
		"stale if error": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
			text("max-age=0, stale-if-error=60", "ETag", `"e"`)(w, r)
		}, []ask{{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd-status=503"}}, 2},
		"error passes": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
			text("max-age=0", "ETag", `"e"`)(w, r)
		}, []ask{{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "503 fwd-status=503"}}, 2},
		"304 of something else": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				w.Header().Set("ETag", `"other"`)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			text("max-age=0", "ETag", `"e"`)(w, r)
		}, []ask{{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd-status=200; stored"}}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, row.site)
			b := simpleBox(t)
			for i, a := range row.asks {
				r := b.do(a.method, s.URL+a.path, a.fields...)
				got := fmt.Sprint(r.StatusCode, " ", r.status(), " ", r.Header.Get("Content-Range"))
				status, parts, _ := strings.Cut(a.want, " ")
				ok := strings.HasPrefix(got, status) && r.err == nil
				for _, part := range strings.Fields(parts) {
					ok = ok && strings.Contains(got+" "+string(r.body), part)
				}
				if !ok {
					t.Errorf("request %d: got %q (%v), want %q", i, got, r.err, a.want)
				}
				if r.StatusCode == 304 && len(r.body) > 0 {
					t.Errorf("request %d: 304 with a body", i)
				}
				b.settle()
			}
			if n := len(s.requests()); n != row.hits {
				t.Errorf("%d requests at the origin, want %d", n, row.hits)
			}
		})
	}
}

// An origin that believes X-Forwarded-Host would else put one client's word
// into the answer of all.
func TestAClientCannotShapeTheSharedAnswer(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		for _, name := range []string{"X-Forwarded-Host", "Forwarded", "X-Original-URL", "X-HTTP-Method-Override", "Host"} {
			fmt.Fprint(w, r.Header.Get(name))
		}
		fmt.Fprint(w, r.Host)
	})
	b := simpleBox(t)
	want := strings.TrimPrefix(s.URL, "http://")
	first := b.get(s.URL+"/", "X-Forwarded-Host: evil", "Forwarded: host=evil", "X-Original-URL: /evil", "X-HTTP-Method-Override: evil", "Host: evil")
	if string(first.body) != want {
		t.Errorf("%q", first.body)
	}
	raw := b.raw("GET " + s.URL + "/raw HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n")
	if !strings.HasSuffix(raw, want) {
		t.Errorf("%q", raw)
	}
}
