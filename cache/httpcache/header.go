package httpcache

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// hopByHop are the fields that belong to one connection (RFC 9110 §7.6.1) and
// those for proxies that §3.1 forbids to store.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// endToEnd are fields that a Connection field cannot take away: without them a
// private answer could pass for a public one (RFC 9110 §7.6.1 forbids to list
// what all recipients must see).
var endToEnd = []string{
	"Age", "Authorization", "Cache-Control", "Cdn-Cache-Control", "Content-Encoding", "Content-Length",
	"Content-Range", "Content-Type", "Date", "Etag", "Expires", "Host", "Last-Modified", "Pragma", "Range",
	"Set-Cookie", "Vary",
}

// StripHopByHop removes from h what must not be forwarded: the connection's own
// fields and those that its Connection field lists.
func StripHopByHop(h http.Header) {
	for _, line := range h.Values("Connection") {
		for _, name := range splitList(line) {
			if name = textproto.CanonicalMIMEHeaderKey(name); !slices.Contains(endToEnd, name) {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// AddVia appends a Via member (RFC 9110 §7.6.3) to h: proto as in
// http.Request.Proto, by the name this box goes by.
func AddVia(h http.Header, proto, by string) {
	member := strings.TrimPrefix(proto, "HTTP/") + " " + by
	if old := h.Values("Via"); len(old) > 0 {
		member = strings.Join(old, ", ") + ", " + member
	}
	h.Set("Via", member)
}

// ResponseHeader is the header to send for a stored response of the given age
// (§4): a copy, with Age.
func ResponseHeader(stored *Response, age time.Duration) http.Header {
	h := stored.Header.Clone()
	h.Set("Age", formatDelta(age))
	return h
}

// NotModifiedHeader cuts h down to what a 304 carries (RFC 9110 §15.4.5): it
// drops what describes a content that is not sent.
func NotModifiedHeader(h http.Header) {
	for _, name := range []string{
		"Content-Digest", "Content-Encoding", "Content-Language", "Content-Length", "Content-Range", "Content-Type", "Digest", "Repr-Digest",
	} {
		h.Del(name)
	}
}
