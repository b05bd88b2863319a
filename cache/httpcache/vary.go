package httpcache

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// VaryFields are the request fields that h's Vary names (RFC 9110 §12.5.5), in
// canonical spelling, sorted, each once; only "*" where one of them is that.
func VaryFields(h http.Header) []string {
	var names []string
	for _, line := range h.Values("Vary") {
		for _, name := range splitList(line) {
			if name == "*" {
				return []string{"*"}
			}
			names = append(names, textproto.CanonicalMIMEHeaderKey(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// VaryKey is the secondary cache key (§4.1) of a request with the header req
// under the fields that VaryFields found: "" for no fields, else 64 hex digits,
// so that neither cookies nor credentials end up in an index. Two requests have
// the same key exactly when their values are the same once normalised.
func VaryKey(fields []string, req http.Header) string {
	if len(fields) == 0 {
		return ""
	}
	var all []byte
	for _, name := range fields {
		lines := req.Values(name)
		// An absent field is not the same as an empty one (§4.1).
		for _, s := range []string{name, strconv.Itoa(min(len(lines), 1)), normalValue(name, lines)} {
			all = strconv.AppendInt(all, int64(len(s)), 10)
			all = append(append(all, ':'), s...)
		}
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:])
}

// MatchesVary says whether stored may be selected for req as far as Vary goes
// (§4.1). Vary: * never matches.
func MatchesVary(req *http.Request, stored *Response) bool {
	fields := VaryFields(stored.Header)
	return !slices.Contains(fields, "*") && VaryKey(fields, req.Header) == stored.Variant
}

// normalValue is a field's value without differences that have no meaning
// (§4.1): several lines are one list, white space around members is gone, and
// in Accept fields neither case nor order among equal weights counts.
func normalValue(name string, lines []string) string {
	var members []string
	for _, line := range lines {
		members = append(members, splitList(line)...)
	}
	switch name {
	case "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language":
		for i, m := range members {
			members[i] = normalWeighted(m)
		}
		slices.Sort(members)
		members = slices.Compact(members)
	}
	return strings.Join(members, ",")
}

// normalWeighted writes a member of an Accept field in lower case without white
// space around its parameters, and without a weight of 1, the default.
func normalWeighted(s string) string {
	var out []string
	for _, part := range strings.Split(strings.ToLower(s), ";") {
		part = trimSpace(part)
		if weight, ok := strings.CutPrefix(part, "q="); ok {
			if f, err := strconv.ParseFloat(weight, 64); err == nil && f == 1 {
				continue
			}
		}
		out = append(out, part)
	}
	return strings.Join(out, ";")
}
