package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// half is an origin whose whole answers stop in the middle and stay open.
func half(t *testing.T, body []byte, etag *atomic.Value) *site {
	return newSite(t, func(w http.ResponseWriter, r *http.Request) {
		tag := etag.Load().(string)
		if r.Header.Get("Range") != "" || tag != `"one"` {
			file(body, tag, "max-age=60")(w, r)
			return
		}
		w.Header().Set("ETag", tag)
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
}

func TestRestartGoesOnFromDurableBytes(t *testing.T) {
	body := testBody(6 << 20)
	for _, changed := range []bool{false, true} {
		var etag atomic.Value
		etag.Store(`"one"`)
		s := half(t, body, &etag)
		dir := t.TempDir()
		b := newBox(t, dir, loopback(t), nil, nil)
		resp, err := b.client.Get(s.URL + "/x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, len(body)/2)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		b.stop()
		before := len(s.requests())
		want := body
		if changed {
			etag.Store(`"two"`)
			want = bytes.ToUpper(body)
			body := want
			s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s.mu.Lock()
				s.log = append(s.log, r)
				s.mu.Unlock()
				file(body, `"two"`, "max-age=60")(w, r)
			})
		}
		b = newBox(t, dir, loopback(t), nil, nil)
		r := b.get(s.URL + "/x")
		if !bytes.Equal(r.body, want) {
			t.Fatalf("changed %v: %d bytes differ, %s", changed, len(r.body), r.status())
		}
		all := s.requests()[before:]
		if len(all) != 1 || all[0].Header.Get("Range") != fmt.Sprintf("bytes=%d-", len(body)/2) || all[0].Header.Get("If-Range") != `"one"` {
			t.Errorf("changed %v: %d requests, %v", changed, len(all), all[0].Header)
		}
		b.settle()
		if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, want) || !strings.Contains(r.status(), "hit") {
			t.Errorf("changed %v: then %s", changed, r.status())
		}
		if list := b.store.List(); len(list) != 1 || !list[0].Complete {
			t.Errorf("changed %v: %+v", changed, list)
		}
	}
}

func TestRestartWhileTheOriginIsDown(t *testing.T) {
	body := testBody(6 << 20)
	var etag atomic.Value
	etag.Store(`"one"`)
	s := half(t, body, &etag)
	down := atomic.Bool{}
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	})
	dir := t.TempDir()
	b := newBox(t, dir, loopback(t), nil, nil)
	resp, err := b.client.Get(s.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(resp.Body, make([]byte, len(body)/2))
	resp.Body.Close()
	b.stop()
	down.Store(true)
	b = newBox(t, dir, loopback(t), nil, nil)
	if r := b.get(s.URL + "/x"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d %s", r.StatusCode, r.status())
	}
	for field, want := range map[string]int{
		"Range: bytes=1000-1999": 206, fmt.Sprintf("Range: bytes=%d-%d", len(body)/2-1, len(body)/2): 503, "Cache-Control: only-if-cached": 504,
	} {
		r := b.get(s.URL+"/x", field)
		if r.StatusCode != want || want == 206 && !bytes.Equal(r.body, body[1000:2000]) {
			t.Errorf("%s: %d with %d bytes, want %d: %s", field, r.StatusCode, len(r.body), want, r.status())
		}
	}
	down.Store(false)
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, body) {
		t.Errorf("%d bytes, %s", len(r.body), r.status())
	}
	all := s.requests()
	if got := all[len(all)-1].Header.Get("Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes=%d-", len(body)/2)) {
		t.Errorf("went on with %q", got)
	}
}

func TestColdRangeOfARunningFill(t *testing.T) {
	body := testBody(24 << 20)
	var etag atomic.Value
	etag.Store(`"one"`)
	s := half(t, body, &etag)
	b := simpleBox(t)
	off := len(body) - 1000
	r := b.get(s.URL+"/x", fmt.Sprintf("Range: bytes=%d-", off))
	if r.StatusCode != 206 || !bytes.Equal(r.body, body[off:]) {
		t.Errorf("%d, %d bytes, %s", r.StatusCode, len(r.body), r.status())
	}
}

func TestUnstorableAnswersDoNotQueue(t *testing.T) {
	var running, most atomic.Int64
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		now := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		time.Sleep(50 * time.Millisecond)
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprint(w, "x")
	})
	b := simpleBox(t)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			resp, err := b.client.Get(s.URL + "/x")
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
	}
	wait.Wait()
	if n := len(s.requests()); n != 20 {
		t.Errorf("%d origin requests", n)
	}
	if most.Load() < 5 {
		t.Errorf("at most %d at once", most.Load())
	}
}

func TestVariantsAreFetchedOnceEach(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond)
		w.Header().Set("Vary", "X-Kind")
		file([]byte("kind "+r.Header.Get("X-Kind")), `"e`+r.Header.Get("X-Kind")+`"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	var wait sync.WaitGroup
	for i := range 30 {
		wait.Go(func() {
			kind := strconv.Itoa(i % 3)
			req, _ := http.NewRequest(http.MethodGet, s.URL+"/x", nil)
			req.Header.Set("X-Kind", kind)
			resp, err := b.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, _ := io.ReadAll(resp.Body); string(got) != "kind "+kind {
				t.Errorf("%q for kind %s", got, kind)
			}
		})
	}
	wait.Wait()
	if n := len(s.requests()); n > 6 {
		t.Errorf("%d origin requests", n)
	}
}

func TestFullStorePassesThrough(t *testing.T) {
	body := testBody(4 << 20)
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			file(body, `"e"`, "max-age=60")(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.(http.Flusher).Flush()
		_, _ = w.Write(body)
	})
	small, err := cache.Open(cache.Config{Dir: t.TempDir(), MaxBytes: 1 << 20, MinFree: 1, Small: true}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	b := boxOn(t, small, loopback(t), nil, nil)
	for range 2 {
		if r := b.get(s.URL + "/known"); !bytes.Equal(r.body, body) || !strings.Contains(r.status(), "store is full") {
			t.Errorf("%d bytes, %s", len(r.body), r.status())
		}
	}
	if n := len(small.List()); n != 0 {
		t.Errorf("%d objects stored", n)
	}
	if r := b.do(http.MethodGet, s.URL+"/unknown"); r.err == nil { // it shows in the end only
		t.Error("an answer that the store had no room for looked whole")
	}
	if r := b.get(s.URL + "/unknown"); !bytes.Equal(r.body, body) {
		t.Errorf("%d bytes, %s", len(r.body), r.status())
	}
}

// An object that is evicted before its answer has begun is fetched again.
func TestEvictedBeforeTheFirstByte(t *testing.T) {
	body := testBody(1 << 20)
	var asked atomic.Int64
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			file(body, `"e"`, "max-age=60")(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	b := simpleBox(t)
	evicted := make(chan error, 1)
	go func() {
		for len(b.store.List()) == 0 || !b.store.List()[0].Filling {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond) // the answer waits for its first byte by now
		evicted <- b.store.Evict(b.store.List()[0].Num)
	}()
	r := b.get(s.URL + "/x")
	// The request that comes again may be the one that removes what is left.
	if err := <-evicted; err != nil && !errors.Is(err, cache.ErrNotFound) || r.StatusCode != 200 || !bytes.Equal(r.body, body) {
		t.Errorf("%d, %d bytes, %s; evicted: %v", r.StatusCode, len(r.body), r.status(), err)
	}
}
