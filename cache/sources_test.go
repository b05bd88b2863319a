package cache

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// TestClaimsBelongToTheirSource: one Source cannot give back what another has
// claimed, and what a Source leaves behind is free again when it returns.
func TestClaimsBelongToTheirSource(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(970, 4*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	g, h := make(gate), make(gate)
	if f.Join(h.source()) {
		t.Error("joined a fill that does not run")
	}
	f.Start(g.source())
	other := h.source()
	other.name = "other"
	if !f.Join(other) {
		t.Fatal("could not join")
	}
	first := content.Range{End: mib}
	g.do(func(sink content.Sink) {
		if r, ok := sink.Claim(-1, mib); !ok || r != first {
			t.Errorf("claimed %v", r)
		}
	})
	h.do(func(sink content.Sink) {
		sink.Release(content.Range{End: 4 * mib}) // has nothing to give back
		if r, ok := sink.Claim(-1, mib); !ok || r != (content.Range{Off: mib, End: 2 * mib}) {
			t.Errorf("claimed %v", r)
		}
		if r, ok := sink.Claim(0, mib); ok {
			t.Errorf("claimed %v, which another has", r)
		}
	})
	close(g) // and never released
	h.do(func(sink content.Sink) {
		for { // until the other has returned
			f.mu.Lock()
			running := f.running
			f.mu.Unlock()
			if running == 1 {
				break
			}
		}
		if r, ok := sink.Claim(0, 2*mib); !ok || r != first {
			t.Errorf("claimed %v of what the other has left, %v", r, ok)
		}
	})
	h.bring(t, data, 0, 4*mib)
	close(h)
	<-f.Done()
	if f.Err() != nil || f.Join(other) {
		t.Errorf("%v, or joined a fill that is done", f.Err())
	}
	wantObject(t, s, "a", data)
}

// TestReadAheadOrder: a reader's byte comes first, then what readers will want
// next as far as they have earned, then the rest from the start.
func TestReadAheadOrder(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(971, 32*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	g := make(gate)
	f.Start(g.source())
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	claim := func(want int64) {
		t.Helper()
		g.do(func(sink content.Sink) {
			c, ok := sink.Claim(-1, mib)
			if !ok || c.Off != want {
				t.Errorf("claimed %v, want %d", c, want)
			}
			if err := bring(sink, data, c); err != nil {
				t.Error(err)
			}
			sink.Release(c)
		})
	}
	claim(0)
	at := int64(10 * mib)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := func(off int64) {
		wg.Go(func() { _, _ = r.Wait(ctx, off) })
		g.do(func(sink content.Sink) { <-sink.Wanted() })
	}
	wait(at) // far from where it was: it has earned little
	claim(at)
	wg.Wait()
	claim(mib) // its read-ahead of a block is full: the rest comes from the start
	wait(at + mib)
	claim(at + mib)
	wg.Wait()
	claim(at + 2*mib) // it goes straight on: two blocks ahead now
	claim(2 * mib)
	wait(at + 3*mib)
	claim(at + 3*mib)
	wg.Wait()
	for i := int64(4); i < 7; i++ {
		claim(at + i*mib)
	}
	claim(3 * mib)
	wait(20 * mib) // a jump: what was earned is gone
	claim(20 * mib)
	wg.Wait()
	claim(4 * mib)
	f.stop(errUnwanted)
	<-f.Done()
}

// TestReadersAcrossTheEnd: readers that were there before and after a fill ended,
// well or badly, merged or evicted, get what is here or are told.
func TestReadersAcrossTheEnd(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(972, 2*mib+9)
	size := int64(len(data))
	for name, end := range map[string]func(f *Fill, g gate){
		"complete": func(f *Fill, g gate) { g.bring(t, data, mib, size) },
		"failed":   func(*Fill, gate) {},
		"evicted":  func(f *Fill, _ gate) { _ = s.Evict(f.num) },
	} {
		f := create(t, s, name, content.Object{Size: size})
		g := make(gate)
		f.Start(g.source())
		g.bring(t, data, 0, mib)
		unopened, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		opened, _ := f.Reader()
		wantBytes(t, opened, data, content.Range{End: 100})
		end(f, g)
		close(g)
		<-f.Done()
		for _, r := range []*Reader{opened, unopened} {
			wantBytes(t, r, data, content.Range{Off: 100, End: mib})
			_, err := r.Wait(t.Context(), mib)
			if (err == nil) != (name == "complete") {
				t.Errorf("%s: the rest: %v", name, err)
			}
			if _, err := r.ReadAt(make([]byte, 9), mib); (err == nil) != (name == "complete") {
				t.Errorf("%s: the rest at once: %v", name, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		late, err := f.Reader()
		switch {
		case name == "complete" && err == nil:
			wantBytes(t, late, data, content.Range{End: size})
			late.Close()
		case name == "evicted" && errors.Is(err, ErrNotFound):
		case name == "failed" && err == nil:
			late.Close()
		default:
			t.Errorf("%s: a late reader: %v", name, err)
		}
	}
	balance(t, s)
}
