package httpcache

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	const etag, lm = `ETag: "a"`, "Last-Modified: Sun, 01 Mar 2026 02:00:00 GMT"
	fresh := stored("Cache-Control: max-age=100", etag)
	both := header(`If-None-Match: "a"`, "If-Modified-Since: Sun, 01 Mar 2026 02:00:00 GMT")
	tag := header(`If-None-Match: "a"`)
	for _, c := range []struct {
		section, name string
		req           *http.Request
		stored        *Response
		later         int // seconds
		want          Verdict
	}{
		{"§4", "nothing stored", get(), nil, 0, Verdict{Action: Fetch, Fwd: FwdURIMiss}},
		{"§4", "unsafe method", method("PUT"), fresh, 0, Verdict{Action: Fetch, Fwd: FwdMethod}},
		{"§4", "HEAD from GET", method("HEAD"), fresh, 1, Verdict{Action: Serve, Age: 1, TTL: 99}},
		{"§4.1", "variant", get("Foo: 2"), answer(get("Foo: 1"), 200, "Vary: Foo", "Cache-Control: max-age=9"), 0, Verdict{Action: Fetch, Fwd: FwdVaryMiss}},
		{"§4.2", "fresh", get(), fresh, 99, Verdict{Action: Serve, Age: 99, TTL: 1}},
		{"§4.2", "as old as its lifetime", get(), fresh, 100, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 100, Conditional: tag}},
		{"§4.2", "stale without validator", get(), stored("Cache-Control: max-age=1"), 2, Verdict{Action: Fetch, Fwd: FwdStale, Age: 2, TTL: -1}},
		{"§4.3.1", "both validators", get(), stored("Cache-Control: max-age=1", etag, lm), 1, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 1, Conditional: both}},
		{"§4.3.1", "weak tag", get(), stored("Cache-Control: max-age=1", `ETag: W/"a"`), 1, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 1, Conditional: header(`If-None-Match: W/"a"`)}},
		{"§4.3.2", "If-Match", get(`If-Match: "a"`), fresh, 0, Verdict{Action: Fetch, Fwd: FwdRequest}},
		{"§4.3.2", "If-Unmodified-Since", get("If-Unmodified-Since: " + at(0)), fresh, 0, Verdict{Action: Fetch, Fwd: FwdRequest}},
		{"§4.3.2", "If-None-Match", get(`If-None-Match: "b"`), fresh, 0, Verdict{Action: Serve, TTL: 100}},
		{"§5.2.1.1", "max-age=0", get("Cache-Control: max-age=0"), fresh, 0, Verdict{Action: Revalidate, Fwd: FwdRequest, TTL: 100, Conditional: tag}},
		{"§5.2.1.1", "within max-age", get("Cache-Control: max-age=5"), fresh, 5, Verdict{Action: Serve, Age: 5, TTL: 95}},
		{"§5.2.1.1", "beyond max-age", get("Cache-Control: max-age=5"), fresh, 6, Verdict{Action: Revalidate, Fwd: FwdRequest, Age: 6, TTL: 94, Conditional: tag}},
		{"§5.2.1.1", "invalid max-age", get("Cache-Control: max-age=x"), fresh, 6, Verdict{Action: Revalidate, Fwd: FwdRequest, Age: 6, TTL: 94, Conditional: tag}},
		{"§5.2.1.2", "max-stale", get("Cache-Control: max-stale"), fresh, 900, Verdict{Action: Serve, Age: 900, TTL: -800, Stale: true}},
		{"§5.2.1.2", "within max-stale", get("Cache-Control: max-stale=9"), fresh, 109, Verdict{Action: Serve, Age: 109, TTL: -9, Stale: true}},
		{"§5.2.1.2", "beyond max-stale", get("Cache-Control: max-stale=9"), fresh, 110, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 110, TTL: -10, Conditional: tag}},
		{"§5.2.1.2", "invalid max-stale", get("Cache-Control: max-stale=x"), fresh, 110, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 110, TTL: -10, Conditional: tag}},
		{"§5.2.1.3", "min-fresh met", get("Cache-Control: min-fresh=90"), fresh, 10, Verdict{Action: Serve, Age: 10, TTL: 90}},
		{"§5.2.1.3", "min-fresh not met", get("Cache-Control: min-fresh=90"), fresh, 11, Verdict{Action: Revalidate, Fwd: FwdRequest, Age: 11, TTL: 89, Conditional: tag}},
		{"§5.2.1.4", "request no-cache", get("Cache-Control: no-cache"), fresh, 1, Verdict{Action: Revalidate, Fwd: FwdRequest, Age: 1, TTL: 99, Conditional: tag}},
		{"§5.2.1.5", "request no-store", get("Cache-Control: no-store"), fresh, 1, Verdict{Action: Serve, Age: 1, TTL: 99}},
		{"§5.2.1.7", "only-if-cached, stored", get("Cache-Control: only-if-cached"), fresh, 1, Verdict{Action: Serve, Age: 1, TTL: 99}},
		{"§5.2.1.7", "only-if-cached, not stored", get("Cache-Control: only-if-cached"), nil, 1, Verdict{Action: GatewayTimeout}},
		{"§5.2.1.7", "only-if-cached, stale", get("Cache-Control: only-if-cached"), fresh, 101, Verdict{Action: GatewayTimeout, Age: 101, TTL: -1}},
		{"§5.4", "Pragma", get("Pragma: no-cache"), fresh, 1, Verdict{Action: Revalidate, Fwd: FwdRequest, Age: 1, TTL: 99, Conditional: tag}},
		{"§5.4", "Pragma beside Cache-Control", get("Pragma: no-cache", "Cache-Control: max-age=9"), fresh, 1, Verdict{Action: Serve, Age: 1, TTL: 99}},
		{"§5.4", "other Pragma", get("Pragma: foo"), fresh, 1, Verdict{Action: Serve, Age: 1, TTL: 99}},
		{"§5.2.2.4", "no-cache", get(), stored("Cache-Control: No-Cache, max-age=100", etag), 1, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 1, TTL: 99, Conditional: tag}},
		{"§5.2.2.4", "no-cache for a field", get(), stored(`Cache-Control: no-cache="x-foo", max-age=100`), 1, Verdict{Action: Serve, Age: 1, TTL: 99}},
		{"§5.2.2.4", "no-cache, twice", get(), stored(`Cache-Control: no-cache="x-foo", no-cache, max-age=100`, etag), 1, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 1, TTL: 99, Conditional: tag}},
		{"§5.2.2.2", "must-revalidate, fresh", get(), stored("Cache-Control: max-age=9, must-revalidate"), 1, Verdict{Action: Serve, Age: 1, TTL: 8}},
		{"§5.2.2.2", "must-revalidate", get("Cache-Control: max-stale"), stored("Cache-Control: max-age=9, must-revalidate"), 10, Verdict{Action: Fetch, Fwd: FwdStale, Age: 10, TTL: -1}},
		{"§5.2.2.8", "proxy-revalidate", get("Cache-Control: max-stale"), stored("Cache-Control: max-age=9, proxy-revalidate"), 10, Verdict{Action: Fetch, Fwd: FwdStale, Age: 10, TTL: -1}},
		{"§5.2.2.10", "s-maxage", get("Cache-Control: max-stale"), stored("Cache-Control: s-maxage=9, stale-while-revalidate=9"), 10, Verdict{Action: Fetch, Fwd: FwdStale, Age: 10, TTL: -1}},
		{"RFC 5861 §3", "within the window", get(), stored("Cache-Control: max-age=9, stale-while-revalidate=5", etag), 14, Verdict{Action: Serve, Age: 14, TTL: -5, Stale: true, Background: true, Conditional: tag}},
		{"RFC 5861 §3", "beyond the window", get(), stored("Cache-Control: max-age=9, stale-while-revalidate=5"), 15, Verdict{Action: Fetch, Fwd: FwdStale, Age: 15, TTL: -6}},
		{"RFC 5861 §3", "must-revalidate is stronger", get(), stored("Cache-Control: max-age=9, must-revalidate, stale-while-revalidate=5"), 14, Verdict{Action: Fetch, Fwd: FwdStale, Age: 14, TTL: -5}},
		{"RFC 8246 §2.1", "immutable, reload", get("Cache-Control: max-age=0"), stored("Cache-Control: max-age=9, immutable"), 1, Verdict{Action: Serve, Age: 1, TTL: 8}},
		{"RFC 8246 §2.1", "immutable, no-cache", get("Cache-Control: no-cache"), stored("Cache-Control: max-age=9, immutable", etag), 1, Verdict{Action: Revalidate, Fwd: FwdRequest, Age: 1, TTL: 8, Conditional: tag}},
		{"RFC 8246 §2", "immutable, stale", get(), stored("Cache-Control: max-age=9, immutable", etag), 9, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 9, Conditional: tag}},
		{"RFC 9213 §2.2", "targeted no-cache", get(), stored("Cache-Control: max-age=9", "CDN-Cache-Control: no-cache", etag), 1, Verdict{Action: Revalidate, Fwd: FwdStale, Age: 1, TTL: -1, Conditional: tag}},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			got := Decide(c.req, c.stored, t0.Add(time.Duration(c.later)*time.Second))
			if got.Why == "" || !strings.Contains(got.Why, "§") {
				t.Errorf("why %q names no section", got.Why)
			}
			got.Why = ""
			c.want.Age *= time.Second
			c.want.TTL *= time.Second
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v\n%+v, want %v\n%+v", got.Action, got, c.want.Action, c.want)
			}
		})
	}
}

func TestStaleIfErrorAllowed(t *testing.T) {
	plain, sie := stored("Cache-Control: max-age=10"), stored("Cache-Control: max-age=10, stale-if-error=5")
	for _, c := range []struct {
		section, name string
		req           *http.Request
		stored        *Response
		status, later int
		want          bool
	}{
		{"§4", "nothing stored", get(), nil, 0, 0, false},
		{"§4.1", "variant", get(), answer(get("Foo: 1"), 200, "Vary: Foo"), 0, 0, false},
		{"§4.2.4", "disconnected", get(), plain, 0, 9999, true},
		{"§4.2.4", "disconnected, reload", get("Cache-Control: no-cache"), plain, 0, 9999, true},
		{"§5.2.2.2", "must-revalidate", get(), stored("Cache-Control: max-age=10, must-revalidate"), 0, 11, false},
		{"§5.2.2.10", "s-maxage", get(), stored("Cache-Control: s-maxage=10"), 0, 11, false},
		{"§5.2.2.4", "no-cache", get(), stored("Cache-Control: no-cache"), 0, 11, false},
		{"§4.3.3", "still fresh", get("Cache-Control: max-age=0"), stored("Cache-Control: max-age=10, must-revalidate"), 503, 9, true},
		{"RFC 5861 §4", "503 without stale-if-error", get(), plain, 503, 11, false},
		{"RFC 5861 §4", "503 within", get(), sie, 503, 15, true},
		{"RFC 5861 §4", "503 beyond", get(), sie, 503, 16, false},
		{"RFC 5861 §4", "by request", get("Cache-Control: stale-if-error=60"), plain, 500, 70, true},
		{"RFC 5861 §4", "404 is no error", get(), sie, 404, 11, false},
		{"§5.2.1.4", "request no-cache", get("Cache-Control: no-cache"), sie, 503, 11, false},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			got, why := StaleIfErrorAllowed(c.req, c.stored, c.status, t0.Add(time.Duration(c.later)*time.Second))
			if got != c.want || !strings.Contains(why, "§") {
				t.Errorf("got %v, %q", got, why)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	req, resp := get("Accept-Encoding: gzip"), stored("Cache-Control: public, max-age=100", `ETag: "a"`, "Vary: Accept-Encoding")
	resp.Variant = VaryKey(VaryFields(resp.Header), req.Header)
	b.ReportAllocs()
	for b.Loop() {
		if Decide(req, resp, t0).Action != Serve {
			b.Fatal("not served")
		}
	}
}
