package httpcache

import (
	"net/http"
	"net/url"
	"slices"
)

// keptFields are those of a stored response that a newer header does not
// change: they describe the stored bytes, and the newer one came without bytes
// (§3.2).
var keptFields = []string{"Content-Digest", "Content-Encoding", "Content-Length", "Content-Md5", "Content-Range"}

// Freshen renews stored with fresh, a 304 to its conditional request (§4.3.4)
// or a 200 to a HEAD (§4.3.5): it takes fresh's times and its fields in place of
// its own (§3.2). The result may no longer be Storable. With ok false fresh speaks of another representation: stored
// is out of date and must be fetched whole.
func Freshen(stored, fresh *Response) (updated *Response, ok bool) {
	if !sameRepresentation(stored, fresh) {
		return nil, false
	}
	u := *stored
	u.Header = stored.Header.Clone()
	u.Requested, u.Received = fresh.Requested, fresh.Received
	u.Surrogate = stored.Surrogate || fresh.Surrogate
	// What fresh does not say about its age, it says is 0.
	u.Header.Del("Age")
	for name, lines := range fresh.Header {
		if !slices.Contains(keptFields, name) {
			u.Header[name] = slices.Clone(lines)
		}
	}
	for name := range Withheld(u.Header) {
		u.Header.Del(name)
	}
	if len(fresh.Header.Values("Vary")) > 0 {
		u.Variant = fresh.Variant
	}
	return &u, true
}

// sameRepresentation says whether fresh, which has no content, is about what is
// stored: its strong validator, else its weak one, must be stored too (§4.3.4).
// A 304 without any validator still answers a request that named one.
func sameRepresentation(stored, fresh *Response) bool {
	switch fresh.Status {
	case http.StatusNotModified:
	case stored.Status:
		if n := fresh.Header.Get("Content-Length"); n != "" && n != stored.Header.Get("Content-Length") {
			return false
		}
	default:
		return false
	}
	a, b := stored.Header.Get("ETag"), fresh.Header.Get("ETag")
	before, hasBefore := stored.lastModified()
	after, hasAfter := fresh.lastModified()
	switch {
	case a != "" && b != "" && !weakMatch(a, b):
		return false
	case a != "" && b != "" && (isStrong(a) || !isStrong(b)):
		return true
	case b != "" || hasAfter:
		// nginx answers 304 with "x" for what it had compressed and sent as W/"x".
		return hasBefore && hasAfter && before.Equal(after)
	}
	return true
}

// InvalidatesOn are the keys of what a response to an unsafe method makes out
// of date (§4.4): the target URI and, on the same origin only, what Location
// and Content-Location name. None after a safe method or an error. req.URL is
// absolute.
func InvalidatesOn(req *http.Request, resp *Response) []string {
	safe := []string{"", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect}
	if slices.Contains(safe, req.Method) || resp.Status < 200 || resp.Status > 399 {
		return nil
	}
	target, err := Key(req.URL)
	if err != nil {
		return nil
	}
	keys := []string{target}
	for _, name := range []string{"Location", "Content-Location"} {
		ref, err := url.Parse(resp.Header.Get(name))
		if err != nil || resp.Header.Get(name) == "" {
			continue
		}
		u := req.URL.ResolveReference(ref)
		key, err := Key(u)
		if err == nil && origin(u) == origin(req.URL) && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// origin is the scheme, host and port of u (RFC 9110 §4.3.1), as its key has
// them; "" where it has no key.
func origin(u *url.URL) string {
	key, err := Key(&url.URL{Scheme: u.Scheme, Host: u.Host})
	if err != nil {
		return ""
	}
	return key
}
