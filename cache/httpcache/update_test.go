package httpcache

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestFreshen(t *testing.T) {
	old := answer(get("Foo: 1"), 200, "Cache-Control: max-age=1", `ETag: "a"`, "Content-Length: 9", "Content-Encoding: gzip", "Content-MD5: a", "Age: 50", "X-Old: 1", "X-Both: 1", "Vary: Foo")
	before := *old
	before.Header = old.Header.Clone()
	later := t0.Add(time.Minute)
	fresh := NewResponse(get("Foo: 1"), 304, header("Cache-Control: max-age=7", `ETag: "a"`, "Content-Length: 0", "Content-Encoding: br", "Content-MD5: b", "X-Both: 2", "Connection: x-hop", "X-Hop: 1", "Set-Cookie: a=b"), later, later)
	got, ok := Freshen(old, fresh)
	want := &Response{Status: 200, Requested: later, Received: later, Variant: old.Variant, Header: header("Cache-Control: max-age=7", `ETag: "a"`, "Content-Length: 9",
		"Content-Encoding: gzip", "Content-MD5: a", "X-Old: 1", "X-Both: 2", "Vary: Foo", "Set-Cookie: a=b", "Date: "+at(time.Minute))}
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("§3.2: got %+v, %v\nwant %+v", got, ok, want)
	}
	if !reflect.DeepEqual(*old, before) {
		t.Error("changed the stored response")
	}
	if age := CurrentAge(got, later); age != 0 {
		t.Errorf("§4.3.4: age %v after validation", age)
	}
	moved := NewResponse(get("Bar: 1"), 304, header(`ETag: "a"`, "Vary: Bar"), later, later)
	if got, ok := Freshen(old, moved); !ok || !MatchesVary(get("Bar: 1"), got) {
		t.Errorf("§4.3.4: a new Vary is not followed: %+v", got)
	}
}

// TestFreshenWithholds: a 304 without Cache-Control may bring a field that the
// stored one keeps from others.
func TestFreshenWithholds(t *testing.T) {
	old := stored(`Cache-Control: max-age=1, no-cache="set-cookie"`, `ETag: "a"`)
	got, ok := Freshen(old, answer(get(), 304, `ETag: "a"`, "Set-Cookie: a=b", "X-Old: 1"))
	if !ok || got.Header.Get("Set-Cookie") != "" || got.Header.Get("X-Old") != "1" {
		t.Errorf("§5.2.2.4: %+v, %v", got, ok)
	}
}

func TestFreshenSelects(t *testing.T) {
	const lm, lm2 = "Last-Modified: Sun, 01 Mar 2026 02:00:00 GMT", "Last-Modified: Sun, 01 Mar 2026 03:00:00 GMT"
	lines := func(s ...string) []string { return s }
	for _, c := range []struct {
		section, name string
		stored        []string
		status        int
		fresh         []string
		want          bool
	}{
		{"§4.3.4", "same strong tag", lines(`ETag: "a"`), 304, lines(`ETag: "a"`), true},
		{"§4.3.4", "other strong tag", lines(`ETag: "a"`, lm), 304, lines(`ETag: "b"`, lm), false},
		{"§4.3.4", "same weak tag", lines(`ETag: W/"a"`), 304, lines(`ETag: W/"a"`), true},
		{"§4.3.4", "other weak tag", lines(`ETag: W/"a"`), 304, lines(`ETag: W/"b"`), false},
		{"§4.3.4", "strong tag for a stored weak one", lines(`ETag: W/"a"`), 304, lines(`ETag: "a"`), false},
		{"§4.3.4", "the same with the same date", lines(`ETag: W/"a"`, lm), 304, lines(`ETag: "a"`, lm), true},
		{"§4.3.4", "same date", lines(lm), 304, lines(lm), true},
		{"§4.3.4", "other date", lines(lm), 304, lines(lm2), false},
		{"§4.3.4", "tag where none is stored", nil, 304, lines(`ETag: "a"`), false},
		{"§4.3.4", "no validator", lines(`ETag: "a"`, lm), 304, nil, true},
		{"§4.3.5", "HEAD, same tag", lines(`ETag: "a"`), 200, lines(`ETag: "a"`), true},
		{"§4.3.5", "HEAD, same length", lines("Content-Length: 5"), 200, lines("Content-Length: 5"), true},
		{"§4.3.5", "HEAD, other length", lines(`ETag: "a"`, "Content-Length: 5"), 200, lines(`ETag: "a"`, "Content-Length: 6"), false},
		{"§4.3.5", "HEAD, other status", lines(`ETag: "a"`), 410, lines(`ETag: "a"`), false},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			if got, ok := Freshen(stored(c.stored...), answer(get(), c.status, c.fresh...)); ok != c.want || ok != (got != nil) {
				t.Errorf("got %v", ok)
			}
		})
	}
}

func TestInvalidatesOn(t *testing.T) {
	target := "http://origin.example/file"
	for _, c := range []struct {
		section, method string
		status          int
		lines, want     []string
	}{
		{"§4.4 unsafe", "PUT", 204, nil, []string{target}},
		{"§4.4 unknown", "FOO", 200, nil, []string{target}},
		{"§4.4 redirect", "POST", 303, []string{"Location: other"}, []string{target, "http://origin.example/other"}},
		{"§4.4 both fields", "POST", 201, []string{"Location: /a", "Content-Location: http://ORIGIN.example:80/b"}, []string{target, "http://origin.example/a", "http://origin.example/b"}},
		{"§4.4 the same again", "POST", 201, []string{"Location: /file"}, []string{target}},
		{"§4.4 other host", "POST", 201, []string{"Location: http://other.example/a"}, []string{target}},
		{"§4.4 other scheme", "POST", 201, []string{"Location: https://origin.example/a"}, []string{target}},
		{"§4.4 bad URL", "POST", 201, []string{"Location: http://[", "Content-Location: http://u@origin.example/"}, []string{target}},
		{"§4.4 error", "PUT", 500, nil, nil},
		{"§4.4 client error", "PUT", 404, nil, nil},
		{"§4.4 safe", "GET", 200, []string{"Location: /a"}, nil},
		{"§4.4 safe", "OPTIONS", 200, nil, nil},
		{"§4.4 tunnel", "CONNECT", 200, nil, nil},
	} {
		req := &http.Request{Method: c.method, Header: http.Header{}}
		req.URL, _ = url.Parse(target)
		if got := InvalidatesOn(req, answer(req, c.status, c.lines...)); !slices.Equal(got, c.want) {
			t.Errorf("%s %s %d: got %q, want %q", c.section, c.method, c.status, got, c.want)
		}
	}
	req := &http.Request{Method: "PUT", URL: &url.URL{Path: "/x"}}
	if got := InvalidatesOn(req, answer(get(), 200)); got != nil {
		t.Errorf("relative URL: got %q", got)
	}
}
