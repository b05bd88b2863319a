package httpcache

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxURL is the longest URL that gets a key, in bytes once normalised; RFC 9110
// §4.1 asks for at least 8000.
const maxURL = 8192

// KeyError says why a URL has no cache key.
type KeyError struct {
	Part string // of the URL: "scheme", "host", "port", "userinfo", "path", "query" or "length"
	Why  string
}

func (e *KeyError) Error() string { return "URL " + e.Part + ": " + e.Why }

// Key is the primary cache key (§2) of an absolute http or https URL, whatever
// the method: the URL itself, normalised as far as no origin can tell the
// difference (RFC 3986 §6.2.2, §6.2.3). Scheme and host are in lower case, the
// default port and the fragment are gone, an empty path is "/", percent-encoded
// letters, digits, "-", "_" and "~" are decoded, the hex digits of the others
// are upper case and bytes outside ASCII are encoded. Dots stay as they are,
// encoded or not: origins disagree about "/../". Errors are *KeyError.
func Key(u *url.URL) (string, error) {
	scheme := strings.ToLower(u.Scheme)
	if scheme != "http" && scheme != "https" {
		return "", &KeyError{"scheme", fmt.Sprintf("%q is not http or https", u.Scheme)}
	}
	if u.User != nil {
		// RFC 9110 §4.2.4: userinfo from elsewhere is an error, it hides the host.
		return "", &KeyError{"userinfo", "a name or password before the host is not accepted"}
	}
	port, err := keyPort(u.Port(), u.Host, scheme)
	if err != nil {
		return "", err
	}
	host, err := keyHost(u.Hostname())
	if err != nil {
		return "", err
	}
	path, err := keyBytes("path", u.EscapedPath())
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	query, err := keyBytes("query", u.RawQuery)
	if err != nil {
		return "", err
	}
	if query != "" || u.ForceQuery {
		query = "?" + query
	}
	key := scheme + "://" + host + port + path + query
	if len(key) > maxURL {
		return "", &KeyError{"length", fmt.Sprintf("%d bytes, at most %d are accepted", len(key), maxURL)}
	}
	return key, nil
}

// keyHost normalises a host name, an IPv4 address or, without its brackets, an
// IPv6 address.
func keyHost(host string) (string, error) {
	if host == "" {
		return "", &KeyError{"host", "missing"}
	}
	if strings.Contains(host, ":") {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return "", &KeyError{"host", fmt.Sprintf("%q is not an IPv6 address", host)}
		}
		return "[" + addr.String() + "]", nil
	}
	host = strings.ToLower(host)
	for _, c := range host {
		if c >= utf8.RuneSelf || !isAlphanumeric(byte(c)) && !strings.ContainsRune("-._", c) {
			return "", &KeyError{"host", fmt.Sprintf("character %q is not allowed", c)}
		}
	}
	if len(host) > 255 || strings.HasPrefix(host, ".") || strings.Contains(host, "..") {
		return "", &KeyError{"host", fmt.Sprintf("%.64q is not a host name", host)}
	}
	return host, nil
}

// keyPort is ":port", or "" where it is the scheme's own or empty.
func keyPort(port, hostport, scheme string) (string, error) {
	if port == "" {
		// url.URL.Port hides what is no number.
		if i := strings.LastIndexByte(hostport, ':'); i > strings.LastIndexByte(hostport, ']') && i+1 < len(hostport) {
			return "", &KeyError{"port", fmt.Sprintf("%.16q is not a number", hostport[i+1:])}
		}
		return "", nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", &KeyError{"port", fmt.Sprintf("%.16q is not between 1 and 65535", port)}
	}
	if scheme == "http" && n == 80 || scheme == "https" && n == 443 {
		return "", nil
	}
	return ":" + strconv.FormatUint(n, 10), nil
}

// keyBytes normalises the percent-encoding of a path or query.
func keyBytes(part, s string) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return "", &KeyError{part, fmt.Sprintf("%.3q is not a percent-encoded byte", s[i:])}
			}
			v, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if c = byte(v); isAlphanumeric(c) || c == '-' || c == '_' || c == '~' {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
			i += 2
		case c <= ' ' || c == 0x7f:
			return "", &KeyError{part, fmt.Sprintf("byte 0x%02x must be percent-encoded", c)}
		case c > 0x7f || c == '#':
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
