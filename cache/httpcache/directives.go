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

// directives are the members of a Cache-Control field by lower-case name.
type directives map[string]argument

// argument is what follows the name of a directive.
type argument struct {
	text  string
	given bool // an "=" was there
	valid bool // its syntax is token or quoted-string, without space around "="
}

func (d directives) has(name string) bool { _, ok := d[name]; return ok }

// delta is a directive's delta-seconds. Valid is false when the directive is
// there but its value is not a count of seconds.
func (d directives) delta(name string) (v time.Duration, valid, present bool) {
	a, present := d[name]
	if !present || !a.valid {
		return 0, false, present
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
	a := d[name]
	if !a.given || !a.valid {
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
		return directives{"no-cache": {valid: true}}
	}
	return parseDirectives(lines)
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
	d = directives{}
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, _ := member.(httpsfv.Item)
		switch v := item.Value.(type) {
		case int64:
			d[name] = argument{text: strconv.FormatInt(v, 10), given: true, valid: true}
		case bool:
			if v {
				d[name] = argument{valid: true}
			}
		case string:
			if name == "no-cache" || name == "private" {
				d[name] = argument{text: v, given: true, valid: true}
			}
		}
	}
	return d, true
}

// parseDirectives reads the lines of a Cache-Control field (§5.2). It takes
// whatever comes. Of a repeated directive the first counts (§4.2.1), but of
// private and no-cache the one that covers more.
func parseDirectives(lines []string) directives {
	d := directives{}
	for _, line := range lines {
		for _, member := range splitList(line) {
			name, a := parseDirective(member)
			old, again := d[name]
			switch {
			case !again:
				d[name] = a
			case name == "private" || name == "no-cache":
				d[name] = argument{
					text:  old.text + "," + a.text,
					given: old.given && a.given, valid: old.valid && a.valid,
				}
			}
		}
	}
	return d
}

// parseDirective reads name, name=token or name="quoted string".
func parseDirective(s string) (name string, a argument) {
	name, text, given := strings.Cut(s, "=")
	a = argument{text: text, given: given, valid: true}
	if given {
		a.valid = trimSpace(name) == name && trimSpace(text) == text
	}
	if strings.HasPrefix(text, `"`) {
		a.text, a.valid = unquote(text)
	}
	return strings.ToLower(trimSpace(name)), a
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
