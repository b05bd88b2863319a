package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// flip flips one bit of a file.
func flip(t *testing.T, path string, bit int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
}

func TestLostAndShortBodies(t *testing.T) {
	s := open(t, Config{})
	data := noise(83, 2*mib)
	damage := map[string]func(path string) error{
		"body cut":   func(path string) error { return os.Truncate(path, mib) },
		"body grown": func(path string) error { return os.Truncate(path, 3*mib) },
		"body lost":  os.Remove,
	}
	for name, do := range damage {
		num := put(t, s, name, data)
		if err := do(bodyPath(s.cfg.Dir, num)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(num); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: read gave %v", name, err)
		}
		if _, _, ok := s.Lookup(name); ok || s.Stats().Bytes != 0 {
			t.Errorf("%s: the object is still listed", name)
		}
	}
	num := put(t, s, "sidecar damaged", data)
	flip(t, bodyPath(s.cfg.Dir, num)+".tree", (4096+100)*8)
	if _, err := s.Layer(num); err == nil {
		t.Error("a layer was made of a damaged sidecar")
	}
	lost := put(t, s, "lost while closed", noise(84, mib))
	if err := errors.Join(s.Close(), os.Remove(bodyPath(s.cfg.Dir, lost)+".tree")); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.cfg)
	info, _, ok := s.Lookup("lost while closed")
	if r, err := s.Read(info.Num); ok && err == nil {
		if _, err := r.Wait(context.Background(), 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("an object without its tree was read: %v", err)
		}
		r.Close()
	}
	if _, _, ok := s.Lookup("lost while closed"); ok {
		t.Error("an object without its files is listed")
	}
}

func TestLeftoversDoNotBlock(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "a", noise(85, 100_000))
	next := s.next
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, suffix := range []string{".tree", "", ".tree"} { // what a crash can leave of a create or a removal
		path := bodyPath(s.cfg.Dir, next+uint64(i)) + suffix
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, s.cfg)
	s.sweep(t.Context())
	put(t, s, "b", noise(86, 100_000))
	wantObject(t, s, "a", noise(85, 100_000))
	if files := blobFiles(s.cfg.Dir); len(files) != 2 {
		t.Errorf("files are %v", files)
	}
}

func FuzzEntry(f *testing.F) {
	e := entry{size: 5, here: 2, trust: 1, flags: isComplete | isPinned}
	f.Add(e.encode())
	f.Add(e.encode()[:7])
	f.Add(make([]byte, entrySize))
	f.Fuzz(func(t *testing.T, value []byte) {
		var e entry
		if _, err := e.decode(numKey(entryPrefix, 7), value); err != nil {
			return
		}
		var again entry
		if _, err := again.decode(numKey(entryPrefix, 7), e.encode()); err != nil || again != e {
			t.Errorf("read %+v, wrote and read %+v: %v", e, again, err)
		}
	})
}

func FuzzCard(f *testing.F) {
	b := &books{names: newRAM[string, *name](0)}
	e := entry{size: 5, flags: isComplete}
	f.Add(b.card(&e, &record{Title: "x", Created: time.Unix(9, 0)}))
	f.Add([]byte("{}"))
	f.Add([]byte(`{"entry":"AgAAAA==","record":{"names":["a"]},"names":[null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, r, names, err := readCard(text)
		if err != nil {
			return
		}
		if e == nil || r == nil || e.size < content.UnknownSize {
			t.Errorf("read %+v, %+v", e, r)
		}
		for _, n := range names {
			_ = n.Name
		}
	})
}
