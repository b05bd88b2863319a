// Package httpcache is HTTP caching (RFC 9111) for a shared cache, as pure
// functions of a request, a stored response and the time.
//
// It says whether a response may be kept (Storable), whether a kept one answers
// a request (Decide), how a 304 renews it (Freshen), what an unsafe method
// drops (InvalidatesOn), and it evaluates what comes with that: conditional
// requests and ranges (RFC 9110), Cache-Status (RFC 9211), targeted cache
// control (RFC 9213), stale-while-revalidate and stale-if-error (RFC 5861) and
// immutable (RFC 8246).
//
// It refuses to do I/O, to read a clock, to store anything and to know where
// bodies are. All functions are safe for concurrent use. None changes its
// arguments, but those that say so in their name: StripHopByHop,
// StripConditional, AddVia, NotModifiedHeader and CacheStatus.AppendTo.
//
// Start reading at Decide. Section numbers without a document are RFC 9111's.
package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Response is the head of a response as a cache keeps it. NewResponse makes
// it. It encodes to JSON. It is not changed once made, so it may be shared.
type Response struct {
	// Status is the final status code.
	Status int
	// Header holds no field that §3.1 forbids to store, and always a Date.
	Header http.Header
	// Requested is when the request was sent, Received when the head arrived.
	Requested, Received time.Time
	// Variant is the VaryKey of the request that brought the response.
	Variant string `json:",omitempty"`
	// Authorized says that this request carried Authorization.
	Authorized bool `json:",omitempty"`
	// Surrogate says that Surrogate-Control counts, before every other field:
	// whoever stores the response acts for its origin.
	Surrogate bool `json:",omitempty"`
}

// NewResponse makes the stored form of a response (§3.1) out of its status and
// header and of the request that was sent for it. It copies the header without
// hop-by-hop fields and without those that private="…" and no-cache="…" name
// (Withheld), and adds a missing Date (RFC 9110 §6.6.1).
func NewResponse(req *http.Request, status int, h http.Header, requested, received time.Time) *Response {
	h = h.Clone()
	if h == nil {
		h = http.Header{}
	}
	StripHopByHop(h)
	for name := range Withheld(h) {
		h.Del(name)
	}
	if _, ok := parseDate(h.Get("Date"), received); !ok {
		h.Set("Date", received.UTC().Format(http.TimeFormat))
	}
	return &Response{
		Status:     status,
		Header:     h,
		Requested:  requested,
		Received:   received,
		Variant:    VaryKey(VaryFields(h), req.Header),
		Authorized: req.Header.Get("Authorization") != "",
	}
}

// Withheld are the fields of h that private="…" and no-cache="…" name (§5.2.2).
// They are for the client whose request brought the response, and for nobody
// who is answered from the store.
func Withheld(h http.Header) http.Header {
	own := http.Header{}
	d, _ := responseDirectives(h)
	for _, name := range []string{"private", "no-cache"} {
		for _, field := range d.fields(name) {
			if lines := h.Values(field); len(lines) > 0 {
				own[field] = slices.Clone(lines)
			}
		}
	}
	return own
}

// date is the Date field's value. A Response that NewResponse did not make may
// lack it; then it is the time of arrival.
func (r *Response) date() time.Time {
	if t, ok := parseDate(r.Header.Get("Date"), r.Received); ok {
		return t
	}
	return r.Received
}

// lastModified is the Last-Modified field's value, if it has a valid one.
func (r *Response) lastModified() (time.Time, bool) {
	return parseDate(r.Header.Get("Last-Modified"), r.Received)
}

// hasValidator says whether a conditional request can ask for changes (§4.3.1).
func (r *Response) hasValidator() bool {
	_, ok := r.lastModified()
	return ok || r.Header.Get("ETag") != ""
}

// heuristicStatus are the codes that RFC 9110 §15.1 defines as heuristically
// cacheable, without 206, which is not stored by itself.
var heuristicStatus = []int{200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501}

// understoodStatus are the codes whose caching behaviour this package
// implements, as must-understand asks (§5.2.2.3).
func understoodStatus(code int) bool {
	return slices.Contains(heuristicStatus, code) || code == 302 || code == 303 || code == 307
}

// aboutRequest are the codes that speak of the very request they answer, so
// that the answer is wrong for anybody else: its conditions, its range, its
// rate. RFC 6585 forbids to store 428, 429, 431 and 511.
var aboutRequest = []int{304, 412, 416, 428, 429, 431, 511}

// Storable says whether a shared cache may keep resp as the answer to req
// (§3), and which rule decided. resp comes from NewResponse.
//
// Beyond the RFC it keeps nothing that has neither freshness nor a validator,
// and a response with Set-Cookie only when its freshness is explicit: §7.3 lets
// it be cached, but guessing must never share a cookie. Only responses to GET
// are kept: one to HEAD has no body, but may renew a stored one (see Freshen).
// A 206 is not kept by itself: see Whole.
func Storable(req *http.Request, resp *Response) (ok bool, why string) {
	if why := requestForbids(req, resp); why != "" {
		return false, why
	}
	d, field := resp.directives()
	if why := directivesForbid(d, resp); why != "" {
		return false, why
	}
	if slices.Contains(VaryFields(resp.Header), "*") {
		return false, "Vary: * matches no later request (RFC 9111 §4.1)"
	}
	lifetime, from := resp.lifetime(d, field)
	explicit := from != fromHeuristic && from != fromNothing
	switch {
	case len(resp.Header.Values("Set-Cookie")) > 0 && !explicit && !d.has("public"):
		return false, "Set-Cookie without explicit freshness (RFC 9111 §7.3)"
	case !explicit && !d.has("public") && !slices.Contains(heuristicStatus, resp.Status):
		return false, "no explicit freshness and the status is not heuristically cacheable (RFC 9111 §3)"
	}
	stale := max(d.seconds("stale-while-revalidate"), d.seconds("stale-if-error"))
	usable := lifetime+stale > CurrentAge(resp, resp.Received) && !d.unqualified("no-cache")
	if !usable && !resp.hasValidator() {
		return false, "neither fresh nor has it a validator (RFC 9111 §3)"
	}
	if explicit {
		return true, from + " (RFC 9111 §3)"
	}
	return true, "heuristically cacheable (RFC 9111 §3)"
}

// requestForbids names what in the exchange, apart from the response's
// directives, keeps a response from being stored.
func requestForbids(req *http.Request, resp *Response) string {
	switch {
	case req.Method != http.MethodGet && req.Method != "":
		return "method " + req.Method + " (RFC 9111 §3)"
	case requestDirectives(req.Header).has("no-store"):
		return "request no-store (RFC 9111 §5.2.1.5)"
	case resp.Status < 200 || resp.Status > 999:
		return "not a final status (RFC 9111 §3)"
	case resp.Status == http.StatusPartialContent:
		return "206 is a part of a response (RFC 9111 §3.3)"
	case slices.Contains(aboutRequest, resp.Status):
		return "the status speaks of this request only (RFC 9111 §3)"
	}
	return ""
}

// directivesForbid names the response directive that keeps it from being
// stored, "" for none.
func directivesForbid(d directives, resp *Response) string {
	understand := d.has("must-understand")
	switch {
	case understand && !understoodStatus(resp.Status):
		return "must-understand and the status is not understood (RFC 9111 §5.2.2.3)"
	case d.has("no-store") && !understand:
		return "no-store (RFC 9111 §5.2.2.5)"
	case d.unqualified("private"):
		return "private (RFC 9111 §5.2.2.7)"
	case resp.Authorized && !d.has("public") && !d.has("s-maxage") && !d.has("must-revalidate"):
		return "the request had Authorization (RFC 9111 §3.5)"
	}
	return ""
}

// Public says whether what was stored may leave the box under another name: by
// multicast, as a torrent, by its identity. It must be publicly cacheable: no
// Authorization, no Set-Cookie, nothing private, no Vary beyond
// Accept-Encoding. It is stricter than Storable: private or no-store in
// Cache-Control counts even where a targeted field takes its place, and so does
// the qualified form.
func Public(r *Response) bool {
	if r.Authorized || len(r.Header.Values("Set-Cookie")) > 0 {
		return false
	}
	targeted, _ := r.directives()
	for _, d := range []directives{targeted, parseDirectives(r.Header.Values("Cache-Control"))} {
		if d.has("private") || d.has("no-store") {
			return false
		}
	}
	return !slices.ContainsFunc(VaryFields(r.Header), func(name string) bool {
		return !strings.EqualFold(name, "Accept-Encoding")
	})
}
