package httpcache

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// maxDelta stands for every delta-seconds too large to count (§1.2.2).
const maxDelta = (1 << 31) * time.Second

// targetList are the targeted fields this cache obeys, first one first
// (RFC 9213 §2.1).
var targetList = []string{"CDN-Cache-Control"}

// known are the directives that this cache obeys; it ignores all others, as
// §5.2.3 asks, so that a long field costs nothing to keep.
var known = []string{
	"immutable", "max-age", "max-stale", "min-fresh", "must-revalidate", "must-understand", "no-cache", "no-store",
	"only-if-cached", "private", "proxy-revalidate", "public", "s-maxage", "stale-if-error", "stale-while-revalidate",
}

// directives are the known members of a Cache-Control field, each name once.
// They are few: looking through them costs less than a map.
type directives []directive

// directive is a name in lower case and what follows it.
type directive struct {
	name  string
	text  string
	given bool // an "=" was there
	valid bool // its syntax is token or quoted-string, without space around "="
}

// find is the directive of that name, nil for none.
func (d directives) find(name string) *directive {
	for i := range d {
		if d[i].name == name {
			return &d[i]
		}
	}
	return nil
}

func (d directives) has(name string) bool { return d.find(name) != nil }

// delta is a directive's delta-seconds. Valid is false when the directive is
// there but its value is not a count of seconds.
func (d directives) delta(name string) (v time.Duration, valid, present bool) {
	a := d.find(name)
	if a == nil || !a.valid {
		return 0, false, a != nil
	}
	v, valid = parseDelta(a.text)
	return v, valid, true
}

// seconds is a directive's delta-seconds, 0 when absent or invalid.
func (d directives) seconds(name string) time.Duration {
	v, _, _ := d.delta(name)
	return v
}

// keepsOut are the fields that private="…" or no-cache="…" cannot take out of a
// stored response without changing what it means; naming one counts as the
// unqualified directive, as §5.2.2.4 allows.
var keepsOut = []string{
	"Age", "Cache-Control", "Cdn-Cache-Control", "Content-Encoding", "Content-Length", "Content-Location",
	"Content-Range", "Content-Type", "Date", "Etag", "Expires", "Last-Modified", "Location", "Vary",
}

// fields are the names that the qualified form of private or no-cache lists;
// none for the unqualified form.
func (d directives) fields(name string) []string {
	a := d.find(name)
	if a == nil || !a.given || !a.valid {
		return nil
	}
	var out []string
	for _, f := range splitList(a.text) {
		f = textproto.CanonicalMIMEHeaderKey(f)
		if slices.Contains(keepsOut, f) {
			return nil
		}
		out = append(out, f)
	}
	return out
}

// unqualified says that private or no-cache is there and covers the whole
// response.
func (d directives) unqualified(name string) bool {
	return d.has(name) && len(d.fields(name)) == 0
}

// requestDirectives are a request's Cache-Control; Pragma: no-cache counts
// where that is absent (§5.4).
func requestDirectives(h http.Header) directives {
	lines := h.Values("Cache-Control")
	if len(lines) == 0 && slices.ContainsFunc(h.Values("Pragma"), func(v string) bool {
		return parseDirectives([]string{v}).has("no-cache")
	}) {
		return directives{{name: "no-cache", valid: true}}
	}
	return parseDirectives(lines)
}

// directives are what a response says to this cache, and the field that says it.
func (r *Response) directives() (d directives, field string) {
	if r.Surrogate {
		if d, ok := surrogateDirectives(r.Header); ok {
			return d, "Surrogate-Control"
		}
	}
	return responseDirectives(r.Header)
}

// responseDirectives are what a response says to this cache, and the field that
// says it: the first targeted field that is valid and not empty, else
// Cache-Control (RFC 9213 §2.2).
func responseDirectives(h http.Header) (d directives, field string) {
	for _, name := range targetList {
		if d, ok := parseTargeted(h.Values(name)); ok {
			return d, name
		}
	}
	return parseDirectives(h.Values("Cache-Control")), "Cache-Control"
}

// parseTargeted reads a targeted field: a Structured Fields dictionary. Not ok
// means to act as if it were absent: it is empty or no valid dictionary. A
// directive whose value has the wrong type is left out (RFC 9213 §2.1).
func parseTargeted(lines []string) (d directives, ok bool) {
	if len(lines) == 0 {
		return nil, false
	}
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dict.Names()) == 0 {
		return nil, false
	}
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, _ := member.(httpsfv.Item)
		if !slices.Contains(known, name) {
			continue
		}
		switch v := item.Value.(type) {
		case int64:
			d = append(d, directive{name: name, text: strconv.FormatInt(v, 10), given: true, valid: true})
		case bool:
			if v {
				d = append(d, directive{name: name, valid: true})
			}
		case string:
			if name == "no-cache" || name == "private" {
				d = append(d, directive{name: name, text: v, given: true, valid: true})
			}
		}
	}
	return d, true
}

// parseDirectives reads the lines of a Cache-Control field (§5.2). It takes
// whatever comes. Of a repeated directive the first counts (§4.2.1); private and
// no-cache, repeated, count as unqualified.
func parseDirectives(lines []string) (d directives) {
	for _, line := range lines {
		for _, member := range splitList(line) {
			a := parseDirective(member)
			old := d.find(a.name)
			switch {
			case !slices.Contains(known, a.name):
			case old == nil:
				d = append(d, a)
			case a.name == "private" || a.name == "no-cache":
				old.given = false
			}
		}
	}
	return d
}

// parseDirective reads name, name=token or name="quoted string".
func parseDirective(s string) directive {
	name, text, given := strings.Cut(s, "=")
	a := directive{name: strings.ToLower(trimSpace(name)), text: text, given: given, valid: true}
	if given {
		a.valid = trimSpace(name) == name && trimSpace(text) == text
	}
	if strings.HasPrefix(text, `"`) {
		a.text, a.valid = unquote(text)
	}
	return a
}

// unquote reads a quoted-string (RFC 9110 §5.6.4) that fills s.
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return s, false
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '"' {
			return s, false
		}
		if s[i] == '\\' {
			i++
			if i == len(s)-1 {
				return s, false
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), true
}

// parseDelta reads delta-seconds (§1.2.2): digits only, and as much as we can
// count when they are too many.
func parseDelta(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var n time.Duration
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+time.Duration(c-'0'), maxDelta/time.Second)
	}
	return n * time.Second, true
}
