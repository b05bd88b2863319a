package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// held serves a body whose first answer stops after a part until it is let go.
func held(t *testing.T, body []byte, first int) (s *site, release func()) {
	gate := make(chan struct{})
	s = newSite(t, body, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:first])
		w.(http.Flusher).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
		}
		_, _ = w.Write(body[first:])
		return true
	})
	return s, sync.OnceFunc(func() { close(gate) })
}

func TestReadersFarAheadGetRanges(t *testing.T) {
	body := testBody(40 << 20)
	s, release := held(t, body, 1<<20)
	defer release()
	f := fill(t, newStore(t), newMirrors(t), s.URL)
	for _, off := range []int64{30 << 20, 15 << 20, 39 << 20} {
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := r.WriteRange(t.Context(), &got, content.Range{Off: off, End: off + 1000}); err != nil {
			t.Fatal(err)
		}
		r.Close()
		if !bytes.Equal(got.Bytes(), body[off:off+1000]) {
			t.Fatalf("bytes at %d differ", off)
		}
	}
	release()
	arrives(t, f, body)
	if n := len(s.ranges()); n > 6 {
		t.Errorf("%d requests: %q", n, s.ranges())
	}
}

func TestReaderNearAheadWaits(t *testing.T) {
	body := testBody(12 << 20)
	s, release := held(t, body, 1<<20)
	defer release()
	f := fill(t, newStore(t), newMirrors(t), s.URL)
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Wait(t.Context(), 0); err != nil { // the first bytes are here
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Wait(ctx, 6<<20); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait: %v", err)
	}
	release()
	arrives(t, f, body)
	if n := len(s.ranges()); n != 1 {
		t.Errorf("%d requests: %q", n, s.ranges())
	}
}

func TestResume(t *testing.T) {
	body := testBody(4 << 20)
	s := newSite(t, body, nil)
	m := newMirrors(t)
	offer, err := m.Open(t.Context(), get(t, s.URL))
	if err != nil {
		t.Fatal(err)
	}
	offer.Body.Close()
	stored := httpcache.NewResponse(get(t, s.URL), offer.Status, offer.Header, offer.Requested, offer.Received)
	offer, err = m.Resume(t.Context(), get(t, s.URL), stored, content.Range{Off: 1 << 20, End: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(offer.Body)
	offer.Body.Close()
	if offer.Status != http.StatusPartialContent || offer.Object.Size != int64(len(body)) || !bytes.Equal(rest, body[1<<20:]) {
		t.Fatalf("status %d, size %d, %d bytes", offer.Status, offer.Object.Size, len(rest))
	}
	if got := offer.Header.Get("Content-Length"); got != itoa(len(body)) {
		t.Errorf("Content-Length %s", got)
	}
	s.mu.Lock()
	s.etag = `"two"`
	s.mu.Unlock()
	offer, err = m.Resume(t.Context(), get(t, s.URL), stored, content.Range{Off: 1 << 20, End: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	rest, _ = io.ReadAll(offer.Body)
	offer.Body.Close()
	if offer.Status != http.StatusOK || !bytes.Equal(rest, body) {
		t.Fatalf("after a change: status %d, %d bytes", offer.Status, len(rest))
	}
}

func TestRangesFillsGaps(t *testing.T) {
	body := testBody(20<<20 + 5)
	s := newSite(t, body, nil)
	store := newStore(t)
	f, err := store.Create(cache.Spec{Object: content.Object{Size: int64(len(body))}, Title: "x"}, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(parts{body, []content.Range{{Off: 0, End: 3 << 20}, {Off: 5 << 20, End: 11<<20 + 9}}}, Ranges(s.Client(), s.URL, "box"))
	arrives(t, f, body)
	info, _ := store.Get(f.Num())
	if info.From["box"] != int64(len(body))-9<<20-9 {
		t.Errorf("from %v", info.From)
	}
}

// parts is a source that has some ranges of a body.
type parts struct {
	body []byte
	have []content.Range
}

func (p parts) Name() string { return "parts" }

func (p parts) Fill(_ context.Context, sink content.Sink) error {
	for _, r := range p.have {
		if _, err := sink.WriteAt(p.body[r.Off:r.End], r.Off); err != nil {
			return err
		}
		if err := sink.Accept(r); err != nil {
			return err
		}
	}
	return content.ErrNotHere
}

func FuzzCheckPart(f *testing.F) {
	for _, s := range []string{"bytes 5-9/20", "bytes 5-9/*", "bytes 5-4/20", "bytes 0-9/20", "bytes 5-99/20", "bytes 5-9223372036854775807/9223372036854775807", "5-9/20", ""} {
		f.Add(s, "5", 206)
	}
	f.Fuzz(func(t *testing.T, field, length string, status int) {
		asked := content.Range{Off: 5, End: 15}
		got := &httpcache.Response{Status: status, Header: http.Header{"Content-Range": {field}, "Content-Length": {length}}}
		p, err := checkPart(got, asked, nil)
		if err != nil {
			return
		}
		if p.rng.Off != 5 || p.rng.Len() < 1 || p.rng.End > asked.End || p.size >= 0 && p.size < p.rng.End {
			t.Fatal(fmt.Sprint(field, p.rng, p.size))
		}
	})
}

// The manager must not conclude that nothing runs while a stream's error is
// still on its way to it.
func TestStreamErrorIsNeverMissed(t *testing.T) {
	body := testBody(100)
	s := newSite(t, body, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.Header().Del("ETag")
		w.(http.Flusher).Flush()
		_, _ = w.Write(body)
		return true
	})
	m, sink := newMirrors(t), &wanting{}
	for range 300 {
		offer, err := m.Open(t.Context(), get(t, s.URL))
		if err != nil {
			t.Fatal(err)
		}
		sink.have = nil
		if err := offer.Sources[0].Fill(t.Context(), sink); !errors.Is(err, content.ErrFull) {
			t.Fatalf("Fill: %v, want %v", err, content.ErrFull)
		}
	}
}

// wanting is a sink in memory whose readers are never content and which has no
// room for the object once its size is known.
type wanting struct {
	mu   sync.Mutex
	have content.Ranges
}

func (s *wanting) Size() int64         { return content.UnknownSize }
func (s *wanting) SetSize(int64) error { return content.ErrFull }

func (s *wanting) Missing() []content.Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have.Without(content.Range{End: math.MaxInt64})
}

func (s *wanting) Claim(at, most int64) (content.Range, bool) {
	return content.Range{Off: max(at, 0), End: max(at, 0) + most}, true
}
func (s *wanting) Release(content.Range) {}
func (s *wanting) Wanted() <-chan struct{} {
	always := make(chan struct{})
	close(always)
	return always
}
func (s *wanting) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (s *wanting) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (s *wanting) Accept(r content.Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have.Add(r)
	return nil
}

// A part that is asked for is offered as such, and its source brings the rest by
// further ranges when that is wanted.
func TestOpenTakesAPart(t *testing.T) {
	body := testBody(5 << 20)
	s := newSite(t, body, nil)
	req := get(t, s.URL)
	req.Header.Set("Range", "bytes=2097152-3145727")
	offer, err := newMirrors(t).Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if offer.Status != http.StatusPartialContent || offer.Object.Size != int64(len(body)) || offer.Header.Get("Content-Range") != "bytes 2097152-3145727/5242880" {
		t.Fatalf("%d, %+v, %v", offer.Status, offer.Object, offer.Header)
	}
	f, err := newStore(t).Create(cache.Spec{Object: offer.Object, Title: "x"}, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(offer.Sources...)
	arrives(t, f, body)
	if got := fmt.Sprint(s.ranges()); got != "[bytes=2097152-3145727 bytes=0-2097151 bytes=3145728-5242879]" {
		t.Errorf("asked for %s", got)
	}
}
