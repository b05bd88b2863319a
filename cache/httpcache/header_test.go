package httpcache

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStripHopByHop(t *testing.T) {
	h := header("Connection: close, X-Mine, authorization", "Connection: Te", "X-Mine: 1", "Authorization: a", "Te: trailers", "Trailer: x",
		"Keep-Alive: 5", "Proxy-Connection: keep-alive", "Proxy-Authorization: b", "Upgrade: h2c", "Transfer-Encoding: chunked", "X-Kept: 1")
	StripHopByHop(h)
	if want := header("Authorization: a", "X-Kept: 1"); !reflect.DeepEqual(h, want) {
		t.Errorf("RFC 9110 §7.6.1: got %v, want %v", h, want)
	}
}

func TestAddVia(t *testing.T) {
	h := header()
	AddVia(h, "HTTP/1.1", "box")
	AddVia(h, "HTTP/2.0", "box2")
	if got := h.Values("Via"); !reflect.DeepEqual(got, []string{"1.1 box, 2.0 box2"}) {
		t.Errorf("RFC 9110 §7.6.3: %q", got)
	}
}

func TestResponseHeader(t *testing.T) {
	r := stored("Age: 30", "A: 1")
	got := ResponseHeader(r, 35*time.Second+900*time.Millisecond)
	if got.Get("Age") != "35" || got.Get("A") != "1" || got.Get("Date") != at(0) || r.Header.Get("Age") != "30" {
		t.Errorf("§5.1: %v", got)
	}
	if got := ResponseHeader(r, 1<<62); got.Get("Age") != "2147483648" {
		t.Errorf("§1.2.2: %v", got)
	}
	got = header(`ETag: "a"`, "Date: "+at(0), "Cache-Control: max-age=1", "Content-Length: 5", "Content-Type: text/plain", "Vary: A")
	NotModifiedHeader(got)
	if want := header(`ETag: "a"`, "Date: "+at(0), "Cache-Control: max-age=1", "Vary: A"); !reflect.DeepEqual(got, want) {
		t.Errorf("RFC 9110 §15.4.5: %v", got)
	}
	got = header("Range: bytes=0-1", "If-Range: x", `If-None-Match: "a"`, "If-Modified-Since: x", "If-Match: *", "If-Unmodified-Since: x", "A: 1")
	StripConditional(got)
	if want := header("A: 1"); !reflect.DeepEqual(got, want) {
		t.Errorf("StripConditional: %v", got)
	}
}

func TestCacheStatus(t *testing.T) {
	for want, s := range map[string]CacheStatus{
		`cistern`:                             {},
		`cistern;hit;ttl=376`:                 {Hit: true, Fwd: FwdStale, FwdStatus: 200, TTL: 376*time.Second + 999*time.Millisecond, HasTTL: true},
		`cistern;hit;ttl=-12`:                 {Hit: true, TTL: -12 * time.Second, HasTTL: true},
		`cistern;fwd=uri-miss;stored`:         {Fwd: FwdURIMiss, Stored: true},
		`cistern;fwd=stale;fwd-status=304`:    {Fwd: FwdStale, FwdStatus: 304},
		`cistern;fwd=uri-miss;collapsed`:      {Fwd: FwdURIMiss, Collapsed: true},
		`cistern;hit;key="http://a/?q=\"\\"`:  {Hit: true, Key: `http://a/?q="\`},
		`cistern;fwd=bypass;detail="un??i d"`: {Fwd: FwdBypass, Detail: "un\nüi d"},
	} {
		if got := s.String(); got != want {
			t.Errorf("RFC 9211 §2: got %s, want %s", got, want)
		}
	}
	h := header("Cache-Status: ExampleCache; hit")
	CacheStatus{Fwd: FwdMiss}.AppendTo(h)
	if got := strings.Join(h.Values("Cache-Status"), ", "); got != "ExampleCache; hit, cistern;fwd=miss" {
		t.Errorf("RFC 9211 §2: %s", got)
	}
}
