package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// EvaluateConditional evaluates a client's preconditions in their order of
// precedence (RFC 9110 §13.2.2) against the response that would be sent: 304,
// 412, or resp's own status to go on. Preconditions count only where that is a
// success (§13.2.1 there). Ranges are evaluated afterwards: see Ranges.
//
// All of them are evaluated, as the origin of a resource does; a cache never
// gets to If-Match and If-Unmodified-Since, since Decide forwards these.
func EvaluateConditional(req *http.Request, resp *Response) (status int) {
	if resp.Status < 200 || resp.Status > 299 {
		return resp.Status
	}
	h, etag := req.Header, resp.Header.Get("ETag")
	modified, hasModified := resp.lastModified()
	if lines := h.Values("If-Match"); len(lines) > 0 {
		if !anyTag(lines, etag, strongMatch) {
			return http.StatusPreconditionFailed
		}
	} else if since, valid, _ := singleDate(h, "If-Unmodified-Since", resp.Received); valid && hasModified && modified.After(since) {
		return http.StatusPreconditionFailed
	}
	safe := req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == ""
	if lines := h.Values("If-None-Match"); len(lines) > 0 {
		if !anyTag(lines, etag, weakMatch) {
			return resp.Status
		}
		if !safe {
			return http.StatusPreconditionFailed
		}
		return http.StatusNotModified
	}
	if since, valid, _ := singleDate(h, "If-Modified-Since", resp.Received); safe && valid && !resp.changedSince(since) {
		return http.StatusNotModified
	}
	return resp.Status
}

// changedSince tells a cache whether r is newer than a client's copy: by
// Last-Modified, else by Date, else by its arrival (§4.3.2).
func (r *Response) changedSince(since time.Time) bool {
	if modified, ok := r.lastModified(); ok {
		return modified.After(since)
	}
	date := r.date()
	return date.IsZero() || date.After(since)
}

// StripConditional removes from h what makes a client's request conditional or
// partial, so that it can be forwarded for the whole response.
func StripConditional(h http.Header) {
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range"} {
		h.Del(name)
	}
}

// anyTag says whether a list of entity tags holds one that matches etag, or is
// "*". There is always a representation, since a response is at hand.
func anyTag(lines []string, etag string, match func(a, b string) bool) bool {
	for _, line := range lines {
		for _, tag := range splitList(line) {
			if tag == "*" || match(tag, etag) {
				return true
			}
		}
	}
	return false
}

// strongMatch is the strong comparison (RFC 9110 §8.8.3.2).
func strongMatch(a, b string) bool { return a == b && isStrong(a) }

// weakMatch is the weak comparison: W/ makes no difference.
func weakMatch(a, b string) bool {
	a, b = strings.TrimPrefix(a, "W/"), strings.TrimPrefix(b, "W/")
	return a == b && a != ""
}

// isStrong says whether s is a strong entity tag (RFC 9110 §8.8.3).
func isStrong(s string) bool {
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && !strings.Contains(s[1:len(s)-1], `"`)
}

// strongDate is r's Last-Modified where it identifies one representation byte
// for byte (RFC 9110 §8.8.2.2): the origin's clock had moved on since.
func (r *Response) strongDate() (time.Time, bool) {
	modified, ok := r.lastModified()
	return modified, ok && r.date().Sub(modified) >= time.Second
}

// IfRange is the If-Range value with which to ask for the rest of r (RFC 9110
// §13.1.5): its strong entity tag or, only where it has none at all, its
// Last-Modified if that is a strong validator; "" where nothing is.
func IfRange(r *Response) string {
	if etag := r.Header.Get("ETag"); etag != "" {
		if isStrong(etag) {
			return etag
		}
		return ""
	}
	if _, ok := r.strongDate(); ok {
		return r.Header.Get("Last-Modified")
	}
	return ""
}

// ifRangeHolds evaluates If-Range (RFC 9110 §13.1.5): true without one.
func ifRangeHolds(h http.Header, resp *Response) bool {
	lines := h.Values("If-Range")
	if len(lines) == 0 {
		return true
	}
	value := trimSpace(lines[0])
	if isStrong(value) {
		return len(lines) == 1 && strongMatch(value, resp.Header.Get("ETag"))
	}
	asked, ok := parseDate(value, resp.Received)
	modified, strong := resp.strongDate()
	return len(lines) == 1 && ok && strong && asked.Equal(modified)
}

// Combinable says whether the bytes of a and b may be put together (§3.4): both
// have the same strong validator.
func Combinable(a, b *Response) bool {
	va, vb := IfRange(a), IfRange(b)
	if va == "" || vb == "" || isStrong(va) != isStrong(vb) {
		return false
	}
	if isStrong(va) {
		return va == vb
	}
	ta, _ := a.lastModified()
	tb, _ := b.lastModified()
	return ta.Equal(tb)
}
