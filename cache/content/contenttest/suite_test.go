package contenttest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/content/contenttest"
)

// memory is the simplest Source that keeps every promise.
type memory struct{ data []byte }

func (memory) Name() string { return "memory" }

func (m memory) Fill(ctx context.Context, sink content.Sink) error {
	if sink.Size() < 0 {
		if err := sink.SetSize(int64(len(m.data))); err != nil {
			return err
		}
	}
	for bad := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, ok := sink.Claim(-1, 100_000)
		if !ok {
			return nil
		}
		_, err := sink.WriteAt(m.data[r.Off:r.End], r.Off)
		if err == nil {
			err = sink.Accept(r)
		}
		sink.Release(r)
		if errors.Is(err, content.ErrBadPiece) && bad < 3 {
			bad++
			continue
		}
		if err != nil {
			return err
		}
	}
}

// absent has nothing.
type absent struct{ memory }

func (absent) Fill(context.Context, content.Sink) error { return content.ErrNotHere }

func TestMemory(t *testing.T) {
	newSource := func(_ *testing.T, data []byte) content.Source { return memory{data} }
	contenttest.Run(t, newSource)
	contenttest.RunUnsized(t, newSource)
	contenttest.RunAbsent(t, func(*testing.T) content.Source { return absent{} })
	contenttest.RunSpoilt(t, func(_ *testing.T, _, spoilt []byte) content.Source { return memory{spoilt} })
}

// TestSinkNotesBrokenPromises breaks one promise at a time.
func TestSinkNotesBrokenPromises(t *testing.T) {
	page := make([]byte, 10)
	for _, c := range []struct {
		name, want string
		do         func(s *contenttest.Sink)
	}{
		{"write beyond the end", "was written, the object ends", func(s *contenttest.Sink) { _, _ = s.WriteAt(page, 95) }},
		{"write before the start", "was written, the object ends", func(s *contenttest.Sink) { _, _ = s.WriteAt(page, -1) }},
		{"accept unwritten", "was accepted, written is", func(s *contenttest.Sink) { _ = s.Accept(content.Range{Off: 5, End: 6}) }},
		{"accept beyond the end", "was accepted, written is", func(s *contenttest.Sink) { _ = s.Accept(content.Range{Off: 99, End: 101}) }},
		{"read unwritten", "was read back", func(s *contenttest.Sink) { _, _ = s.ReadAt(page, 0) }},
		{"keep a claim", "were not released", func(s *contenttest.Sink) { s.Claim(-1, 5); s.Close() }},
		{"release another's", "was released, claimed is", func(s *contenttest.Sink) { s.Release(content.Range{Off: 1, End: 2}) }},
		{"change the size", "size was said to be 7", func(s *contenttest.Sink) { _ = s.SetSize(7) }},
		{"write late", "written after Fill returned", func(s *contenttest.Sink) { s.Close(); _, _ = s.WriteAt(page, 0) }},
		{"accept late", "accepted after Fill returned", func(s *contenttest.Sink) { s.Close(); _ = s.Accept(content.Range{End: 1}) }},
		{"claim late", "claimed after Fill returned", func(s *contenttest.Sink) { s.Close(); s.Claim(-1, 1) }},
		{"set size late", "set after Fill returned", func(s *contenttest.Sink) { s.Close(); _ = s.SetSize(100) }},
	} {
		sink := contenttest.NewSink(100, nil)
		c.do(sink)
		if !slices.ContainsFunc(sink.Faults(), func(f string) bool { return strings.Contains(f, c.want) }) {
			t.Errorf("%s: noted %q, want %q", c.name, sink.Faults(), c.want)
		}
	}
}

func TestSinkClaims(t *testing.T) {
	sink := contenttest.NewSink(100, nil)
	sink.Have(make([]byte, 10), 20)
	var got []content.Range
	for _, at := range []int64{-1, -1, 20, 30, 30, 35, -1, -1, -1, -1} {
		r, _ := sink.Claim(at, 15)
		got = append(got, r)
	}
	const want = "[[0,15) [15,20) [0,0) [30,45) [0,0) [0,0) [45,60) [60,75) [75,90) [90,100)]"
	if fmt.Sprint(got) != want {
		t.Errorf("claims were %v, want %s", got, want)
	}
}
