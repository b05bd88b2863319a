package httpcache

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxRanges is how many ranges one request may ask for.
const maxRanges = 64

// Range is a part of a representation: Length bytes from Start on, at least 1.
type Range struct{ Start, Length int64 }

// ContentRange is the Content-Range value for r out of size bytes.
func (r Range) ContentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", r.Start, r.Start+r.Length-1, size)
}

// RangeError says why the ranges of a request are not served.
type RangeError struct {
	Status int    // 416, or 400 where the field is malformed
	Field  string // the field's value, shortened
	Why    string
}

func (e *RangeError) Error() string { return fmt.Sprintf("range %q: %s", e.Field, e.Why) }

// Ranges are the parts of the representation resp, of size bytes, that req asks
// for: nil for all of it. Range counts only for GET on a 200, and only while
// If-Range holds (RFC 9110 §14.2). Errors are *RangeError.
func Ranges(req *http.Request, resp *Response, size int64) ([]Range, error) {
	field := req.Header.Get("Range")
	if field == "" || req.Method != http.MethodGet || resp.Status != http.StatusOK || !ifRangeHolds(req.Header, resp) {
		return nil, nil
	}
	return ParseRange(field, size)
}

// ParseRange reads a Range field (RFC 9110 §14.2) for a representation of size
// bytes. It returns the satisfiable ranges in the order asked, cut to size; nil
// for an empty field or a unit other than bytes, which ask for everything. At
// most 64 ranges are accepted, of which at most two may overlap. Errors are
// *RangeError.
func ParseRange(field string, size int64) ([]Range, error) {
	fail := func(status int, why string) ([]Range, error) {
		if len(field) > 64 {
			field = field[:64] + "…"
		}
		return nil, &RangeError{Status: status, Field: field, Why: why}
	}
	unit, set, found := strings.Cut(field, "=")
	if !strings.EqualFold(trimSpace(unit), "bytes") {
		return nil, nil
	}
	if !found {
		return fail(http.StatusBadRequest, `"=" is missing`)
	}
	if strings.Count(set, ",") >= maxRanges {
		return fail(http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("more than %d ranges", maxRanges))
	}
	specs := splitList(set)
	if len(specs) == 0 {
		return fail(http.StatusBadRequest, "no range given")
	}
	var out []Range
	for _, spec := range specs {
		r, why := parseSpec(spec, size)
		if why != "" {
			return fail(http.StatusBadRequest, why)
		}
		if r.Length > 0 {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return fail(http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("nothing of it is within %d bytes", size))
	}
	if overlaps(out) > 1 {
		return fail(http.StatusRequestedRangeNotSatisfiable, "more than two ranges overlap")
	}
	return out, nil
}

// parseSpec reads first-last, first- or -suffix. A Range of length 0 cannot be
// satisfied.
func parseSpec(spec string, size int64) (r Range, why string) {
	first, last, found := strings.Cut(spec, "-")
	if !found || first == "" && last == "" {
		return r, fmt.Sprintf("%.32q is not first-last, first- or -length", spec)
	}
	a, okA := parsePosition(first)
	b, okB := parsePosition(last)
	if first != "" && !okA || last != "" && !okB {
		return r, fmt.Sprintf("%.32q has a position that is not a number", spec)
	}
	switch {
	case first == "":
		n := min(b, size)
		return Range{size - n, n}, ""
	case last != "" && b < a:
		return r, fmt.Sprintf("%.32q ends before it starts", spec)
	case a >= size:
		return r, ""
	case last == "" || b >= size:
		b = size - 1
	}
	return Range{a, b - a + 1}, ""
}

// parsePosition reads digits; what is too large to count is past every end.
func parsePosition(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// overlaps counts the pairs of neighbours, in order of their start, of which
// the second starts before everything up to it has ended.
func overlaps(ranges []Range) (n int) {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int {
		return int(min(max(a.Start-b.Start, -1), 1))
	})
	var end int64
	for _, r := range sorted {
		if r.Start < end {
			n++
		}
		end = max(end, r.Start+r.Length)
	}
	return n
}

// ParseContentRange reads the Content-Range of a 206 (RFC 9110 §14.4). Size is
// -1 where the origin does not know it.
func ParseContentRange(field string) (r Range, size int64, err error) {
	bad := func(why string) (Range, int64, error) {
		return Range{}, 0, fmt.Errorf("content-range %.64q: %s", field, why)
	}
	unit, rest, _ := strings.Cut(trimSpace(field), " ")
	span, total, found := strings.Cut(rest, "/")
	if !strings.EqualFold(unit, "bytes") || !found {
		return bad(`not "bytes first-last/size"`)
	}
	first, last, _ := strings.Cut(span, "-")
	a, okA := parsePosition(first)
	b, okB := parsePosition(last)
	if !okA || !okB || b < a || b == math.MaxInt64 {
		return bad("first-last is not a range")
	}
	if total == "*" {
		return Range{a, b - a + 1}, -1, nil
	}
	size, ok := parsePosition(total)
	if !ok || size <= b {
		return bad("size is not a number beyond last")
	}
	return Range{a, b - a + 1}, size, nil
}

// Whole is the head of the 200 that the 206 part is a part of, with the range
// that part brings and the size of the whole, -1 if unknown (§3.3, §3.4). It
// fails for a multipart 206 and for one whose Content-Length is not its range's.
// Whether parts may be put together is for Combinable to say.
func Whole(part *Response) (whole *Response, r Range, size int64, err error) {
	fail := func(err error) (*Response, Range, int64, error) { return nil, Range{}, 0, err }
	if part.Status != http.StatusPartialContent {
		return fail(fmt.Errorf("status %d is not 206", part.Status))
	}
	lines := part.Header.Values("Content-Range")
	if len(lines) != 1 {
		return fail(fmt.Errorf("206 with %d Content-Range fields", len(lines)))
	}
	if r, size, err = ParseContentRange(lines[0]); err != nil {
		return fail(err)
	}
	if n := part.Header.Get("Content-Length"); n != "" && n != strconv.FormatInt(r.Length, 10) {
		return fail(fmt.Errorf("Content-Length %.20q, but %s", n, lines[0]))
	}
	w := *part
	w.Status = http.StatusOK
	w.Header = part.Header.Clone()
	for _, name := range []string{"Content-Range", "Content-Length", "Content-Digest", "Content-Md5"} {
		w.Header.Del(name)
	}
	if size >= 0 {
		w.Header.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	return &w, r, size, nil
}
