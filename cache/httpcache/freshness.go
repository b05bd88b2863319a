package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// What FreshnessLifetime names when no explicit expiration time is there.
const (
	fromHeuristic = "heuristic"
	fromNothing   = "none"
)

// heuristicCap bounds what is guessed from Last-Modified.
const heuristicCap = 24 * time.Hour

// CurrentAge is the age of a stored response at now (§4.2.3), never negative.
func CurrentAge(r *Response, now time.Time) time.Duration {
	apparent := max(0, r.Received.Sub(r.date()))
	delay := max(0, r.Received.Sub(r.Requested))
	initial := max(apparent, ageValue(r.Header)+delay)
	return initial + max(0, now.Sub(r.Received))
}

// ageValue is the Age field's value: the first one where there are several, and
// 0 where it is no count of seconds (§5.1).
func ageValue(h http.Header) time.Duration {
	for _, line := range h.Values("Age") {
		for _, member := range splitList(line) {
			age, _ := parseDelta(member)
			return age
		}
	}
	return 0
}

// FreshnessLifetime is how long r stays fresh after its origin made it
// (§4.2.1), and what says so: "s-maxage", "max-age", "Expires", "heuristic"
// (a tenth of the time since Last-Modified, at most a day, §4.2.2) or "none".
// The name of a targeted field stands before: "CDN-Cache-Control max-age". What
// is there but invalid makes r stale at once: 0.
func FreshnessLifetime(r *Response) (d time.Duration, from string) {
	return r.lifetime(r.directives())
}

// lifetime is FreshnessLifetime under directives already read.
func (r *Response) lifetime(cc directives, field string) (d time.Duration, from string) {
	prefix := ""
	if field != "Cache-Control" {
		prefix = field + " "
	}
	for _, name := range []string{"s-maxage", "max-age"} {
		if v, _, present := cc.delta(name); present {
			return v, prefix + name
		}
	}
	// A targeted field takes the place of Expires too (RFC 9213 §2.2).
	if prefix == "" {
		if t, valid, present := singleDate(r.Header, "Expires", r.Received); present {
			if !valid {
				return 0, "Expires"
			}
			return max(0, t.Sub(r.date())), "Expires"
		}
	}
	if !cc.has("public") && !slices.Contains(heuristicStatus, r.Status) {
		return 0, fromNothing
	}
	modified, ok := r.lastModified()
	if since := r.date().Sub(modified); ok && since > 0 {
		return min(since/10, heuristicCap), fromHeuristic
	}
	return 0, fromNothing
}

// rule says what fixes the freshness lifetime, and where that is written.
func rule(from string) string {
	switch {
	case from == fromHeuristic:
		return "heuristic: a tenth of the time from Last-Modified to Date, at most a day (RFC 9111 §4.2.2)"
	case from == fromNothing:
		return "default: nothing gives it freshness (RFC 9111 §4.2.1)"
	case strings.HasPrefix(from, "Surrogate-Control"):
		return from + " (W3C Note Edge Architecture §2.3)"
	case strings.Contains(from, " "):
		return from + " (RFC 9213 §2.2)"
	}
	return from + " (RFC 9111 §4.2.1)"
}

// staleProhibited names the response directive that forbids to serve r stale
// (§4.2.4), "" for none.
func staleProhibited(d directives) string {
	if d.unqualified("no-cache") {
		return "no-cache"
	}
	for _, name := range []string{"must-revalidate", "proxy-revalidate", "s-maxage"} {
		if d.has(name) {
			return name
		}
	}
	return ""
}
