package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// privateSuffixes end names that nobody outside can have (RFC 6761, RFC 6762,
// RFC 8375, and top levels that are not delegated).
var privateSuffixes = []string{".localhost", ".local", ".home.arpa", ".internal", ".lan", ".home", ".corp"}

// isMine reports whether a request names the box as the box is named: by an
// address, a name without a dot or under a private suffix, the advertised one, or
// one of Config.Names. A page from outside whose name was made to lead here (DNS
// rebinding) has none of these, and must not read what the box can reach.
func (s *Server) isMine(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	advertised, _, _ := net.SplitHostPort(s.cfg.Address)
	return strings.EqualFold(host, advertised) ||
		slices.ContainsFunc(s.cfg.Names, func(name string) bool { return strings.EqualFold(name, host) }) ||
		slices.ContainsFunc(privateSuffixes, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}
