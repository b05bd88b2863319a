package proxy

import "bytes"

// plainHead is the head of a GET that means the same to everybody who reads it:
// in absolute form, with fields that no cache looks at but for Vary, and each
// byte where the grammar has it. Whatever else comes is not plain, be it right
// or wrong: net/http says.
type plainHead struct {
	length    int    // of the head, with the empty line, in bytes
	target    []byte // an http URL
	authority []byte // of it
	fields    []field
}

// field is one line of a head.
type field struct{ name, value []byte }

// maxFields is how many lines a plain head may have.
const maxFields = 32

var (
	plainStart = []byte("GET http://")
	plainEnd   = []byte(" HTTP/1.1\r\n")
	lineEnd    = []byte("\r\n")
)

// parse reads the head at the beginning of buf. It is false if that is not plain,
// or not whole. The parts of the head stay those of buf.
func (h *plainHead) parse(buf []byte) bool {
	h.fields = h.fields[:0]
	if !bytes.HasPrefix(buf, plainStart) {
		return false
	}
	method, scheme := len("GET "), len(plainStart)
	end, slash := scheme, 0
	for ; end < len(buf) && buf[end] != ' '; end++ {
		switch {
		case buf[end] == '/' && slash == 0:
			slash = end
		case slash == 0 && !isAuthority(buf[end]), !isTarget(buf[end]):
			return false
		}
	}
	if slash <= scheme || !bytes.HasPrefix(buf[end:], plainEnd) {
		return false
	}
	h.target, h.authority = buf[method:end], buf[scheme:slash]
	hosts := 0
	for at := end + len(plainEnd); ; {
		if bytes.HasPrefix(buf[at:], lineEnd) {
			h.length = at + len(lineEnd)
			return hosts == 1
		}
		f, next := parseField(buf, at)
		if next == 0 || len(h.fields) == maxFields || !h.harmless(f) {
			return false
		}
		if bytes.EqualFold(f.name, nameHost) {
			hosts++
		}
		h.fields = append(h.fields, f)
		at = next
	}
}

// parseField reads the line at buf[at:] and says where the next one begins; 0 if
// it is not plain.
func parseField(buf []byte, at int) (f field, next int) {
	i := at
	for i < len(buf) && isName(buf[i]) {
		i++
	}
	if i == at || i == len(buf) || buf[i] != ':' {
		return f, 0
	}
	f.name = buf[at:i]
	for i++; i < len(buf) && buf[i] == ' '; i++ {
	}
	at = i
	for i < len(buf) && ' ' <= buf[i] && buf[i] <= '~' {
		i++
	}
	if !bytes.HasPrefix(buf[i:], lineEnd) {
		return f, 0
	}
	f.value = bytes.TrimRight(buf[at:i], " ")
	return f, i + len(lineEnd)
}

// harmless reports whether a field can change nothing about the answer but by
// Vary.
func (h *plainHead) harmless(f field) bool {
	switch len(f.name) {
	case len("Host"):
		if bytes.EqualFold(f.name, nameHost) {
			return bytes.Equal(f.value, h.authority)
		}
	case len("Connection"):
		if bytes.EqualFold(f.name, nameConnection) {
			return bytes.EqualFold(f.value, keepAlive)
		}
	case len("Proxy-Connection"):
		if bytes.EqualFold(f.name, nameProxyConnection) {
			return bytes.EqualFold(f.value, keepAlive)
		}
	}
	for _, name := range bystanders {
		if bytes.EqualFold(f.name, name) {
			return true
		}
	}
	return false
}

var (
	nameHost            = []byte("Host")
	nameConnection      = []byte("Connection")
	nameProxyConnection = []byte("Proxy-Connection")
	keepAlive           = []byte("keep-alive")
)

// bystanders are request fields that no rule of caching names.
var bystanders = [][]byte{
	[]byte("User-Agent"), []byte("Accept"), []byte("Accept-Encoding"), []byte("Accept-Language"), []byte("Accept-Charset"),
	[]byte("Referer"), []byte("Origin"), []byte("Cookie"), []byte("DNT"), []byte("Priority"), []byte("Upgrade-Insecure-Requests"),
	[]byte("Sec-Fetch-Dest"), []byte("Sec-Fetch-Mode"), []byte("Sec-Fetch-Site"), []byte("Sec-Fetch-User"), []byte("Sec-GPC"),
	[]byte("Sec-CH-UA"), []byte("Sec-CH-UA-Mobile"), []byte("Sec-CH-UA-Platform"), []byte("X-Requested-With"),
}

// isAuthority reports whether a byte may be in the host and port of a plain
// target: no userinfo, no IPv6 address, nothing encoded.
func isAuthority(c byte) bool { return isName(c) || c == '.' || c == ':' }

// isTarget reports whether a byte may be in a plain target (RFC 3986 §3.3, §3.4).
func isTarget(c byte) bool {
	return isName(c) || bytes.IndexByte(targetBytes, c) >= 0
}

var targetBytes = []byte("./:?%&=~+,;!$'()*@")

// isName reports whether a byte may be in the name of a plain field.
func isName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
