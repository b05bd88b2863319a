package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSplitList(t *testing.T) {
	for s, want := range map[string][]string{
		"":                   nil,
		" , ,\t,":            nil,
		"a,b":                {"a", "b"},
		" a ,, b\t":          {"a", "b"},
		`a="x,y", b`:         {`a="x,y"`, "b"},
		`a="x\",y", b`:       {`a="x\",y"`, "b"},
		`a="never, no-store`: {`a="never`, "no-store"},
		`a="x\`:              {`a="x\`},
	} {
		if got := splitList(s); !slices.Equal(got, want) {
			t.Errorf("RFC 9110 §5.6.1: %q: got %q, want %q", s, got, want)
		}
	}
}

func TestQualifiedDirectives(t *testing.T) {
	for line, want := range map[string][]string{
		`no-cache`:                    nil,
		`no-cache=""`:                 nil,
		`no-cache="a"`:                {"A"},
		`no-cache="a, b"`:             {"A", "B"},
		`no-cache=a`:                  {"A"},
		`no-cache="a", no-cache="b"`:  nil,
		`no-cache="a", no-cache`:      nil,
		`no-cache="a`:                 nil,
		`no-cache="a"b"`:              nil,
		`no-cache="a, cache-control"`: nil,
		`NO-CACHE="\a"`:               {"A"},
	} {
		d := parseDirectives([]string{line})
		if got := d.fields("no-cache"); !slices.Equal(got, want) || d.unqualified("no-cache") != (want == nil) {
			t.Errorf("§5.2.2.4: %s: got %q, unqualified %v", line, got, d.unqualified("no-cache"))
		}
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{
		"max-age=3600, public", `private="a, b", max-age="5"`, `x="\"", no-store`, "max-age", "=", ",,,", `no-cache="`,
		"max-age=99999999999999999999", "s-maxage=?1;a=b", "stale-while-revalidate=-1",
	} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, cc, targeted string) {
		req := get("Cache-Control: " + cc)
		resp := NewResponse(req, 200, header("Cache-Control: "+cc, "CDN-Cache-Control: "+targeted, `ETag: "a"`), t0, t0)
		if d, _ := FreshnessLifetime(resp); d < 0 || d > maxDelta {
			t.Fatalf("lifetime %v", d)
		}
		v := Decide(req, resp, t0.Add(1))
		if v.Action == Serve && v.TTL <= 0 && !v.Stale {
			t.Fatalf("stale response served as fresh: %+v", v)
		}
		d := parseDirectives([]string{cc})
		for _, a := range d {
			if a.name != strings.ToLower(a.name) || d.find(a.name).text != a.text {
				t.Fatalf("name %q of %+v", a.name, d)
			}
		}
		if ok, _ := Storable(get(), resp); ok {
			if d, _ := responseDirectives(resp.Header); d.unqualified("private") || d.has("no-store") && !d.has("must-understand") {
				t.Fatal("stored what is private")
			}
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{"Thu, 18 Aug 2050 02:01:18 GMT", "Thursday, 18-Aug-50 02:01:18 GMT", "Thu Aug  8 02:01:18 2050", "0", "Sun,", "Thu, "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := parseDate(s, t0); ok && (d.Year() > t0.Year()+50 && strings.Contains(s, "-") || d.Year() > 9999) {
			t.Fatalf("%q: %v", s, d)
		}
	})
}

func TestSurrogateControl(t *testing.T) {
	for _, c := range []struct {
		surrogate bool
		lines     []string
		want      time.Duration
		from      string
	}{
		{false, []string{"Surrogate-Control: max-age=10", "Cache-Control: max-age=20"}, 20 * time.Second, "max-age"},
		{true, []string{"Surrogate-Control: max-age=10", "Cache-Control: max-age=20", "CDN-Cache-Control: max-age=30"}, 10 * time.Second, "Surrogate-Control max-age"},
		{true, []string{"Surrogate-Control: foobar, MaX-aGe=10+600", "Expires: 0"}, 10 * time.Second, "Surrogate-Control max-age"},
		{true, []string{"Surrogate-Control: max-age=10;other, max-age=5 ; Cistern", "Cache-Control: no-store"}, 5 * time.Second, "Surrogate-Control max-age"},
		{true, []string{"Surrogate-Control: max-age=10;other", "Cache-Control: max-age=20"}, 20 * time.Second, "max-age"},
		{true, []string{`Surrogate-Control: content="ESI/1.0"`, "Cache-Control: max-age=20"}, 20 * time.Second, "max-age"},
	} {
		r := &Response{Status: 200, Header: header(c.lines...), Surrogate: c.surrogate}
		if got, from := FreshnessLifetime(r); got != c.want || from != c.from {
			t.Errorf("%v %q: %v by %s", c.surrogate, c.lines, got, from)
		}
	}
	r := &Response{Status: 200, Header: header("Surrogate-Control: no-store", "Cache-Control: max-age=20"), Surrogate: true}
	if ok, why := Storable(&http.Request{Method: "GET"}, r); ok {
		t.Errorf("stored by %s", why)
	}
}
