package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// The parts that the tests of the store share: stores, contents and Sources.

const mib = content.BlockSize

// TestMain lets the test binary stand in for a box that is killed: see
// life_test.go and scale_test.go.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		live()
	}
	if dir := os.Getenv(scaleDirEnv); dir != "" {
		scaleChild(dir)
	}
	os.Exit(m.Run())
}

// open opens a store, to be closed at the end of the test.
func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Small, cfg.MinFree = true, max(cfg.MinFree, 1)
	s, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// bodyPath is where the body of a large object lies.
func bodyPath(dir string, num uint64) string {
	return filepath.Join(dir, "blobs", fmt.Sprintf("%02x", byte(num)), fmt.Sprintf("%016x", num))
}

// blobFiles counts the files of each blob on disk, whether the index knows it or
// not: a whole blob has two.
func blobFiles(dir string) map[uint64]int {
	files := map[uint64]int{}
	paths, _ := filepath.Glob(filepath.Join(dir, "blobs", "??", "*")) // the pattern is sound
	for _, p := range paths {
		num, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(p), ".tree"), 16, 64)
		if err == nil {
			files[num]++
		}
	}
	return files
}

// reopen closes a store and opens it again.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.cfg)
}

var page = func() []byte {
	p := make([]byte, 2*content.LeafSize)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(p) // never fails
	return p
}()

// noise makes n bytes, cheaply, that differ by seed and from leaf to leaf.
func noise(seed uint64, n int64) []byte {
	data := make([]byte, 0, n+content.LeafSize)
	for leaf := uint64(0); int64(len(data)) < n; leaf++ {
		at := (seed*31 + leaf*17) % content.LeafSize
		data = append(data, page[at:at+content.LeafSize]...)
		head := data[len(data)-content.LeafSize:]
		binary.BigEndian.PutUint64(head, seed)
		binary.BigEndian.PutUint64(head[8:], leaf)
	}
	return data[:n:n]
}

// proof is the layer and identity of data.
func proof(t testing.TB, data []byte) (*content.Layer, content.ID) {
	t.Helper()
	leaves, err := content.HashLeaves(nil, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	l := content.NewLayer(int64(len(data)), leaves)
	return l, content.ID{Root: l.Root(), Size: l.Size}
}

// source is a Source made of a function.
type source struct {
	name string
	fill func(ctx context.Context, sink content.Sink) error
}

func (s source) Name() string                                      { return s.name }
func (s source) Fill(ctx context.Context, sink content.Sink) error { return s.fill(ctx, sink) }

// bring writes and accepts one range.
func bring(sink content.Sink, data []byte, r content.Range) error {
	if _, err := sink.WriteAt(data[r.Off:r.End], r.Off); err != nil {
		return err
	}
	return sink.Accept(r)
}

// from is a Source that brings data by claims of at most chunk bytes, and stops
// when nothing is left to claim.
func from(name string, data []byte, chunk int64) source {
	return source{name, func(ctx context.Context, sink content.Sink) error {
		if sink.Size() < 0 {
			if err := sink.SetSize(int64(len(data))); err != nil {
				return err
			}
		}
		for ctx.Err() == nil {
			r, ok := sink.Claim(-1, chunk)
			if !ok {
				return nil
			}
			err := bring(sink, data, r)
			sink.Release(r)
			if err != nil {
				return err
			}
		}
		return ctx.Err()
	}}
}

// both runs two Sources at once.
func both(a, b source) source {
	return source{a.name + " and " + b.name, func(ctx context.Context, sink content.Sink) error {
		var errs [2]error
		var wg sync.WaitGroup
		wg.Go(func() { errs[0] = a.Fill(ctx, sink) })
		wg.Go(func() { errs[1] = b.Fill(ctx, sink) })
		wg.Wait()
		return errors.Join(errs[:]...)
	}}
}

// gate is a Source that does what the test sends it, one thing at a time, until
// it is closed.
type gate chan func(sink content.Sink)

func (g gate) source() source {
	return source{"gate", func(ctx context.Context, sink content.Sink) error {
		for {
			select {
			case do, ok := <-g:
				if !ok {
					return nil
				}
				do(sink)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}}
}

// do has the Source do something and waits until it is done.
func (g gate) do(what func(sink content.Sink)) {
	done := make(chan struct{})
	g <- func(sink content.Sink) { defer close(done); what(sink) }
	<-done
}

// bring has the Source bring one range.
func (g gate) bring(t testing.TB, data []byte, off, end int64) {
	t.Helper()
	g.do(func(sink content.Sink) {
		if err := bring(sink, data, content.Range{Off: off, End: end}); err != nil {
			t.Error(err)
		}
	})
}

// create makes a public object.
func create(t testing.TB, s *Store, name string, object content.Object) *Fill {
	t.Helper()
	f, err := s.Create(Spec{Object: object, Title: name, Public: true}, name, []byte("meta of "+name))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// put fills a public object of data and returns its number.
func put(t testing.TB, s *Store, name string, data []byte) uint64 {
	t.Helper()
	f := create(t, s, name, content.Object{Size: int64(len(data))})
	f.Start(from("memory", data, mib))
	<-f.Done()
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	return f.Num()
}

// wantBytes reads a range as it comes and compares it with data.
func wantBytes(t testing.TB, r *Reader, data []byte, rng content.Range) {
	t.Helper()
	var got bytes.Buffer
	n, err := r.WriteRange(context.Background(), &got, rng)
	if err != nil || n != rng.Len() || !bytes.Equal(got.Bytes(), data[rng.Off:rng.End]) {
		t.Errorf("reading %s gave %d bytes, %v; right: %v", rng, n, err, bytes.Equal(got.Bytes(), data[rng.Off:rng.End]))
	}
}

// wantObject reads the whole of a complete object by its name.
func wantObject(t testing.TB, s *Store, name string, data []byte) {
	t.Helper()
	info, _, ok := s.Lookup(name)
	if !ok || !info.Complete || info.Size != int64(len(data)) {
		t.Errorf("%s: found %v, complete %v, %d bytes; want %d", name, ok, info.Complete, info.Size, len(data))
		return
	}
	r, err := s.Read(info.Num)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	got, err := io.ReadAll(io.NewSectionReader(r, 0, 1<<62))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: read %d bytes, %v; want %d others", name, len(got), err, len(data))
	}
}
