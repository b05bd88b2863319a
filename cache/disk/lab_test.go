package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// What the tests share.

const mib = content.BlockSize

// rounds is how often a test with many rounds runs: fully if the environment asks
// for it.
func rounds(full, usual int) int {
	if os.Getenv("CISTERN_SOAK") == "1" {
		return full
	}
	return usual
}

var quiet = slog.New(slog.DiscardHandler)

func openVolume(t testing.TB, dir string) *Volume {
	t.Helper()
	v, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() }) // a second time for some
	return v
}

func reopen(t testing.TB, v *Volume) *Volume {
	t.Helper()
	must(t, v.Close())
	return openVolume(t, v.dir)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noise makes n bytes that differ by seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func hashes(t testing.TB, data []byte) []content.Hash {
	t.Helper()
	leaves, err := content.HashLeaves(nil, bytes.NewReader(data))
	must(t, err)
	return leaves
}

// putBlock makes block i of data durable.
func putBlock(t testing.TB, b *Blob, data []byte, i int64) {
	t.Helper()
	r := content.Block(i, int64(len(data)))
	_, err := b.WriteAt(data[r.Off:r.End], r.Off)
	must(t, err)
	must(t, b.Sync())
	must(t, b.PutSlot(i, hashes(t, data[r.Off:r.End])))
}

// putBlob makes a whole blob.
func putBlob(t testing.TB, v *Volume, num uint64, data, card []byte) *Blob {
	t.Helper()
	b, err := v.Create(num, int64(len(data)), card)
	must(t, err)
	t.Cleanup(func() { _ = b.Close() }) // a second time for some
	for i := range content.Blocks(int64(len(data))) {
		putBlock(t, b, data, i)
	}
	must(t, b.SyncTree())
	return b
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s gave %v, want %v", what, err, want)
	}
}

func patch(t testing.TB, path string, off int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(p, off)
	must(t, errors.Join(err, f.Close()))
}

// files reads a whole directory tree.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(path)
		return err
	}))
	return all
}

// walked is what Walk says of each blob.
type walked struct {
	size int64
	card string
	err  error
}

func walk(t testing.TB, v *Volume) map[uint64]walked {
	t.Helper()
	all := map[uint64]walked{}
	must(t, v.Walk(func(num uint64, size int64, card []byte, err error) bool {
		all[num] = walked{size, string(card), err}
		return true
	}))
	return all
}

// scanned is what Scan says of each segment: sound records, and how many others.
func scanned(t testing.TB, s *Segments) (sound map[Place]uint64, bad int) {
	t.Helper()
	sound = map[Place]uint64{}
	for _, i := range s.List() {
		err := s.Scan(i.ID, func(num uint64, p Place, _ []byte, _ int, err error) bool {
			if err == nil {
				sound[p] = num
			} else {
				wantErr(t, "scan", err, ErrDamaged)
				bad++
			}
			return true
		})
		if err != nil {
			wantErr(t, "scan", err, ErrDamaged)
			bad++
		}
	}
	return sound, bad
}

func sortedKeys[K interface{ ~uint64 | ~uint32 | ~string }, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
