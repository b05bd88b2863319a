package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// cutting is an origin whose answers are cut after some bytes, times times, and
// that may have another body once it has cut one.
type cutting struct {
	old, now []byte
	tag      string // `"one"`, `W/"one"` or "": of old
	after    int
	times    int64
	cuts     atomic.Int64
	sent     atomic.Int64
}

func (c *cutting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, tag := c.old, c.tag
	if c.now != nil && c.cuts.Load() > 0 {
		body, tag = c.now, strings.Replace(tag, "one", "two", 1)
	}
	if tag != "" {
		w.Header().Set("ETag", tag)
	}
	w.Header().Set("Cache-Control", "max-age=60")
	http.ServeContent(&cutWriter{ResponseWriter: w, origin: c, left: c.after}, r, "", time.Time{}, bytes.NewReader(body))
}

// cutWriter ends an answer in the middle.
type cutWriter struct {
	http.ResponseWriter
	origin *cutting
	left   int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) >= w.left && w.origin.cuts.Load() < w.origin.times {
		w.origin.cuts.Add(1)
		n, _ := w.ResponseWriter.Write(p[:w.left])
		w.origin.sent.Add(int64(n))
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := w.ResponseWriter.Write(p)
	w.left -= n
	w.origin.sent.Add(int64(n))
	return n, err
}

// TestCutOrigins: the client gets every byte or an error, never a splice. With a
// strong validator, and while the object is the same, nobody notices, and only
// what is missing is fetched again.
func TestCutOrigins(t *testing.T) {
	const size = 2 << 20
	old := testBody(size)
	other := bytes.Clone(old)
	for i := range other {
		other[i] ^= 0x55
	}
	for _, at := range []int{10, 50, 99} {
		for _, times := range []int64{1, 4} {
			for _, tag := range []string{`"one"`, `W/"one"`, ""} {
				for _, changed := range []bool{false, true} {
					for _, field := range []string{"", "Range: bytes=300000-1999999"} {
						name := fmt.Sprintf("at %d %%, %d times, validator %s, changed %v, %s", at, times, tag, changed, field)
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							c := &cutting{old: old, tag: tag, after: size * at / 100, times: times}
							if changed {
								c.now = other
							}
							c.judge(t, field, tag == `"one"` && !changed)
						})
					}
				}
			}
		}
	}
}

func (c *cutting) judge(t *testing.T, field string, unnoticed bool) {
	s := newSite(t, c.ServeHTTP)
	b := simpleBox(t)
	var fields []string
	off, end := 0, len(c.old)
	if field != "" {
		fields = []string{field}
		off, end = 300_000, 2_000_000
	}
	right := func(r reply) bool {
		if r.StatusCode >= 500 {
			return false
		}
		whole := r.StatusCode == http.StatusOK
		for _, body := range [][]byte{c.old, c.now} {
			if whole && bytes.Equal(r.body, body) || !whole && body != nil && bytes.Equal(r.body, body[off:end]) {
				return true
			}
		}
		return false
	}
	for range 6 { // each request may meet another cut
		r := b.do(http.MethodGet, s.URL+"/x", fields...)
		switch {
		case r.err == nil && r.StatusCode < 300 && !right(r):
			t.Fatalf("%d, %d bytes that nobody has: %s", r.StatusCode, len(r.body), r.status())
		case unnoticed && (r.err != nil || !right(r)):
			t.Fatalf("%d, %d bytes, %v: %s", r.StatusCode, len(r.body), r.err, r.status())
		}
		if r.err == nil && right(r) {
			if bound := int64(len(c.old)) + 16<<10*(c.cuts.Load()+1); unnoticed && c.sent.Load() > bound {
				t.Errorf("%d bytes were sent for %d", c.sent.Load(), len(c.old))
			}
			return
		}
	}
	t.Error("no request was answered well, though the origin has stopped to cut")
}
