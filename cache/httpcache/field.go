package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// formatDelta writes whole seconds, rounded down, from 0 to 2^31.
func formatDelta(d time.Duration) string {
	return strconv.FormatInt(int64(min(max(d, 0), maxDelta)/time.Second), 10)
}

// trimSpace takes optional white space (RFC 9110 §5.6.3) off both ends.
func trimSpace(s string) string { return strings.Trim(s, " \t") }

// splitList splits one line of a list field at the commas outside quoted
// strings and leaves out empty members (RFC 9110 §5.6.1). A quote that is never
// closed is an ordinary character, so that it cannot hide what follows it.
func splitList(s string) []string {
	var out []string
	start := 0
	add := func(end int) {
		if m := trimSpace(s[start:end]); m != "" {
			out = append(out, m)
		}
		start = end + 1
	}
	open := true // a closing quote may still follow
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ',':
			add(i)
		case '"':
			if !open {
				continue
			}
			if end := closingQuote(s, i); end > 0 {
				i = end
			} else {
				open = false
			}
		}
	}
	add(len(s))
	return out
}

// closingQuote is the index of the quote that closes the one at i, -1 for none.
func closingQuote(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// weekdays open every HTTP-date.
var weekdays = []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}

// parseDate reads an HTTP-date (RFC 9110 §5.6.7) in any of its three formats,
// whatever its letters' case, and nothing that is only like one: time.Parse
// alone takes too much. The two-digit year of the second format is at most 50
// years after ref.
func parseDate(s string, ref time.Time) (time.Time, bool) {
	day, rest, _ := strings.Cut(s, " ")
	name, comma := strings.CutSuffix(day, ",")
	var layout string
	for _, w := range weekdays {
		switch {
		case comma && strings.EqualFold(name, w[:3]):
			layout = "02 Jan 2006 15:04:05 GMT"
		case comma && strings.EqualFold(name, w):
			layout = "02-Jan-06 15:04:05 GMT"
		case !comma && strings.EqualFold(name, w[:3]):
			layout = "Jan _2 15:04:05 2006"
		}
	}
	if n := len(rest) - 3; n > 0 && strings.EqualFold(rest[n:], "GMT") {
		rest = rest[:n] + "GMT"
	}
	t, err := time.Parse(layout, rest)
	if layout == "" || err != nil || !strings.EqualFold(t.Format(layout), rest) {
		return time.Time{}, false
	}
	if strings.Contains(layout, "-06") && !ref.IsZero() {
		t = t.AddDate(ref.Year()/100*100+t.Year()%100-t.Year(), 0, 0)
		if t.After(ref.AddDate(50, 0, 0)) {
			t = t.AddDate(-100, 0, 0)
		}
	}
	return t.UTC(), true
}

// singleDate is the date of a field that has exactly one line, a valid one.
func singleDate(h http.Header, name string, ref time.Time) (t time.Time, valid, present bool) {
	lines := h.Values(name)
	if len(lines) != 1 {
		return time.Time{}, false, len(lines) > 0
	}
	t, valid = parseDate(trimSpace(lines[0]), ref)
	return t, valid, true
}
