package httpcache

import (
	"slices"
	"testing"
)

func TestMatchesVary(t *testing.T) {
	lines := func(s ...string) []string { return s }
	for _, c := range []struct {
		section, name string
		vary, a, b    []string
		want          bool
	}{
		{"§4.1", "no Vary", nil, lines("Foo: 1"), lines("Foo: 2"), true},
		{"§4.1", "same", lines("Vary: foo"), lines("Foo: 1"), lines("Foo: 1"), true},
		{"§4.1", "different", lines("Vary: Foo"), lines("Foo: 1"), lines("Foo: 2"), false},
		{"§4.1", "absent before", lines("Vary: Foo"), nil, lines("Foo: 1"), false},
		{"§4.1", "absent now", lines("Vary: Foo"), lines("Foo: 1"), nil, false},
		{"§4.1", "absent and empty", lines("Vary: Foo"), lines("Foo:"), nil, false},
		{"§4.1", "absent in both", lines("Vary: Foo, Bar"), lines("Foo: 1"), lines("Foo: 1"), true},
		{"§4.1", "the second differs", lines("Vary: Foo", "Vary: Bar"), lines("Foo: 1", "Bar: 1"), lines("Foo: 1", "Bar: 2"), false},
		{"§4.1", "not named", lines("Vary: Foo"), lines("Foo: 1", "Bar: 1"), lines("Foo: 1", "Bar: 2"), true},
		{"§4.1", "values cannot shift", lines("Vary: A, B"), lines("A: 1", "B: 2"), lines("A: 1,B,2", "B: "), false},
		{"§4.1", "star", lines("Vary: *"), nil, nil, false},
		{"§4.1", "star in a list", lines("Vary: , Foo, *"), nil, nil, false},
		{"§4.1", "combined lines", lines("Vary: Foo"), lines("Foo: 1, 2"), lines("Foo: 1", "Foo: 2"), true},
		{"§4.1", "white space", lines("Vary: Foo"), lines("Foo: 1,2"), lines("Foo: 1 ,  2"), true},
		{"§4.1", "order of unknown field", lines("Vary: Foo"), lines("Foo: 1,2"), lines("Foo: 2,1"), false},
		{"§4.1", "case of unknown field", lines("Vary: Foo"), lines("Foo: a"), lines("Foo: A"), false},
		{"RFC 9110 §12.5.4", "language order", lines("Vary: Accept-Language"), lines("Accept-Language: en, de"), lines("Accept-Language: de, en"), true},
		{"RFC 9110 §12.5.4", "language case", lines("Vary: Accept-Language"), lines("Accept-Language: en, de"), lines("Accept-Language: eN,  De"), true},
		{"RFC 9110 §12.4.2", "weights", lines("Vary: Accept-Encoding"), lines("Accept-Encoding: gzip;q=1.0, br;q=0.5"), lines("Accept-Encoding: br; q=0.5, gzip"), true},
		{"RFC 9110 §12.4.2", "other weights", lines("Vary: Accept-Encoding"), lines("Accept-Encoding: gzip;q=0"), lines("Accept-Encoding: gzip"), false},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			r := answer(get(c.a...), 200, c.vary...)
			if got := MatchesVary(get(c.b...), r); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if got := VaryFields(header("Vary: b, A", "Vary: B")); !slices.Equal(got, []string{"A", "B"}) {
		t.Errorf("VaryFields: %q", got)
	}
	if got := VaryKey(nil, get("Foo: 1").Header); got != "" {
		t.Errorf("VaryKey without fields: %q", got)
	}
}
