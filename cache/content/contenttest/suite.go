// Package contenttest holds every content.Source to its promises.
//
// A package with a Source calls [Run] from a test of its own, and those of
// [RunUnsized], [RunAbsent] and [RunSpoilt] that its kind of Source can be asked
// for. The Sink that they fill is in memory and notes each broken promise; it is
// exported for tests that want to look closer. The package knows no kind of
// Source and opens no sockets or files. Start reading at [Run].
package contenttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// patience is how long a Fill may take before it counts as hung.
const patience = 60 * time.Second

// noise is n bytes that are the same in every run.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data) // never fails
	return data
}

// layerOf proves data.
func layerOf(t *testing.T, data []byte) *content.Layer {
	t.Helper()
	leaves, err := content.HashLeaves(nil, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return content.NewLayer(int64(len(data)), leaves)
}

// fill runs a Source against a Sink, which is closed the moment it returns. The
// faults are told at the end of the test, so that late writes show too.
func fill(ctx context.Context, t *testing.T, src content.Source, sink *Sink) error {
	t.Helper()
	if src.Name() == "" {
		t.Error("the source has no name")
	}
	t.Cleanup(func() {
		for _, f := range sink.Faults() {
			t.Errorf("%s: %s", src.Name(), f)
		}
	})
	returned := make(chan error, 1)
	go func() {
		err := src.Fill(ctx, sink)
		sink.Close()
		returned <- err
	}()
	select {
	case err := <-returned:
		return err
	case <-time.After(patience):
		t.Fatalf("%s: Fill did not return within %s; missing is %v", src.Name(), patience, sink.Missing())
		return nil
	}
}

// Run holds a Source to what all of them promise. newSource makes a fresh one
// that brings data, which is up to 4 MiB long and never empty.
func Run(t *testing.T, newSource func(t *testing.T, data []byte) content.Source) {
	for _, n := range []int{1, content.LeafSize + 1, content.BlockSize, 3*content.BlockSize + 5} {
		t.Run(fmt.Sprintf("fills %d bytes", n), func(t *testing.T) {
			data := noise(n)
			sink := NewSink(int64(n), layerOf(t, data))
			want(t, fill(t.Context(), t, newSource(t, data), sink), sink, data)
		})
	}
	t.Run("fills holes", func(t *testing.T) { holes(t, newSource) })
	t.Run("brings nothing when nothing is missing", func(t *testing.T) {
		data := noise(content.BlockSize + 5)
		sink := NewSink(int64(len(data)), nil)
		sink.Have(data, 0)
		want(t, fill(t.Context(), t, newSource(t, data), sink), sink, data)
	})
	t.Run("gives up before it begins", func(t *testing.T) {
		data := noise(content.BlockSize)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := fill(ctx, t, newSource(t, data), NewSink(int64(len(data)), nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("Fill with a context that is done gave %v, want its error", err)
		}
	})
	t.Run("gives up in the middle", func(t *testing.T) {
		data := noise(4 * content.BlockSize)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		sink := NewSink(int64(len(data)), nil)
		sink.onAccept = func(int64) { cancel() }
		err := fill(ctx, t, newSource(t, data), sink)
		if whole := sink.Diff(data) == ""; !errors.Is(err, context.Canceled) && !(whole && err == nil) {
			t.Errorf("Fill gave %v when its context ended, want the context's error", err)
		}
	})
	t.Run("copes with a refuted block", func(t *testing.T) {
		data := noise(3*content.BlockSize + 5)
		sink := NewSink(int64(len(data)), nil)
		sink.Refuse(1)
		if err := fill(t.Context(), t, newSource(t, data), sink); err == nil {
			want(t, err, sink, data) // it may fail, but not lie
		}
		if sink.Refused() != 1 {
			t.Error("the block was never whole")
		}
	})
}

// want checks that a fill was told as done, is done, and wasted nothing.
func want(t *testing.T, err error, sink *Sink, data []byte) {
	t.Helper()
	if err != nil {
		t.Errorf("Fill failed: %v", err)
	}
	if diff := sink.Diff(data); diff != "" {
		t.Error(diff)
	}
}

// holes checks that what is here already is left alone, but for the parts of
// pieces that reach over the edge of a hole.
func holes(t *testing.T, newSource func(t *testing.T, data []byte) content.Source) {
	const mib = content.BlockSize
	size := int64(4*mib - 7)
	for name, have := range map[string][]content.Range{
		"first half is here":  {{Off: 0, End: 2 * mib}},
		"second half is here": {{Off: 2 * mib, End: size}},
		"last byte is here":   {{Off: size - 1, End: size}},
		"odd ranges are here": {{Off: 1, End: 100_001}, {Off: mib - 3, End: 2*mib + 9}, {Off: 3 * mib, End: 3*mib + 1}},
	} {
		t.Run(name, func(t *testing.T) {
			data := noise(int(size))
			sink := NewSink(size, layerOf(t, data))
			for _, r := range have {
				sink.Have(data[r.Off:r.End], r.Off)
			}
			want(t, fill(t.Context(), t, newSource(t, data), sink), sink, data)
			if edges := int64(2*len(have)) * mib; sink.Again() > edges {
				t.Errorf("%d bytes were brought that were here", sink.Again())
			}
		})
	}
}

// RunUnsized holds a Source that can tell the size to telling it. data may be
// empty.
func RunUnsized(t *testing.T, newSource func(t *testing.T, data []byte) content.Source) {
	for _, n := range []int{0, 1, content.BlockSize, 2*content.BlockSize + 5} {
		t.Run(fmt.Sprintf("fills %d bytes of unknown size", n), func(t *testing.T) {
			data := noise(n)
			sink := NewSink(content.UnknownSize, nil)
			want(t, fill(t.Context(), t, newSource(t, data), sink), sink, data)
		})
	}
}

// RunAbsent holds a Source that has nothing of a 2 MiB object to saying so.
func RunAbsent(t *testing.T, newSource func(t *testing.T) content.Source) {
	t.Run("says that it has nothing", func(t *testing.T) {
		sink := NewSink(2*content.BlockSize, nil)
		if err := fill(t.Context(), t, newSource(t), sink); !errors.Is(err, content.ErrNotHere) {
			t.Errorf("Fill gave %v, want ErrNotHere", err)
		}
		if sink.Accepted() > 0 {
			t.Errorf("%d bytes were accepted", sink.Accepted())
		}
	})
}

// RunSpoilt holds a Source whose far end sends bytes that are not data's to
// giving up, with an error, and to keeping what was right. newSource makes one
// that brings spoilt; it differs from data in one byte of the second block.
func RunSpoilt(t *testing.T, newSource func(t *testing.T, data, spoilt []byte) content.Source) {
	t.Run("gives up on a bad piece", func(t *testing.T) {
		const tries = 50
		data := noise(3*content.BlockSize + 5)
		spoilt := bytes.Clone(data)
		spoilt[content.BlockSize+77] ^= 0x10
		sink := NewSink(int64(len(data)), layerOf(t, data))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		sink.onRefuse = func(refused int) {
			if refused > tries { // or it would try for ever
				cancel()
			}
		}
		if err := fill(ctx, t, newSource(t, data, spoilt), sink); err == nil {
			t.Error("Fill says that all is well")
		}
		if sink.Refused() > tries {
			t.Errorf("the bad block was brought %d times", sink.Refused())
		}
		if sink.Diff(data) == "accepted bytes are wrong" {
			t.Error("bad bytes were accepted")
		}
	})
}
