package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// flipStored flips a bit of a stored body. The proxy's store must be shut.
func flipStored(t *testing.T, dir string, num uint64, off int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "blobs", fmt.Sprintf("%02x", byte(num)), fmt.Sprintf("%016x", num)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// damagedBox has one object whose byte at off was flipped while the box was
// shut.
func damagedBox(t *testing.T, url string, off int64) *box {
	t.Helper()
	dir := t.TempDir()
	b := newBox(t, dir, loopback(t), nil, nil)
	b.get(url)
	b.settle()
	num := b.store.List()[0].Num
	b.stop()
	flipStored(t, dir, num, off)
	b = newBox(t, dir, loopback(t), nil, nil)
	b.store.SetRepairer(b.Server)
	return b
}

func TestDamagedBlockComesAgain(t *testing.T) {
	body := testBody(5<<20 + 17)
	for _, c := range []struct {
		off int64
		tag string // without a validator the object's own tree proves the bytes
	}{{0, `"e"`}, {2<<20 + 5, ""}, {5<<20 + 16, `"e"`}} {
		s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			if c.tag != "" {
				w.Header().Set("ETag", c.tag)
			}
			w.Header().Set("Cache-Control", "max-age=60")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		})
		b := damagedBox(t, s.URL+"/x", c.off)
		r := b.get(s.URL + "/x")
		if !bytes.Equal(r.body, body) || !strings.Contains(r.status(), "hit") {
			t.Errorf("%+v: %d bytes differ or no hit: %s", c, len(r.body), r.status())
		}
		block := content.Block(c.off/content.BlockSize, int64(len(body)))
		all := s.requests()[1:]
		if len(all) != 1 || all[0].Header.Get("Range") != fmt.Sprintf("bytes=%d-%d", block.Off, block.End-1) || all[0].Header.Get("If-Range") != c.tag {
			t.Errorf("%+v: origin saw %d more requests", c, len(all))
		}
		for range 500 { // the repair is counted when its fill has ended
			if b.store.Stats().Repaired > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if st := b.store.Stats(); st.Damaged != 1 || st.Repaired != 1 || st.Complete != 1 {
			t.Errorf("%+v: stats %+v", c, st)
		}
		b.stop()
	}
}

// What cannot be had again because the origin has something else now is not
// given out; the next request gets the new one.
func TestDamagedObjectWhoseOriginHasChanged(t *testing.T) {
	old, now := testBody(3<<20), bytes.ToUpper(testBody(3<<20))
	var changed atomic.Bool
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if changed.Load() {
			file(now, `"two"`, "max-age=60")(w, r)
			return
		}
		file(old, `"one"`, "max-age=60")(w, r)
	})
	b := damagedBox(t, s.URL+"/x", 1<<20+1)
	changed.Store(true)
	if r := b.do(http.MethodGet, s.URL+"/x"); r.err == nil && !bytes.Equal(r.body, now) {
		t.Errorf("%d: a body that is neither the old one nor the new one looked whole", r.StatusCode)
	}
	b.settle()
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, now) {
		t.Errorf("then %d, %d bytes, %s", r.StatusCode, len(r.body), r.status())
	}
}

// A repair that found the origin down is made up for by the next request, with a
// range and not with the whole.
func TestRepairThatFailedGoesOnLater(t *testing.T) {
	body := testBody(4 << 20)
	var down atomic.Bool
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		file(body, `"e"`, "max-age=60")(w, r)
	})
	b := damagedBox(t, s.URL+"/x", 2<<20)
	down.Store(true)
	if r := b.do(http.MethodGet, s.URL+"/x"); r.err == nil && r.StatusCode == http.StatusOK {
		t.Errorf("a damaged body looked whole: %s", r.status())
	}
	b.settle()
	down.Store(false)
	before := len(s.requests())
	if r := b.get(s.URL + "/x"); !bytes.Equal(r.body, body) {
		t.Errorf("%d bytes, %s", len(r.body), r.status())
	}
	all := s.requests()[before:]
	if len(all) != 1 || all[0].Header.Get("Range") != fmt.Sprintf("bytes=%d-%d", 2<<20, 3<<20-1) {
		t.Errorf("%d requests, the first for %q", len(all), all[0].Header.Get("Range"))
	}
}
