package httpcache

import (
	"testing"
	"time"
)

func TestFreshnessLifetime(t *testing.T) {
	const h = time.Hour
	const date = "Date: Sun, 01 Mar 2026 12:00:00 GMT"
	for _, c := range []struct {
		section, name string
		resp          *Response
		want          time.Duration
		from          string
	}{
		{"§4.2.1", "s-maxage first", stored("Cache-Control: max-age=1, s-maxage=2", "Expires: "+at(h)), 2 * time.Second, "s-maxage"},
		{"§4.2.1", "max-age before Expires", stored("Cache-Control: max-age=1", "Expires: "+at(h)), time.Second, "max-age"},
		{"§4.2.1", "Expires less Date", stored("Date: "+at(-h), "Expires: "+at(h)), 2 * h, "Expires"},
		{"§4.2.1", "Expires before Date", stored("Date: "+at(2*h), "Expires: "+at(h)), 0, "Expires"},
		{"§4.2.1", "Expires, invalid Date", stored("Date: foo", "Expires: "+at(h)), h, "Expires"},
		{"§4.2.1", "the first of two", stored("Cache-Control: max-age=7, max-age=1"), 7 * time.Second, "max-age"},
		{"§4.2.1", "the first of two lines", stored("Cache-Control: max-age=1", "Cache-Control: max-age=7"), time.Second, "max-age"},
		{"§4.2.1", "two Expires", stored("Expires: "+at(h), "Expires: "+at(2*h)), 0, "Expires"},
		{"§4.2.1", "invalid max-age", stored("Cache-Control: max-age=a7", "Expires: "+at(h)), 0, "max-age"},
		{"§4.2.1", "negative max-age", stored("Cache-Control: max-age=-7"), 0, "max-age"},
		{"§4.2.1", "max-age without value", stored("Cache-Control: max-age"), 0, "max-age"},
		{"§4.2.1", "fraction", stored("Cache-Control: max-age=7.0"), 0, "max-age"},
		{"§5.2", "case", stored("Cache-Control: MaX-aGe=7"), 7 * time.Second, "max-age"},
		{"§5.2", "quoted", stored(`Cache-Control: max-age="7"`), 7 * time.Second, "max-age"},
		{"§5.2", "single quotes", stored(`Cache-Control: max-age='7'`), 0, "max-age"},
		{"§5.2", "space before =", stored("Cache-Control: max-age =7"), 0, "max-age"},
		{"§5.2", "space after =", stored("Cache-Control: max-age= 7"), 0, "max-age"},
		{"§5.2", "inside another's quotes", stored(`Cache-Control: x="max-age=7", max-age=1`), time.Second, "max-age"},
		{"§1.2.2", "leading zeros", stored("Cache-Control: max-age=007"), 7 * time.Second, "max-age"},
		{"§1.2.2", "2^31", stored("Cache-Control: max-age=2147483648"), maxDelta, "max-age"},
		{"§1.2.2", "more than 2^31", stored("Cache-Control: max-age=99999999999999999999999"), maxDelta, "max-age"},
		{"§5.3", "Expires: 0", stored("Expires: 0"), 0, "Expires"},
		{"§5.3", "Expires in RFC 850", stored(date, "Expires: Sunday, 01-Mar-26 13:00:00 GMT"), h, "Expires"},
		{"§5.3", "Expires in asctime", stored(date, "Expires: Sun Mar  1 13:00:00 2026"), h, "Expires"},
		{"§4.2.2", "a tenth of the age", stored("Last-Modified: " + at(-10*h)), h, "heuristic"},
		{"§4.2.2", "at most a day", stored("Last-Modified: " + at(-1000*h)), 24 * h, "heuristic"},
		{"§4.2.2", "modified after Date", stored("Last-Modified: " + at(h)), 0, "none"},
		{"§4.2.2", "no Last-Modified", stored(), 0, "none"},
		{"§4.2.2", "status not heuristically cacheable", answer(get(), 503, "Last-Modified: "+at(-10*h)), 0, "none"},
		{"§4.2.2", "such a status, public", answer(get(), 503, "Last-Modified: "+at(-10*h), "Cache-Control: public"), h, "heuristic"},
		{"RFC 9213 §2.2", "targeted over Cache-Control", stored("CDN-Cache-Control: max-age=7", "Cache-Control: max-age=1"), 7 * time.Second, "CDN-Cache-Control max-age"},
		{"RFC 9213 §2.2", "targeted over Expires", stored("CDN-Cache-Control: foo", "Expires: "+at(h)), 0, "none"},
		{"RFC 9213 §2.2", "empty", stored("CDN-Cache-Control: ", "Cache-Control: max-age=1"), time.Second, "max-age"},
		{"RFC 9213 §2.1", "not a dictionary", stored("CDN-Cache-Control: max-age =7", "Cache-Control: max-age=1"), time.Second, "max-age"},
		{"RFC 9213 §2.1", "large", stored("CDN-Cache-Control: max-age=99999999999"), maxDelta, "CDN-Cache-Control max-age"},
		{"RFC 9213 §2.1", "negative", stored("CDN-Cache-Control: max-age=-1"), 0, "CDN-Cache-Control max-age"},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			if got, from := FreshnessLifetime(c.resp); got != c.want || from != c.from {
				t.Errorf("got %v by %q, want %v by %q", got, from, c.want, c.from)
			}
		})
	}
}

func TestCurrentAge(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		section, name string
		lines         []string
		delay, later  time.Duration
		want          time.Duration
	}{
		{"§4.2.3", "resident time", nil, 0, 5 * s, 5 * s},
		{"§4.2.3", "apparent age", []string{"Date: " + at(-9*s)}, 0, 5 * s, 14 * s},
		{"§4.2.3", "origin's clock ahead", []string{"Date: " + at(9*s)}, 0, 5 * s, 5 * s},
		{"§4.2.3", "Age and delay", []string{"Age: 30"}, 2 * s, 5 * s, 37 * s},
		{"§4.2.3", "the larger of both", []string{"Age: 30", "Date: " + at(-60*s)}, 2 * s, 5 * s, 65 * s},
		{"§4.2.3", "our clock set back", []string{"Age: 30"}, 0, -5 * s, 30 * s},
		{"§5.1", "not a number", []string{"Age: abc"}, 0, 0, 0},
		{"§5.1", "a fraction", []string{"Age: 7200.0"}, 0, 0, 0},
		{"§5.1", "negative", []string{"Age: -7200"}, 0, 0, 0},
		{"§5.1", "first member", []string{"Age: 7, 0"}, 0, 0, 7 * s},
		{"§5.1", "first line", []string{"Age: 0", "Age: 7"}, 0, 0, 0},
		{"§1.2.2", "overflow", []string{"Age: 99999999999999999999"}, 0, 0, maxDelta},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			r := NewResponse(get(), 200, header(c.lines...), t0.Add(-c.delay), t0)
			if got := CurrentAge(r, t0.Add(c.later)); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestParseDate(t *testing.T) {
	want := time.Date(2050, 8, 18, 2, 1, 18, 0, time.UTC)
	for s, ok := range map[string]bool{
		"Thu, 18 Aug 2050 02:01:18 GMT":    true,
		"THU, 18 AUG 2050 02:01:18 gMT":    true,
		"Thursday, 18-Aug-50 02:01:18 GMT": true,
		"Thu Aug 18 02:01:18 2050":         true,
		"Thu, 18 Aug 2050 02:01:18 UTC":    false,
		"Thu, 18 Aug 2050 02:01:18 AEST":   false,
		"Thu, 18 Aug 2050 02:01:18 +0000":  false,
		"Thu, 18 Aug 2050 02:01:18":        false,
		"Thu, 18 Aug 50 02:01:18 GMT":      false,
		"Thu 18 Aug 2050 02:01:18 GMT":     false,
		"Thu, 18  Aug  2050 02:01:18 GMT":  false,
		"Thu, 18-Aug-2050 02:01:18 GMT":    false,
		"Thu, 18 Aug 2050 02.01.18 GMT":    false,
		"Thu, 18 Aug 2050 2:01:18 GMT":     false,
		"Thu, 18 Aug 2050 02:01:18.5 GMT":  false,
		"Thu, 31 Feb 2050 02:01:18 GMT":    false,
		"Foo, 18 Aug 2050 02:01:18 GMT":    false,
		"0":                                false,
		"":                                 false,
	} {
		got, valid := parseDate(s, t0)
		if valid != ok || ok && !got.Equal(want) {
			t.Errorf("RFC 9110 §5.6.7: %q: got %v, %v", s, got, valid)
		}
	}
	for s, year := range map[string]int{"Friday, 18-Aug-75 02:01:18 GMT": 2075, "Friday, 18-Aug-77 02:01:18 GMT": 1977} {
		if got, ok := parseDate(s, t0); !ok || got.Year() != year {
			t.Errorf("RFC 9110 §5.6.7: more than 50 years ahead is past: %q: got %v, %v", s, got, ok)
		}
	}
}
