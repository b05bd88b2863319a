package httpcache

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseRange(t *testing.T) {
	many := "bytes=" + strings.Repeat("0-0,", 64) + "0-0"
	for _, c := range []struct {
		section, field string
		size           int64
		want           []Range
		status         int
		why            string
	}{
		{"§14.2", "", 10, nil, 0, ""},
		{"§14.2", "seconds=1-2", 10, nil, 0, ""},
		{"§14.1.1", "BYTES=0-1", 10, []Range{{0, 2}}, 0, ""},
		{"§14.1.2", "bytes=0-1", 10, []Range{{0, 2}}, 0, ""},
		{"§14.1.2", "bytes=9-9", 10, []Range{{9, 1}}, 0, ""},
		{"§14.1.2", "bytes=5-99", 10, []Range{{5, 5}}, 0, ""},
		{"§14.1.2", "bytes=5-", 10, []Range{{5, 5}}, 0, ""},
		{"§14.1.2", "bytes=-3", 10, []Range{{7, 3}}, 0, ""},
		{"§14.1.2", "bytes=-99", 10, []Range{{0, 10}}, 0, ""},
		{"§14.1.2", "bytes=0-99999999999999999999", 10, []Range{{0, 10}}, 0, ""},
		{"§14.1.2", "bytes=99999999999999999999-", 10, nil, 416, "10 bytes"},
		{"§14.1.2", "bytes=10-", 10, nil, 416, "10 bytes"},
		{"§14.1.2", "bytes=-0", 10, nil, 416, "10 bytes"},
		{"§14.1.2", "bytes=0-", 0, nil, 416, "0 bytes"},
		{"§14.1.2", "bytes=-5", 0, nil, 416, "0 bytes"},
		{"§14.1.2", "bytes=3-2", 10, nil, 400, "ends before"},
		{"§14.1.2", "bytes= 0-1 ,, 3-4 ", 10, []Range{{0, 2}, {3, 2}}, 0, ""},
		{"§14.1.2", "bytes=8-9,0-1", 10, []Range{{8, 2}, {0, 2}}, 0, ""},
		{"§14.1.2", "bytes=0-1,20-30", 10, []Range{{0, 2}}, 0, ""},
		{"§14.2", "bytes=0-5,4-9", 10, []Range{{0, 6}, {4, 6}}, 0, ""},
		{"§14.2", "bytes=0-5,4-9,1-2", 10, nil, 416, "overlap"},
		{"§14.2", "bytes=0-,0-,0-,0-", 10, nil, 416, "overlap"},
		{"§14.2", many, 10, nil, 416, "64"},
		{"§14.1.1", "bytes", 10, nil, 400, `"="`},
		{"§14.1.1", "bytes=", 10, nil, 400, "no range"},
		{"§14.1.1", "bytes=-", 10, nil, 400, "first-last"},
		{"§14.1.1", "bytes=5", 10, nil, 400, "first-last"},
		{"§14.1.1", "bytes=a-b", 10, nil, 400, "number"},
		{"§14.1.1", "bytes=0-1-2", 10, nil, 400, "number"},
		{"§14.1.1", "bytes=+0-1", 10, nil, 400, "number"},
		{"§14.1.1", "bytes=0-1;2-3", 10, nil, 400, "number"},
		{"§14.1.1", "bytes=0 - 1", 10, nil, 400, "number"},
	} {
		t.Run(c.section+" "+c.field[:min(len(c.field), 30)], func(t *testing.T) {
			got, err := ParseRange(c.field, c.size)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			var fault *RangeError
			switch {
			case c.status == 0 && err != nil:
				t.Error(err)
			case c.status != 0 && (!errors.As(err, &fault) || fault.Status != c.status || !strings.Contains(err.Error(), c.why)):
				t.Errorf("got error %v, want %d %s", err, c.status, c.why)
			}
		})
	}
}

func TestRanges(t *testing.T) {
	const asked = "Range: bytes=0-1"
	part := []Range{{0, 2}}
	tag := stored(`ETag: "a"`, "Last-Modified: Sun, 01 Mar 2026 02:00:00 GMT")
	date := stored("Last-Modified: Sun, 01 Mar 2026 02:00:00 GMT")
	for _, c := range []struct {
		section, name string
		method        string
		req           []string
		resp          *Response
		want          []Range
	}{
		{"§14.2", "GET", "GET", []string{asked}, tag, part},
		{"§14.2", "HEAD", "HEAD", []string{asked}, tag, nil},
		{"§14.2", "not a 200", "GET", []string{asked}, answer(get(), 404), nil},
		{"§13.1.5", "same tag", "GET", []string{asked, `If-Range: "a"`}, tag, part},
		{"§13.1.5", "other tag", "GET", []string{asked, `If-Range: "b"`}, tag, nil},
		{"§13.1.5", "weak tag", "GET", []string{asked, `If-Range: W/"a"`}, stored(`ETag: W/"a"`), nil},
		{"§13.1.5", "same date", "GET", []string{asked, "If-Range: Sun, 01 Mar 2026 02:00:00 GMT"}, date, part},
		{"§13.1.5", "earlier date", "GET", []string{asked, "If-Range: Sun, 01 Mar 2026 01:00:00 GMT"}, date, nil},
		{"§13.1.5", "later date", "GET", []string{asked, "If-Range: Sun, 01 Mar 2026 03:00:00 GMT"}, date, nil},
		{"§8.8.2.2", "date not yet strong", "GET", []string{asked, "If-Range: " + at(0)}, stored("Last-Modified: " + at(0)), nil},
		{"§13.1.5", "neither", "GET", []string{asked, "If-Range: a"}, stored("ETag: a"), nil},
		{"§13.1.5", "two lines", "GET", []string{asked, `If-Range: "a"`, `If-Range: "a"`}, tag, nil},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			if got, err := Ranges(method(c.method, c.req...), c.resp, 10); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
	if _, err := Ranges(get("Range: bytes=10-"), tag, 10); err == nil {
		t.Error("§15.5.17: not refused")
	}
}

func TestContentRange(t *testing.T) {
	for field, c := range map[string]struct {
		r    Range
		size int64
		ok   bool
	}{
		"bytes 0-4/10":                   {Range{0, 5}, 10, true},
		"Bytes 5-9/10":                   {Range{5, 5}, 10, true},
		"bytes 0-4/*":                    {Range{0, 5}, -1, true},
		"bytes 0-10/10":                  {},
		"bytes 5-4/10":                   {},
		"bytes */10":                     {},
		"bytes 0-4":                      {},
		"bytes 0-4/":                     {},
		"bytes=0-4/10":                   {},
		"items 0-4/10":                   {},
		"bytes -4/10":                    {},
		"bytes 0-9223372036854775807/*":  {},
		"bytes 0-99999999999999999999/*": {},
		"":                               {},
	} {
		r, size, err := ParseContentRange(field)
		if (err == nil) != c.ok || c.ok && (r != c.r || size != c.size) {
			t.Errorf("RFC 9110 §14.4: %q: got %v of %d, %v", field, r, size, err)
		}
	}
	if got := (Range{5, 5}).ContentRange(10); got != "bytes 5-9/10" {
		t.Errorf("got %q", got)
	}
}

func TestWhole(t *testing.T) {
	part := answer(get("Range: bytes=0-4"), 206, "Content-Range: bytes 0-4/10", "Content-Length: 5", "Cache-Control: max-age=9", `ETag: "a"`, "Content-Digest: x=:AA==:")
	whole, r, size, err := Whole(part)
	if err != nil || r != (Range{0, 5}) || size != 10 || whole.Status != 200 {
		t.Fatalf("got %+v, %v of %d, %v", whole, r, size, err)
	}
	h := whole.Header
	if h.Get("Content-Length") != "10" || h.Get("Content-Range")+h.Get("Content-Digest") != "" || part.Header.Get("Content-Range") == "" {
		t.Errorf("header %v", h)
	}
	if ok, why := Storable(get("Range: bytes=0-4"), whole); !ok {
		t.Errorf("§3.4: not storable: %s", why)
	}
	open := answer(get(), 206, "Content-Range: bytes 0-4/*", "Content-Length: 5")
	if whole, _, size, err := Whole(open); err != nil || size != -1 || whole.Header.Get("Content-Length") != "" {
		t.Errorf("unknown size: %+v, %d, %v", whole, size, err)
	}
	for name, bad := range map[string]*Response{
		"not a 206":    stored("Content-Range: bytes 0-4/10"),
		"multipart":    answer(get(), 206, "Content-Type: multipart/byteranges"),
		"two ranges":   answer(get(), 206, "Content-Range: bytes 0-4/10", "Content-Range: bytes 5-9/10"),
		"wrong length": answer(get(), 206, "Content-Range: bytes 0-4/10", "Content-Length: 6"),
		"bad range":    answer(get(), 206, "Content-Range: bytes 4-0/10"),
	} {
		if _, _, _, err := Whole(bad); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5,1-", "bytes=0-0,0-0,0-0", "bytes=9223372036854775807-", "items=1", "bytes=\"0-1,2-3\""} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, field string, size int64) {
		if size < 0 {
			return
		}
		ranges, err := ParseRange(field, size)
		if err != nil && len(ranges) > 0 || len(ranges) > maxRanges {
			t.Fatalf("%d ranges, %v", len(ranges), err)
		}
		for _, r := range ranges {
			if r.Start < 0 || r.Length < 1 || r.Length > size-r.Start {
				t.Fatalf("%v of %d", r, size)
			}
			back, n, err := ParseContentRange(r.ContentRange(size))
			if err != nil || back != r || n != size {
				t.Fatalf("%v of %d came back as %v of %d, %v", r, size, back, n, err)
			}
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-4/10")
	f.Add("bytes 0-4/*")
	f.Add("bytes 9223372036854775806-9223372036854775807/9223372036854775807")
	f.Fuzz(func(t *testing.T, field string) {
		r, size, err := ParseContentRange(field)
		if err == nil && (r.Start < 0 || r.Length < 1 || size != -1 && r.Length > size-r.Start) {
			t.Fatalf("%q: %v of %d", field, r, size)
		}
		part := NewResponse(get(), 206, header("Content-Range: "+field), t0, t0.Add(time.Second))
		if _, _, _, err2 := Whole(part); err == nil && strings.TrimSpace(field) == field && err2 != nil {
			t.Fatalf("%q: %v", field, err2)
		}
	})
}
