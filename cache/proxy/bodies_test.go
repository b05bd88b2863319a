package proxy

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

func TestStaleWhenTheOriginIsGone(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=0"))
	b := simpleBox(t)
	b.get(s.URL + "/a")
	b.settle()
	s.Close()
	if r := b.get(s.URL + "/a"); string(r.body) != "hello" || !strings.Contains(r.status(), "disconnected") {
		t.Errorf("%d %q %s", r.StatusCode, r.body, r.status())
	}
	if r := b.get(s.URL + "/b"); r.StatusCode != http.StatusBadGateway || !strings.Contains(string(r.body), "refused") {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
}

func TestStaleWhileRevalidate(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=0, stale-while-revalidate=60"))
	b := simpleBox(t)
	b.get(s.URL + "/a")
	b.settle()
	if r := b.get(s.URL + "/a"); !strings.Contains(r.status(), "hit") || !strings.Contains(r.status(), "stale-while-revalidate") {
		t.Errorf("%s", r.status())
	}
	for range 200 {
		if len(s.requests()) == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if all := s.requests(); len(all) != 2 || all[1].Header.Get("If-None-Match") != `"e"` {
		t.Errorf("%d requests", len(all))
	}
}

func TestMultipartRanges(t *testing.T) {
	body := testBody(2 << 20)
	s := newSite(t, file(body, `"e"`, "max-age=60"))
	b := simpleBox(t)
	for range 2 { // cold, then stored
		r := b.get(s.URL+"/a", "Range: bytes=5-9,1000000-1000099,-7")
		mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || mediaType != "multipart/byteranges" || r.StatusCode != 206 || r.ContentLength != int64(len(r.body)) {
			t.Fatalf("%d %v %v", r.StatusCode, r.Header, err)
		}
		mr := multipart.NewReader(bytes.NewReader(r.body), params["boundary"])
		for _, want := range [][2]int{{5, 10}, {1000000, 1000100}, {len(body) - 7, len(body)}} {
			p, err := mr.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(p)
			if !bytes.Equal(got, body[want[0]:want[1]]) || p.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", want[0], want[1]-1, len(body)) {
				t.Errorf("part %v: %d bytes, %v", want, len(got), p.Header)
			}
		}
		if _, err := mr.NextPart(); err != io.EOF {
			t.Errorf("after the last part: %v", err)
		}
	}
}

// cutHalf sends half of a body and then cuts the connection.
func cutHalf(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body[:len(body)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestOriginCutAtHalfGoesOnInFlight(t *testing.T) {
	body := testBody(3 << 20)
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			w.Header().Set("ETag", `"e"`)
			w.Header().Set("Cache-Control", "max-age=60")
			cutHalf(w, body)
		}
		file(body, `"e"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	if r := b.get(s.URL + "/a"); !bytes.Equal(r.body, body) {
		t.Errorf("%d bytes", len(r.body))
	}
	if all := s.requests(); len(all) != 2 || all[1].Header.Get("Range") != fmt.Sprintf("bytes=%d-%d", len(body)/2, len(body)-1) || all[1].Header.Get("If-Range") != `"e"` {
		t.Errorf("%d requests, the last with %v", len(all), all[len(all)-1].Header)
	}
}

func TestShortBodyNeverLooksWhole(t *testing.T) {
	body := testBody(1 << 20)
	for name, h := range map[string]http.HandlerFunc{
		"stored": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			cutHalf(w, body)
		},
		"stored, chunked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"passed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			cutHalf(w, body)
		},
		"passed, chunked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, h)
			b := simpleBox(t)
			resp, err := b.client.Get(s.URL + "/a")
			if err == nil {
				var got []byte
				got, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode == 200 && err == nil {
					t.Errorf("%d of %d bytes passed for whole", len(got), len(body))
				}
			}
			b.settle()
			for _, info := range b.store.List() {
				if info.Complete {
					t.Errorf("stored as complete: %+v", info)
				}
			}
		})
	}
}

func TestHTTP10GetsTheLengthOfWhatHadNone(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "some")
		w.(http.Flusher).Flush()
		fmt.Fprint(w, "thing")
	})
	b := simpleBox(t)
	resp := b.raw("GET " + s.URL + "/a HTTP/1.0\r\n\r\n")
	if !strings.Contains(resp, "Content-Length: 9\r\n") || !strings.HasSuffix(resp, "something") {
		t.Errorf("%q", resp)
	}
}

// deadlines notes what a body's writer is allowed.
type deadlines struct {
	*httptest.ResponseRecorder
	next   bool // a deadline was set since the last write
	writes int
	free   int // writes without one
}

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.next = !at.IsZero(); return nil }

func (d *deadlines) Write(p []byte) (int, error) {
	d.writes++
	if !d.next {
		d.free++
	}
	return d.ResponseRecorder.Write(p)
}

func TestEveryWriteHasADeadline(t *testing.T) {
	body := testBody(10 << 20)
	b := simpleBox(t)
	f, err := b.store.Create(cache.Spec{Object: content.Object{Size: int64(len(body))}, Title: "x"}, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(gated{body, closed()})
	rd, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	var n int64
	if err := stream(t.Context(), d, rd, content.Range{End: int64(len(body))}, func(step int64) { n += step }); err != nil || n != int64(len(body)) || !bytes.Equal(d.Body.Bytes(), body) {
		t.Errorf("%d bytes, %v", n, err)
	}
	through := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	if n, err := copyThrough(through, bytes.NewReader(body)); err != nil || n != int64(len(body)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if d.writes == 0 || d.free+through.free > 0 {
		t.Errorf("%d and %d writes could take for ever", d.free, through.free)
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// HTTP/1.0 has no chunks: without a length only a reset tells a cut body from a
// whole one.
func TestHTTP10SeesThatAPassedBodyWasCut(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	b := simpleBox(t)
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = fmt.Fprintf(c, "GET %s/ HTTP/1.0\r\n\r\n", s.URL)
	if got, err := io.ReadAll(c); err == nil {
		t.Errorf("passed for whole: %q", got)
	}
}
