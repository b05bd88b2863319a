package cache

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"

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

func TestDamagedRecordIsDropped(t *testing.T) {
	s := open(t, Config{})
	good, bad := put(t, s, "good", noise(80, 1000)), put(t, s, "bad", noise(81, 1000))
	err := s.index.db.Update(func(tx *badger.Txn) error {
		item, err := tx.Get(recordKey(bad))
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		value[len(value)/2] ^= 4
		return tx.Set(recordKey(bad), value)
	})
	if err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, _, ok := s.Lookup("bad"); ok || len(s.List()) != 1 {
		t.Error("a damaged record was believed")
	}
	if files := blobFiles(s.cfg.Dir); len(files) != 1 || files[good] != 2 {
		t.Errorf("files are %v", files)
	}
	wantObject(t, s, "good", noise(80, 1000))
	put(t, s, "bad", noise(81, 1000))
	if bad, err := s.index.each(func(*record) {}); bad != 0 || err != nil {
		t.Errorf("%d damaged records are still in the index, %v", bad, err)
	}
}

// TestDamagedIndexFiles flips bits in Badger's own files. The store opens with
// what is sound, or says that it cannot; what it lists can be read.
func TestDamagedIndexFiles(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	for i := range 20 {
		data := noise(uint64(100+i), 100)
		put(t, s, string(rune('a'+i)), data)
	}
	dir := s.cfg.Dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "index", "*"))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 80))
	opened := 0
	for round := range 40 {
		path := files[round%len(files)]
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() == 0 {
			continue
		}
		into := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(into, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		flip(t, filepath.Join(into, "index", filepath.Base(path)), rng.Int64N(min(st.Size(), 4096)*8))
		damaged, err := Open(Config{Dir: into, Small: true, MinFree: 1}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Logf("%s: %v", filepath.Base(path), err)
			continue
		}
		opened++
		for _, info := range damaged.List() {
			wantObject(t, damaged, info.Names[0], noise(uint64(100+info.Names[0][0]-'a'), 100))
		}
		if err := damaged.Close(); err != nil {
			t.Logf("%s: close: %v", filepath.Base(path), err)
		}
	}
	t.Logf("opened %d of 40", opened)
}

func TestDamagedSidecar(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(82, 6*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	num := f.Num()
	g := make(gate)
	f.Start(g.source())
	g.bring(t, data, 0, 5*mib)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tree := blobPath(s.cfg.Dir, num) + ".tree"
	clean, err := os.ReadFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 82))
	for round := range 30 {
		bit := rng.Int64N(int64(len(clean)) * 8)
		if round < 5 {
			bit = rng.Int64N(28 * 8) // the header
		}
		if err := os.WriteFile(tree, clean, 0o600); err != nil {
			t.Fatal(err)
		}
		flip(t, tree, bit)
		b, err := openBlob(s.cfg.Dir, num)
		if err != nil {
			t.Fatal(err)
		}
		have, err := b.resume(6*mib, nil)
		var want content.Ranges
		if off := bit/8 - headerSize; off >= 0 {
			want.Add(content.Range{End: 5 * mib})
			want.Remove(content.Block(off/slotSize, 6*mib))
		} else if bit/8 >= 28 {
			want.Add(content.Range{End: 5 * mib}) // not used, not covered by the checksum
		}
		if err != nil || !slices.Equal(have, want) {
			t.Errorf("bit %d: durable is %v, want %v: %v", bit, have, want, err)
		}
		if size, err := b.header(); size != 6*mib || err != nil {
			t.Errorf("bit %d: the header was not mended: %d, %v", bit, size, err)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}
	for cut := range 40 {
		if err := os.WriteFile(tree, clean[:len(clean)*cut/40], 0o600); err != nil {
			t.Fatal(err)
		}
		b, _ := openBlob(s.cfg.Dir, num)
		if _, err := b.resume(6*mib, nil); err != nil {
			t.Errorf("sidecar cut to %d/40: %v", cut, err)
		}
		b.close()
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
		if err := do(blobPath(s.cfg.Dir, num)); err != nil {
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
	flip(t, blobPath(s.cfg.Dir, num)+".tree", (headerSize+slotSize+100)*8)
	if _, err := s.Layer(num); err == nil {
		t.Error("a layer was made of a damaged sidecar")
	}
	lost := put(t, s, "lost while closed", noise(84, 10))
	if err := errors.Join(s.Close(), os.Remove(blobPath(s.cfg.Dir, lost)+".tree")); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.cfg)
	if _, _, ok := s.Lookup("lost while closed"); ok {
		t.Error("an object without its files is listed")
	}
}

func TestLeftoversDoNotBlock(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "a", noise(85, 10))
	next := s.next
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, suffix := range []string{".tree", "", ".tree"} { // what a crash can leave of a create or a removal
		path := blobPath(s.cfg.Dir, next+uint64(i)) + suffix
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, s.cfg)
	put(t, s, "b", noise(86, 10))
	wantObject(t, s, "a", noise(85, 10))
	if files := blobFiles(s.cfg.Dir); len(files) != 2 {
		t.Errorf("files are %v", files)
	}
}

func FuzzRecord(f *testing.F) {
	good, err := encode(&record{Num: 7, Size: 5, Title: "x", Names: map[string][]byte{"n": {1}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:3])
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decode(recordKey(7), value)
		if err != nil {
			return
		}
		if r.Num != 7 || r.Names == nil || r.From == nil || r.Served == nil {
			t.Errorf("decoded %+v", r)
		}
	})
}

func FuzzSidecar(f *testing.F) {
	dir := f.TempDir()
	data := noise(87, 2*mib+5)
	b, err := createBlob(dir, 1, int64(len(data)))
	if err != nil {
		f.Fatal(err)
	}
	for i := range int64(3) {
		r := content.Block(i, int64(len(data)))
		leaves, err := content.HashLeaves(nil, bytes.NewReader(data[r.Off:r.End]))
		if err := errors.Join(err, b.putSlot(i, leaves)); err != nil {
			f.Fatal(err)
		}
	}
	whole, err := io.ReadAll(io.NewSectionReader(b.tree, 0, 1<<20))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, int64(len(data)))
	f.Add(whole[:headerSize], int64(content.UnknownSize))
	f.Add(whole[:headerSize+9], int64(len(data)))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, tree []byte, size int64) {
		size = max(size%(1<<30), content.UnknownSize)
		if err := os.WriteFile(b.tree.Name(), tree, 0o600); err != nil {
			t.Fatal(err)
		}
		have, err := b.resume(size, nil)
		if err != nil {
			return
		}
		if n := len(have); n > 0 && have[n-1].End > int64(len(data)) {
			t.Errorf("durable is %v of a body of %d bytes", have, len(data))
		}
		again, err := b.resume(size, nil)
		if err != nil || !slices.Equal(again, have) {
			t.Errorf("durable was %v, then %v, %v", have, again, err)
		}
	})
}
