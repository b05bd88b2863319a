package httpcache

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// t0 is when the responses of these tests were asked for and arrived.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is the HTTP-date d after t0.
func at(d time.Duration) string { return t0.Add(d).Format(http.TimeFormat) }

// header reads "Name: value" lines.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		h.Add(name, strings.TrimSpace(value))
	}
	return h
}

// get is a GET request with these header lines.
func get(lines ...string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, "http://origin.example/file", nil)
	if err != nil {
		panic(err)
	}
	r.Header = header(lines...)
	return r
}

// stored is a 200 to a plain GET that came at t0.
func stored(lines ...string) *Response { return answer(get(), 200, lines...) }

func answer(req *http.Request, status int, lines ...string) *Response {
	return NewResponse(req, status, header(lines...), t0, t0)
}

func method(name string, lines ...string) *http.Request {
	r := get(lines...)
	r.Method = name
	return r
}

func TestStorable(t *testing.T) {
	const lm = "Last-Modified: Sat, 28 Feb 2026 12:00:00 GMT"
	auth := get("Authorization: Basic x")
	for _, c := range []struct {
		section, name string
		req           *http.Request
		status        int
		lines         []string
		ok            bool
		why           string
	}{
		{"§3", "GET with max-age", get(), 200, []string{"Cache-Control: max-age=9"}, true, "max-age"},
		{"§3", "GET with Expires", get(), 200, []string{"Expires: " + at(time.Hour)}, true, "Expires"},
		{"§3", "GET with s-maxage", get(), 200, []string{"Cache-Control: s-maxage=9"}, true, "s-maxage"},
		{"§3", "HEAD", method("HEAD"), 200, []string{"Cache-Control: max-age=9"}, false, "method HEAD"},
		{"§3", "POST", method("POST"), 200, []string{"Cache-Control: max-age=9"}, false, "method POST"},
		{"§3", "interim", get(), 103, []string{"Cache-Control: max-age=9"}, false, "final"},
		{"§3", "unknown status with freshness", get(), 599, []string{"Cache-Control: max-age=9"}, true, "max-age"},
		{"§3", "unknown status without freshness", get(), 599, []string{lm}, false, "heuristically"},
		{"§3", "302 without freshness", get(), 302, []string{lm}, false, "heuristically"},
		{"§3", "404 by heuristic", get(), 404, []string{lm}, true, "heuristically"},
		{"§5.2.2.9", "302 marked public", get(), 302, []string{"Cache-Control: public", lm}, true, "heuristically"},
		{"§3", "no freshness, no validator", get(), 200, nil, false, "neither"},
		{"§3", "validator alone", get(), 200, []string{`ETag: "a"`}, true, "heuristically"},
		{"§3", "max-age=0 without validator", get(), 200, []string{"Cache-Control: max-age=0"}, false, "neither"},
		{"§3", "max-age=0 with validator", get(), 200, []string{"Cache-Control: max-age=0", `ETag: "a"`}, true, "max-age"},
		{"§4.2", "stale on arrival", get(), 200, []string{"Cache-Control: max-age=9", "Age: 10"}, false, "neither"},
		{"RFC 5861 §3", "only stale-while-revalidate", get(), 200, []string{"Cache-Control: max-age=0, stale-while-revalidate=9"}, true, "max-age"},
		{"§5.2.2.4", "no-cache without validator", get(), 200, []string{"Cache-Control: no-cache, max-age=9"}, false, "neither"},
		{"§5.2.2.4", "no-cache with validator", get(), 200, []string{"Cache-Control: no-cache", `ETag: "a"`}, true, ""},
		{"§5.2.2.5", "no-store", get(), 200, []string{"Cache-Control: No-StOrE, max-age=9"}, false, "no-store"},
		{"§5.2.1.5", "request no-store", get("Cache-Control: no-store"), 200, []string{"Cache-Control: max-age=9"}, false, "request no-store"},
		{"§5.2.2.7", "private", get(), 200, []string{"Cache-Control: private, max-age=9"}, false, "private"},
		{"§5.2.2.7", "private for one field", get(), 200, []string{`Cache-Control: private="x-me", max-age=9`}, true, ""},
		{"§5.2.2.7", "private for a field we need", get(), 200, []string{`Cache-Control: private="vary", max-age=9`}, false, "private"},
		{"§5.2.2.3", "must-understand, understood", get(), 200, []string{"Cache-Control: max-age=9, no-store, must-understand"}, true, ""},
		{"§5.2.2.3", "must-understand, not understood", get(), 599, []string{"Cache-Control: max-age=9, must-understand"}, false, "must-understand"},
		{"§3.5", "Authorization", auth, 200, []string{"Cache-Control: max-age=9"}, false, "Authorization"},
		{"§3.5", "Authorization, public", auth, 200, []string{"Cache-Control: max-age=9, public"}, true, ""},
		{"§3.5", "Authorization, s-maxage", auth, 200, []string{"Cache-Control: s-maxage=9"}, true, ""},
		{"§3.5", "Authorization, must-revalidate", auth, 200, []string{"Cache-Control: max-age=9, must-revalidate"}, true, ""},
		{"§4.1", "Vary: *", get(), 200, []string{"Cache-Control: max-age=9", "Vary: Foo, *"}, false, "Vary"},
		{"§7.3", "Set-Cookie with freshness", get(), 200, []string{"Cache-Control: max-age=9", "Set-Cookie: a=b"}, true, ""},
		{"§7.3", "Set-Cookie by heuristic", get(), 200, []string{lm, "Set-Cookie: a=b"}, false, "Set-Cookie"},
		{"§3.3", "206", get("Range: bytes=0-1"), 206, []string{"Cache-Control: max-age=9", "Content-Range: bytes 0-1/9"}, false, "part"},
		{"§3", "304", get(), 304, []string{"Cache-Control: max-age=9"}, false, "this request"},
		{"§3", "416", get(), 416, []string{"Cache-Control: max-age=9"}, false, "this request"},
		{"RFC 6585 §7.2", "429", get(), 429, []string{"Cache-Control: max-age=9"}, false, "this request"},
		{"RFC 9213 §2.2", "targeted freshness over no-store", get(), 200, []string{"Cache-Control: no-store", "CDN-Cache-Control: max-age=9"}, true, "CDN-Cache-Control max-age"},
		{"RFC 9213 §2.2", "targeted no-store over freshness", get(), 200, []string{"Cache-Control: max-age=9", "CDN-Cache-Control: no-store"}, false, "no-store"},
		{"RFC 9213 §2.2", "targeted private", get(), 200, []string{"Cache-Control: max-age=9", "CDN-Cache-Control: private"}, false, "private"},
		{"RFC 9213 §2.1", "invalid targeted field", get(), 200, []string{"Cache-Control: no-store", "CDN-Cache-Control: max-age=9, &&&"}, false, "no-store"},
		{"RFC 9213 §2.1", "wrong type", get(), 200, []string{"Cache-Control: no-store", `CDN-Cache-Control: max-age="9"`}, false, "neither"},
		{"§3.1", "Connection cannot hide private", get(), 200, []string{"Connection: cache-control", "Cache-Control: private, max-age=9"}, false, "private"},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			ok, why := Storable(c.req, answer(c.req, c.status, c.lines...))
			if ok != c.ok || !strings.Contains(why, c.why) {
				t.Errorf("got %v, %q; want %v, %q", ok, why, c.ok, c.why)
			}
		})
	}
}

func TestPublic(t *testing.T) {
	for name, c := range map[string]struct {
		resp *Response
		want bool
	}{
		"plain":               {stored("Cache-Control: max-age=9"), true},
		"Vary on coding":      {stored("Vary: accept-encoding, Accept-Encoding"), true},
		"Vary on more":        {stored("Vary: Accept-Encoding, Cookie"), false},
		"Vary on all":         {stored("Vary: *"), false},
		"Set-Cookie":          {stored("Set-Cookie: a=b"), false},
		"private":             {stored("Cache-Control: private"), false},
		"private, overridden": {stored("Cache-Control: private", "CDN-Cache-Control: max-age=9"), false},
		"targeted private":    {stored("CDN-Cache-Control: private"), false},
		"qualified private":   {stored(`Cache-Control: private="x"`), false},
		"no-store":            {stored("Cache-Control: no-store"), false},
		"Authorization":       {answer(get("Authorization: x"), 200, "Cache-Control: public, max-age=9"), false},
	} {
		if got := Public(c.resp); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestNewResponse(t *testing.T) {
	req := get("Foo: 1", "Authorization: Basic secret")
	given := header("Connection: a, close", "A: 1", "B: 2", "C: 3", "D: 4", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic",
		`Cache-Control: no-cache="b", private="c"`, "Vary: Foo", "Transfer-Encoding: chunked")
	before := given.Clone()
	r := NewResponse(req, 200, given, t0, t0.Add(time.Second))
	want := header("D: 4", `Cache-Control: no-cache="b", private="c"`, "Vary: Foo", "Date: "+at(time.Second))
	if !reflect.DeepEqual(r.Header, want) {
		t.Errorf("§3.1: header %v, want %v", r.Header, want)
	}
	if !reflect.DeepEqual(given, before) {
		t.Error("changed its argument")
	}
	if !r.Authorized || r.Variant == "" {
		t.Errorf("authorized %v, variant %q", r.Authorized, r.Variant)
	}
	encoded, err := json.Marshal(r)
	if err != nil || strings.Contains(string(encoded), "secret") {
		t.Fatalf("encoded %s, %v", encoded, err)
	}
	var back Response
	if err := json.Unmarshal(encoded, &back); err != nil || !reflect.DeepEqual(&back, r) {
		t.Errorf("decoded %+v, %v; want %+v", back, err, r)
	}
	if r := NewResponse(get(), 200, header("Date: foo"), t0, t0); r.Header.Get("Date") != at(0) {
		t.Errorf("RFC 9110 §6.6.1: an invalid Date was left: %v", r.Header)
	}
	if r := NewResponse(get(), 200, nil, t0, t0); r.Header.Get("Date") != at(0) {
		t.Errorf("no header at all: %v", r.Header)
	}
}

func TestWithheld(t *testing.T) {
	for _, c := range []struct {
		section string
		lines   []string
		want    http.Header
	}{
		{"§5.2.2.7", []string{`Cache-Control: private="a, b"`, "A: 1", "A: 2", "C: 3"}, header("A: 1", "A: 2")},
		{"§5.2.2.4", []string{`Cache-Control: no-cache="a"`, "A: 1"}, header("A: 1")},
		{"§5.2.2.7", []string{"Cache-Control: private", "A: 1"}, header()},
		{"RFC 9213 §2.2", []string{`Cache-Control: private="a"`, "CDN-Cache-Control: max-age=1", "A: 1"}, header()},
	} {
		if got := Withheld(header(c.lines...)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %q: got %v, want %v", c.section, c.lines, got, c.want)
		}
	}
}
