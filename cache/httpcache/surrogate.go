package httpcache

import (
	"net/http"
	"strings"
)

// SurrogateCapability is how a cache that acts for origins announces itself in
// requests (Edge Architecture Specification, W3C Note of 4 August 2001, §2.2).
const SurrogateCapability = Name + `="Surrogate/1.0"`

// surrogateDirectives are what Surrogate-Control says to this cache, as
// directives (that Note, §2.3): max-age and no-store, for every surrogate or for
// this one. Not ok means to act as if the field were absent.
func surrogateDirectives(h http.Header) (d directives, ok bool) {
	for _, line := range h.Values("Surrogate-Control") {
		for _, member := range splitList(line) {
			text, target, targeted := strings.Cut(member, ";")
			if targeted && !strings.EqualFold(trimSpace(target), Name) {
				continue
			}
			a := parseDirective(trimSpace(text))
			a.text, _, _ = strings.Cut(a.text, "+") // how much longer it may be served stale
			if (a.name == "max-age" || a.name == "no-store") && d.find(a.name) == nil {
				d = append(d, a)
			}
		}
	}
	return d, len(d) > 0
}
