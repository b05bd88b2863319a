package cache

import (
	"bytes"
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestClaims(t *testing.T) {
	s := open(t, Config{})
	data := noise(4, 4*mib)
	layer, id := proof(t, data)
	f := create(t, s, "a", content.Object{ID: id, Size: id.Size, Layer: layer})
	g := make(gate)
	f.Start(g.source())
	r, _ := f.Reader()
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() { defer close(gone); _, _ = r.Wait(ctx, 2*mib) }()
	g.do(func(sink content.Sink) {
		<-sink.Wanted()
		for _, c := range []struct {
			at, max int64
			want    content.Range
		}{
			{-1, 100, content.Range{Off: 2 * mib, End: 2*mib + 100}}, // the reader's byte
			{-1, 100, content.Range{Off: 2*mib + 100, End: 2*mib + 200}},
			{2*mib + 50, 100, content.Range{}},
			{2*mib + 300, 100, content.Range{Off: 2*mib + 300, End: 2*mib + 400}},
			{-1, 1000, content.Range{Off: 2*mib + 200, End: 2*mib + 300}}, // up to the next claim
			{-1, 0, content.Range{}},
			{-1, -5, content.Range{}},
			{id.Size, 10, content.Range{}},
			{0, math.MaxInt64, content.Range{Off: 0, End: 2 * mib}},
			{-1, math.MaxInt64, content.Range{Off: 2*mib + 400, End: id.Size}},
			{-1, math.MaxInt64, content.Range{}},
		} {
			if got, ok := sink.Claim(c.at, c.max); got != c.want || ok != (c.want.Len() > 0) {
				t.Errorf("claim of %d at %d gave %v, %v; want %v", c.max, c.at, got, ok, c.want)
			}
		}
		sink.Release(content.Range{Off: 2 * mib, End: 3 * mib})
		<-sink.Wanted() // the reader's byte is free again
		if missing := sink.Missing(); len(missing) != 1 || missing[0].Len() != id.Size {
			t.Errorf("missing is %v", missing)
		}
		// Its byte is here, but the block is not proved: the rest comes first.
		if err := bring(sink, data, content.Range{Off: 2 * mib, End: 2*mib + 10}); err != nil {
			t.Error(err)
		}
		if got, _ := sink.Claim(-1, 10); got.Off != 2*mib+10 {
			t.Errorf("claimed %v, want the rest of the block that a reader waits for", got)
		}
	})
	cancel()
	<-gone
	close(g)
}

func TestBadBlockProvedByManyAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(6, 2*mib)
	layer, id := proof(t, data)
	bad := bytes.Clone(data[:mib])
	bad[5] ^= 1
	for round := range 10 {
		f := create(t, s, "a", content.Object{ID: id, Size: id.Size, Layer: layer})
		f.Start(source{"crowd", func(_ context.Context, sink content.Sink) error {
			if _, err := sink.WriteAt(bad, 0); err != nil {
				return err
			}
			f.mu.Lock()
			f.arrived.Add(content.Range{End: mib}) // as eight Accepts leave it when the last ones meet
			f.mu.Unlock()
			var wg sync.WaitGroup
			var told atomic.Int32
			for range 8 {
				wg.Go(func() {
					if f.prove(0) != nil {
						told.Add(1)
						if err := bring(sink, data, content.Range{End: mib}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if told.Load() != 1 {
				t.Errorf("round %d: %d were told of one bad block", round, told.Load())
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, r := range f.readable {
				if !f.arrived.Covers(r) {
					t.Errorf("round %d: %s is readable, and missing", round, r)
				}
			}
			return nil
		}}, from("friend", data, mib/4))
		<-f.Done()
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		wantObject(t, s, "a", data)
		if err := s.Evict(f.Num()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnknownSize(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(9, 3*mib+5)
	for _, n := range []int64{0, 1, mib, 3*mib + 5} {
		f := create(t, s, "a", content.Object{Size: content.UnknownSize})
		r, _ := f.Reader()
		g := make(gate)
		f.Start(g.source())
		g.do(func(sink content.Sink) {
			if missing := sink.Missing(); len(missing) != 1 || missing[0] != (content.Range{End: math.MaxInt64}) {
				t.Errorf("missing is %v", missing)
			}
			if n > 0 {
				if err := bring(sink, data, content.Range{End: n}); err != nil {
					t.Error(err)
				}
				if err := sink.SetSize(n - 1); err == nil {
					t.Error("a size below what is here was accepted")
				}
			}
			_, _ = sink.WriteAt([]byte("beyond the end"), n)
			if err := errors.Join(sink.SetSize(n), sink.SetSize(n)); err != nil {
				t.Error(err)
			}
			if sink.SetSize(n+1) == nil || sink.SetSize(-1) == nil {
				t.Error("a second size was accepted")
			}
			if _, err := sink.WriteAt([]byte{1}, n); err == nil {
				t.Error("a byte beyond the end was written")
			}
			if err := sink.Accept(content.Range{Off: n, End: n + 1}); err == nil {
				t.Error("a byte beyond the end was accepted")
			}
		})
		if size, err := r.Size(t.Context()); size != n || err != nil {
			t.Errorf("size is %d, %v; want %d", size, err, n)
		}
		close(g)
		wantBytes(t, r, data, content.Range{End: n})
		<-f.Done()
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		wantObject(t, s, "a", data[:n])
		r.Close()
	}
}

func TestSizeIsSaidOnceByMany(t *testing.T) {
	s := open(t, Config{})
	f := create(t, s, "a", content.Object{Size: content.UnknownSize})
	var said []int64
	f.Start(source{"crowd", func(_ context.Context, sink content.Sink) error {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range int64(8) {
			wg.Go(func() {
				if sink.SetSize(1000+i) == nil {
					mu.Lock()
					defer mu.Unlock()
					said = append(said, 1000+i)
				}
			})
		}
		wg.Wait()
		return nil
	}})
	<-f.Done()
	if len(said) != 1 || f.Size() != said[0] {
		t.Errorf("sizes %v were all accepted, size is %d", said, f.Size())
	}
}

func TestLateSourceTouchesNothing(t *testing.T) {
	s := open(t, Config{})
	data := noise(10, mib)
	f := create(t, s, "a", content.Object{Size: mib})
	var kept content.Sink
	f.Start(source{"late", func(_ context.Context, sink content.Sink) error {
		kept = sink
		sink.Claim(0, mib) // and never released
		return errors.New("gave up")
	}}, source{"next", func(ctx context.Context, sink content.Sink) error {
		if _, err := kept.WriteAt(make([]byte, 10), 0); err == nil {
			t.Error("a Source that has returned wrote")
		}
		if kept.Accept(content.Range{End: 10}) == nil || kept.SetSize(mib) == nil {
			t.Error("a Source that has returned was heard")
		}
		return from("next", data, mib).Fill(ctx, sink)
	}})
	<-f.Done()
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	wantObject(t, s, "a", data)
}

func TestAcceptWaitsForWrites(t *testing.T) {
	s := open(t, Config{})
	data := noise(11, mib)
	layer, id := proof(t, data)
	for name, object := range map[string]content.Object{
		"plain":  {Size: mib},
		"proved": {ID: id, Size: mib, Layer: layer},
	} {
		f := create(t, s, name, object)
		f.Start(source{"slow", func(_ context.Context, sink content.Sink) error {
			if _, err := sink.WriteAt(data, 0); err != nil {
				return err
			}
			f.writing.RLock() // as a second write has it
			accepted := make(chan error)
			go func() { accepted <- sink.(*tap).accept(content.Range{End: mib}, "slow") }()
			for len(sink.Missing()) > 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond) // time to do it wrong
			if n := f.here(); n != 0 {
				t.Errorf("%s: %d bytes are readable while they are written", name, n)
			}
			f.writing.RUnlock()
			return <-accepted
		}})
		<-f.Done()
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
	}
}
