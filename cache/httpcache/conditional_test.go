package httpcache

import (
	"net/http"
	"testing"
	"time"
)

func TestEvaluateConditional(t *testing.T) {
	const h = time.Hour
	lines := func(s ...string) []string { return s }
	plain := lines(`ETag: "a"`, "Last-Modified: "+at(-10*h))
	for _, c := range []struct {
		section, name string
		method        string
		resp, req     []string
		want          int
	}{
		{"§13.1.2", "strong match", "GET", plain, lines(`If-None-Match: "a"`), 304},
		{"§13.1.2", "no match", "GET", plain, lines(`If-None-Match: "b"`), 200},
		{"§13.1.2", "in a list", "HEAD", plain, lines(`If-None-Match: "x, y", "a"`), 304},
		{"§13.1.2", "in another line", "GET", plain, lines(`If-None-Match: "x"`, `If-None-Match: W/"a"`), 304},
		{"§13.1.2", "star", "GET", lines(), lines(`If-None-Match: *`), 304},
		{"§13.1.2", "star in quotes", "GET", plain, lines(`If-None-Match: "*"`), 200},
		{"§13.1.2", "weak comparison", "GET", lines(`ETag: W/"a"`), lines(`If-None-Match: "a"`), 304},
		{"§13.1.2", "no tag to match", "GET", lines(), lines(`If-None-Match: W/`), 200},
		{"§13.1.2", "unsafe", "PUT", plain, lines(`If-None-Match: "a"`), 412},
		{"§13.1.2", "unsafe, no match", "PUT", plain, lines(`If-None-Match: "b"`), 200},
		{"§13.1.3", "same date", "GET", plain, lines("If-Modified-Since: " + at(-10*h)), 304},
		{"§13.1.3", "later date", "GET", plain, lines("If-Modified-Since: " + at(-9*h)), 304},
		{"§13.1.3", "earlier date", "GET", plain, lines("If-Modified-Since: " + at(-11*h)), 200},
		{"§13.1.3", "RFC 850 date", "GET", plain, lines("If-Modified-Since: Sunday, 01-Mar-26 02:00:00 GMT"), 304},
		{"§13.1.3", "invalid date", "GET", plain, lines("If-Modified-Since: yesterday"), 200},
		{"§13.1.3", "two dates", "GET", plain, lines("If-Modified-Since: "+at(0), "If-Modified-Since: "+at(0)), 200},
		{"§13.1.3", "only GET and HEAD", "POST", plain, lines("If-Modified-Since: " + at(0)), 200},
		{"RFC 9111 §4.3.2", "by Date", "GET", lines(), lines("If-Modified-Since: " + at(0)), 304},
		{"RFC 9111 §4.3.2", "by Date, earlier", "GET", lines(), lines("If-Modified-Since: " + at(-h)), 200},
		{"§13.2.2", "tag before date", "GET", plain, lines(`If-None-Match: "b"`, "If-Modified-Since: "+at(0)), 200},
		{"§13.2.2", "tag before date, match", "GET", plain, lines(`If-None-Match: "a"`, "If-Modified-Since: "+at(-11*h)), 304},
		{"§13.1.1", "match", "GET", plain, lines(`If-Match: "b", "a"`), 200},
		{"§13.1.1", "no match", "GET", plain, lines(`If-Match: "b"`), 412},
		{"§13.1.1", "star", "GET", plain, lines(`If-Match: *`), 200},
		{"§13.1.1", "strong comparison", "GET", lines(`ETag: W/"a"`), lines(`If-Match: W/"a"`), 412},
		{"§13.1.4", "unmodified", "GET", plain, lines("If-Unmodified-Since: " + at(-10*h)), 200},
		{"§13.1.4", "modified", "GET", plain, lines("If-Unmodified-Since: " + at(-11*h)), 412},
		{"§13.1.4", "no date to compare", "GET", lines(), lines("If-Unmodified-Since: " + at(-11*h)), 200},
		{"§13.2.2", "If-Match before If-Unmodified-Since", "GET", plain, lines(`If-Match: "a"`, "If-Unmodified-Since: "+at(-11*h)), 200},
		{"§13.2.2", "If-Match, then If-None-Match", "GET", plain, lines(`If-Match: "a"`, `If-None-Match: "a"`), 304},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			if got := EvaluateConditional(method(c.method, c.req...), stored(c.resp...)); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	if got := EvaluateConditional(get(`If-None-Match: "a"`), answer(get(), 404, `ETag: "a"`)); got != 404 {
		t.Errorf("§13.2.1: a 404 became %d", got)
	}
	origin := &Response{Status: 200, Header: http.Header{}}
	if got := EvaluateConditional(get("If-Modified-Since: "+at(0)), origin); got != 200 {
		t.Errorf("§13.1.3: no date at all: got %d", got)
	}
}

func TestIfRange(t *testing.T) {
	old, now := "Last-Modified: "+at(-time.Second), "Last-Modified: "+at(0)
	for name, c := range map[string]struct {
		resp *Response
		want string
	}{
		"strong tag":             {stored(`ETag: "a"`, old), `"a"`},
		"weak tag forbids dates": {stored(`ETag: W/"a"`, old), ""},
		"not a tag":              {stored(`ETag: a`), ""},
		"date":                   {stored(old), at(-time.Second)},
		"date not yet strong":    {stored(now), ""},
		"nothing":                {stored(), ""},
	} {
		if got := IfRange(c.resp); got != c.want {
			t.Errorf("RFC 9110 §13.1.5: %s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestCombinable(t *testing.T) {
	tag, weak := stored(`ETag: "a"`), stored(`ETag: W/"a"`)
	date := stored("Last-Modified: Sun, 01 Mar 2026 02:00:00 GMT")
	for _, c := range []struct {
		name string
		a, b *Response
		want bool
	}{
		{"same tag", tag, stored(`ETag: "a"`, "Last-Modified: "+at(-time.Hour)), true},
		{"other tag", tag, stored(`ETag: "b"`), false},
		{"weak tag", weak, weak, false},
		{"same date, another format", date, stored("Last-Modified: Sunday, 01-Mar-26 02:00:00 GMT"), true},
		{"other date", date, stored("Last-Modified: " + at(-time.Hour)), false},
		{"date and tag", date, tag, false},
		{"nothing", stored(), stored(), false},
	} {
		if got := Combinable(c.a, c.b); got != c.want {
			t.Errorf("§3.4: %s: got %v", c.name, got)
		}
	}
}
