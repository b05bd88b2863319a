package disk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// storeV1 unpacks a store of format 1; v1.txt beside it says what is in it.
func storeV1(t *testing.T) string {
	t.Helper()
	f, err := os.Open("../testdata/v1.tar.gz")
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	dir := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		must(t, err)
		if !strings.HasPrefix(h.Name, "blobs/") {
			continue
		}
		path := filepath.Join(dir, h.Name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		data, err := io.ReadAll(r)
		must(t, err)
		must(t, os.WriteFile(path, data, 0o600))
	}
}

func bodyV1(num uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(num) + 1 + byte(i/content.LeafSize)
	}
	for off := 0; off+8 <= n; off += content.LeafSize {
		binary.BigEndian.PutUint64(b[off:], uint64(off/content.LeafSize))
	}
	return b
}

func cardV1(num uint64) []byte {
	if num == 1 {
		return nil
	}
	return fmt.Appendf(nil, "card of %d", num)
}

// wantV1 checks that everything of the old store is here.
func wantV1(t *testing.T, v *Volume) {
	t.Helper()
	sizes := map[uint64]int{0: 0, 1: 40 << 10, 2: 5 * mib / 2, 3: 5 * mib}
	all := walk(t, v)
	if len(all) != len(sizes) {
		t.Errorf("walked %v", all)
	}
	for num, n := range sizes {
		w := all[num]
		if w.err != nil || w.size != int64(n) || w.card != string(cardV1(num)) {
			t.Errorf("blob %d walked as %+v", num, w)
			continue
		}
		b, err := v.Open(num)
		must(t, err)
		have, err := b.Resume(int64(n), nil)
		want := content.Ranges{{End: int64(n)}}
		switch num {
		case 0:
			want = nil
		case 3:
			want = content.Ranges{{End: mib}, {Off: 3 * mib, End: 4 * mib}}
		}
		if err != nil || !slices.Equal(have, want) {
			t.Errorf("blob %d has %v: %v", num, have, err)
		}
		data := bodyV1(num, n)
		for _, r := range have {
			got := make([]byte, r.Len())
			if _, err := b.ReadAt(got, r.Off); err != nil || !bytes.Equal(got, data[r.Off:r.End]) {
				t.Errorf("blob %d is wrong in %s: %v", num, r, err)
			}
			for i := r.Off / mib; i*mib < r.End; i++ {
				if err := b.Check(i, int64(n)); err != nil {
					t.Error(err)
				}
			}
		}
		must(t, b.Close())
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	dir := storeV1(t)
	_, err := Open(dir, quiet)
	wantErr(t, "opening a volume of format 1", err, ErrFormat1)
	n, bad, err := MigrateV1(dir, cardV1)
	if n != 4 || bad != 0 || err != nil {
		t.Fatalf("migrated %d, %d damaged: %v", n, bad, err)
	}
	v := openVolume(t, dir)
	wantV1(t, v)
	_, _, err = MigrateV1(dir, cardV1)
	wantErr(t, "migrating while it is open", err, ErrInUse)
	must(t, v.Close())
	before := files(t, dir)
	n, bad, err = MigrateV1(dir, cardV1)
	if n != 0 || bad != 0 || err != nil || len(before) != len(files(t, dir)) {
		t.Errorf("migrated %d more, %d damaged: %v", n, bad, err)
	}
}

// A migration that was cut short anywhere goes on.
func TestMigrateGoesOn(t *testing.T) {
	t.Parallel()
	for stop := range 4 {
		dir := storeV1(t)
		func() {
			defer func() { _ = recover() }()
			calls := 0
			_, _, _ = MigrateV1(dir, func(num uint64) []byte {
				if calls++; calls > stop {
					panic("the process dies")
				}
				return cardV1(num)
			})
		}()
		// It died right before the rename: the new file is there, cut short.
		must(t, os.WriteFile(blobPath(dir, uint64(stop))+".tree.new", []byte("CISTREE2"), 0o600))
		reset(t, dir)
		_, err := Open(dir, quiet)
		wantErr(t, "opening it half-way", err, ErrFormat1)
		n, bad, err := MigrateV1(dir, cardV1)
		if n != 4-stop || bad != 0 || err != nil {
			t.Errorf("stopped after %d: migrated %d more, %d damaged: %v", stop, n, bad, err)
		}
		wantV1(t, openVolume(t, dir))
	}
}

// reset gives a directory a new lock file: the one of a process that died, here
// of a call that panicked, stays locked until it is collected.
func reset(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "lock")); err != nil && !missing(err) {
		t.Fatal(err)
	}
}

// What is damaged in the old store is damaged in the new one, or missing.
func TestMigrateDamaged(t *testing.T) {
	t.Parallel()
	dir := storeV1(t)
	patch(t, blobPath(dir, 1)+".tree", 18, []byte{9})     // header
	patch(t, blobPath(dir, 2)+".tree", 32+100, []byte{9}) // slot 0
	must(t, os.Remove(blobPath(dir, 3)))
	n, bad, err := MigrateV1(dir, cardV1)
	if n != 3 || bad != 1 || err != nil {
		t.Fatalf("migrated %d, %d damaged: %v", n, bad, err)
	}
	v := openVolume(t, dir)
	all := walk(t, v)
	if !errors.Is(all[1].err, ErrDamaged) || all[2].err != nil || !errors.Is(all[3].err, ErrDamaged) {
		t.Errorf("walked %+v", all)
	}
	b, err := v.Open(2)
	must(t, err)
	defer b.Close()
	wantErr(t, "a slot that was damaged", b.Check(0, 5*mib/2), ErrMissing)
	must(t, b.Check(1, 5*mib/2))
}
