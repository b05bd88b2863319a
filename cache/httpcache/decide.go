package httpcache

import (
	"net/http"
	"slices"
	"time"
)

// Action is what a cache does with a request.
type Action int

// The zero Action is the one that is always right.
const (
	Fetch          Action = iota // forward the request; nothing stored can be used
	Revalidate                   // forward it with Verdict.Conditional, and Freshen on a 304
	Serve                        // answer with the stored response
	GatewayTimeout               // answer 504: only-if-cached, and nothing stored can be served
)

func (a Action) String() string {
	switch a {
	case Fetch:
		return "fetch"
	case Revalidate:
		return "revalidate"
	case Serve:
		return "serve"
	case GatewayTimeout:
		return "gateway timeout"
	}
	return "unknown"
}

// Verdict is what Decide decided, and why.
type Verdict struct {
	Action Action
	// Why names the rule and its section in one line.
	Why string
	// Fwd is the reason to forward for Cache-Status; "" with Serve.
	Fwd Fwd
	// Age of the stored response, and what remains of its freshness: negative
	// once it is stale. Both are 0 where nothing stored was selected.
	Age, TTL time.Duration
	// Stale says that Serve serves a stale response.
	Stale bool
	// Background asks to revalidate after serving (stale-while-revalidate).
	Background bool
	// Conditional are the fields that make the forwarded request conditional
	// (§4.3.1), with Revalidate and Background; nil where stored has no
	// validator. Take off the client's own with StripConditional before.
	Conditional http.Header
}

// Decide says what a cache does with req at now, given the response stored
// under its Key and VaryKey, nil for none (§4). Ranges do not matter here: see
// Ranges. If-None-Match and If-Modified-Since are for EvaluateConditional once
// the response is to be served.
func Decide(req *http.Request, stored *Response, now time.Time) Verdict {
	v := decide(req, stored, now)
	if v.Action != Serve && OnlyIfCached(req) {
		return Verdict{Action: GatewayTimeout, Why: "only-if-cached (RFC 9111 §5.2.1.7), but " + v.Why, Age: v.Age, TTL: v.TTL}
	}
	return v
}

// OnlyIfCached says whether req must not be forwarded (§5.2.1.7), also where
// Decide says Serve and the body turns out not to be here.
func OnlyIfCached(req *http.Request) bool { return requestDirectives(req.Header).has("only-if-cached") }

// decide is Decide without only-if-cached.
func decide(req *http.Request, stored *Response, now time.Time) Verdict {
	switch {
	case !slices.Contains([]string{http.MethodGet, http.MethodHead, ""}, req.Method):
		return Verdict{Fwd: FwdMethod, Why: "method " + req.Method + " (RFC 9111 §4)"}
	case req.Header.Get("If-Match") != "" || req.Header.Get("If-Unmodified-Since") != "":
		return Verdict{Fwd: FwdRequest, Why: "If-Match and If-Unmodified-Since are for the origin (RFC 9111 §4.3.2)"}
	case stored == nil:
		return Verdict{Fwd: FwdURIMiss, Why: "nothing stored for this URL (RFC 9111 §4)"}
	case !MatchesVary(req, stored):
		return Verdict{Fwd: FwdVaryMiss, Why: "another variant is stored (RFC 9111 §4.1)"}
	}
	cc, field := stored.directives()
	lifetime, from := stored.lifetime(cc, field)
	v := Verdict{Age: CurrentAge(stored, now)}
	v.TTL = lifetime - v.Age
	asks := requestDirectives(req.Header)
	if v.Fwd, v.Why = mustValidate(asks, cc, v); v.Why != "" {
		return v.forward(stored)
	}
	if v.TTL > 0 {
		v.Action, v.Why = Serve, "fresh by "+rule(from)
		if cc.has("immutable") && asks.has("max-age") {
			v.Why = "fresh and immutable, which a reload does not doubt (RFC 8246 §2.1)"
		}
		return v
	}
	return v.whenStale(asks, cc, from, stored)
}

// mustValidate says why a stored response cannot be used unasked, be it fresh
// or stale, "" when it can.
func mustValidate(asks, cc directives, v Verdict) (Fwd, string) {
	if asks.has("no-cache") {
		return FwdRequest, "request no-cache (RFC 9111 §5.2.1.4)"
	}
	if cc.unqualified("no-cache") {
		return FwdStale, "response no-cache (RFC 9111 §5.2.2.4)"
	}
	// RFC 8246 §2.1: a reload of what never changes needs no check while fresh.
	immutable := v.TTL > 0 && cc.has("immutable")
	if limit, _, ok := asks.delta("max-age"); ok && (v.Age > limit || limit == 0) && !immutable {
		return FwdRequest, "older than the request's max-age (RFC 9111 §5.2.1.1)"
	}
	if asks.has("min-fresh") && v.TTL < asks.seconds("min-fresh") {
		return FwdRequest, "not fresh for the request's min-fresh (RFC 9111 §5.2.1.3)"
	}
	return "", ""
}

// whenStale decides about a stale response (§4.2.4).
func (v Verdict) whenStale(asks, cc directives, from string, stored *Response) Verdict {
	v.Fwd = FwdStale
	if why := staleProhibited(cc); why != "" {
		v.Why = "stale, and " + why + " asks for validation (RFC 9111 §4.2.4)"
		return v.forward(stored)
	}
	limit, valid, _ := asks.delta("max-stale")
	anyAge := asks.has("max-stale") && !asks.find("max-stale").given
	switch {
	case anyAge || valid && -v.TTL <= limit:
		return v.serveStale("request max-stale (RFC 9111 §5.2.1.2)")
	case cc.has("stale-while-revalidate") && -v.TTL <= cc.seconds("stale-while-revalidate"):
		v.Background, v.Conditional = true, conditional(stored)
		return v.serveStale("stale-while-revalidate (RFC 5861 §3)")
	}
	v.Why = "stale by " + rule(from)
	return v.forward(stored)
}

func (v Verdict) serveStale(why string) Verdict {
	v.Action, v.Stale, v.Fwd, v.Why = Serve, true, "", "stale, allowed by "+why
	return v
}

// forward is a conditional request where stored has a validator, else a whole
// new one.
func (v Verdict) forward(stored *Response) Verdict {
	v.Action = Fetch
	if v.Conditional = conditional(stored); v.Conditional != nil {
		v.Action = Revalidate
	}
	return v
}

// conditional are the fields that ask whether stored is still valid (§4.3.1),
// nil where it has no validator.
func conditional(stored *Response) http.Header {
	h := http.Header{}
	if etag := stored.Header.Get("ETag"); etag != "" {
		h.Set("If-None-Match", etag)
	}
	if _, ok := stored.lastModified(); ok {
		h.Set("If-Modified-Since", stored.Header.Get("Last-Modified"))
	}
	if len(h) == 0 {
		return nil
	}
	return h
}

// StaleIfErrorAllowed says whether stored may answer req after forwarding it
// failed: with status 500, 502, 503 or 504, or with 0 when no answer came at
// all. What is still fresh may (§4.3.3), and stale too for a cache that is cut
// off, unless the origin forbade it (§4.2.4); after an error stale needs
// stale-if-error, from the response or the request (RFC 5861 §4).
func StaleIfErrorAllowed(req *http.Request, stored *Response, status int, now time.Time) (ok bool, why string) {
	if stored == nil || !MatchesVary(req, stored) {
		return false, "nothing stored for this request (RFC 9111 §4)"
	}
	if !slices.Contains([]int{0, 500, 502, 503, 504}, status) {
		return false, "the status is not an error that stale-if-error covers (RFC 5861 §4)"
	}
	cc, field := stored.directives()
	asks := requestDirectives(req.Header)
	lifetime, _ := stored.lifetime(cc, field)
	staleness := CurrentAge(stored, now) - lifetime
	prohibited := staleProhibited(cc)
	switch {
	case cc.unqualified("no-cache"):
		return false, "response no-cache (RFC 9111 §5.2.2.4)"
	case asks.has("no-cache") && status != 0:
		return false, "request no-cache (RFC 9111 §5.2.1.4)"
	case staleness < 0:
		return true, "still fresh (RFC 9111 §4.3.3)"
	case prohibited != "":
		return false, prohibited + " forbids to serve it stale (RFC 9111 §4.2.4)"
	case status == 0:
		return true, "disconnected (RFC 9111 §4.2.4)"
	case !cc.has("stale-if-error") && !asks.has("stale-if-error"):
		return false, "no stale-if-error (RFC 5861 §4)"
	case staleness > max(cc.seconds("stale-if-error"), asks.seconds("stale-if-error")):
		return false, "stale for longer than stale-if-error (RFC 5861 §4)"
	}
	return true, "stale-if-error (RFC 5861 §4)"
}
