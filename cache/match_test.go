package cache

import (
	"regexp"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, called string
		want            bool
	}{
		{"example.org", "http://example.org/x", true},
		{"Example.ORG", "http://example.org/x", true},
		{"example.org", "http://www.example.org/x", false},
		{"example.org", "http://example.org.evil/x", false},
		{"example.org", "http://example.org:8080/x", true},
		{"example.org:80", "http://example.org:8080/x", false},
		{"example.org:*", "http://example.org:8080/x", true},
		{"example.org:8080/a*", "http://example.org:8080/abc", true},
		{"[2001:db8::1]", "http://[2001:db8::1]/x", true},
		{"*.example.org", "https://a.b.example.org/x", true},
		{"*.example.org", "https://example.org/x", false},
		{"*example.org", "https://example.org/x", true},
		{"*.example.org", "http://evil/?x=a.example.org", false},
		{"dl.example.org/big/*", "http://dl.example.org/big/file", true},
		{"dl.example.org/big/*", "http://dl.example.org/bigger", false},
		{"dl.example.org/big", "http://dl.example.org/big", true},
		{"dl.example.org/big", "http://dl.example.org/big/more", false},
		{"dl.example.org/", "http://dl.example.org/", true},
		{"dl.example.org/", "http://dl.example.org/x", false},
		{"dl.example.org/Big", "http://dl.example.org/big", false},
		{"http://*/pool/*.deb", "http://a.example/debian/pool/x.deb", true},
		{"http://*/pool/*.deb", "https://a.example/debian/pool/x.deb", false},
		{"*://a.example/x", "https://a.example/x", true},
		{"HTTP://A.example/x", "http://a.example/x", true},
		{"http://a.example/x", "http://a.example:8080/x", true},
		{"http://a.example:80/x", "http://a.example:8080/x", false},
		{"http://a.example", "http://a.example/x", false},
		{"http://a.example/*", "http://a.example/x?q=1#f", true},
		{"http://a.example/x", "http://a.example/x\nvary: y", true},
		{"btih:01*", "btih:0123/dir/x", true},
		{"*.example.org", "btih:0123/www.example.org", false},
		{"example.org", "example.org", true}, // a name that is no URL
		{"a*b*c", "abc", true},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
		{"**a**", "xax", true},
		{"a**", "a", true},
		{"*ab", "aab", true},
		{"*ab*ab", "ab", false},
		{"", "", true},
		{"", "x", false},
	} {
		if got := Match(c.pattern, c.called); got != c.want {
			t.Errorf("Match(%q, %q) is %v", c.pattern, c.called, got)
		}
	}
	for pattern, sound := range map[string]bool{
		"": false, "*": false, "*/*": false, "*://*": false, "a\nb": false, "a\x00": false, strings.Repeat("a", 1025): false,
		"a": true, "*.a": true, strings.Repeat("a", 1024): true,
	} {
		if err := CheckPattern(pattern); (err == nil) != sound {
			t.Errorf("CheckPattern(%q): %v", clip(pattern, 20), err)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.org/x*y", "http://a.example.org/xzy")
	f.Add("a*a*", "aa")
	f.Add("http://*/:", "http://[:]:/")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		Match(pattern, text) // must not panic
		if len(pattern)+len(text) > 200 || strings.ContainsAny(pattern+text, "\n") {
			return
		}
		slow, err := regexp.Compile(`^` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `(?s:.*)`) + `$`)
		if err != nil { // not UTF-8
			return
		}
		if got := glob(pattern, text); got != slow.MatchString(text) {
			t.Errorf("glob(%q, %q) is %v", pattern, text, got)
		}
	})
}
