package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestFillReadComplete(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{1, content.LeafSize, mib - 1, mib, mib + 1, 3*mib + 5} {
		s := open(t, Config{})
		data := noise(1, n)
		layer, id := proof(t, data)
		f := create(t, s, "a", content.Object{Size: n})
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		if !f.Start(from("memory", data, 100_000)) || f.Start(from("memory", data, 100_000)) {
			t.Error("Start is not for the first caller alone")
		}
		wantBytes(t, r, data, content.Range{End: n})
		<-f.Done()
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		info, ok := s.ByID(id)
		if !ok || info.Num != f.Num() || info.ID != id || info.Readable != n || info.Filling || info.From["memory"] != n {
			t.Errorf("%d bytes: by identity: %v, %+v", n, ok, info)
		}
		got, err := s.Layer(f.Num())
		if err != nil || !slices.Equal(got.Hashes, layer.Hashes) || got.Check(id) != nil {
			t.Errorf("%d bytes: layer is not the naive one: %v", n, err)
		}
		_, meta, _ := s.Lookup("a")
		if string(meta) != "meta of a" {
			t.Errorf("meta is %q", meta)
		}
		if _, err := r.Wait(t.Context(), n); err != io.EOF {
			t.Errorf("Wait at the end gave %v, want io.EOF", err)
		}
		if _, err := r.WriteRange(t.Context(), io.Discard, content.Range{End: n + 1}); err != io.ErrUnexpectedEOF {
			t.Errorf("a range beyond the end gave %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		wantObject(t, s, "a", data)
	}
}

func TestManyReadersTwoSources(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(2, 12*mib+12345)
	layer, id := proof(t, data)
	for name, object := range map[string]content.Object{
		"plain":  {Size: int64(len(data))},
		"proved": {ID: id, Size: id.Size, Layer: layer, Trust: content.TrustPieces},
	} {
		f := create(t, s, name, object)
		var brought sync.Map
		counted := func(name string, chunk int64) source {
			inner := from(name, data, chunk)
			return source{name, func(ctx context.Context, sink content.Sink) error {
				return inner.Fill(ctx, counting{sink, &brought})
			}}
		}
		var readers sync.WaitGroup
		for i := range 8 {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 3))
				r, err := f.Reader()
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				for range 6 {
					off := rng.Int64N(id.Size)
					wantBytes(t, r, data, content.Range{Off: off, End: min(id.Size, off+rng.Int64N(2*mib))})
				}
			})
		}
		f.Start(both(counted("a", 300_000), counted("b", 70_001)))
		readers.Wait()
		<-f.Done()
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		brought.Range(func(k, v any) bool {
			if v.(int) > 1 {
				t.Errorf("%s: byte %d was claimed %d times", name, k, v)
			}
			return true
		})
	}
}

// counting counts how often the first byte of a claim was handed out.
type counting struct {
	content.Sink
	starts *sync.Map
}

func (c counting) Claim(at, max int64) (content.Range, bool) {
	r, ok := c.Sink.Claim(at, max)
	if ok {
		n, _ := c.starts.LoadOrStore(r.Off, 0)
		c.starts.Store(r.Off, n.(int)+1)
	}
	return r, ok
}

func TestReaderWakesOnlyForItsByte(t *testing.T) {
	s := open(t, Config{})
	data := noise(3, 2*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	g := make(gate)
	f.Start(g.source())
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	woke := make(chan int64, 1)
	go func() {
		end, err := r.Wait(context.Background(), 1000)
		if err != nil {
			t.Error(err)
		}
		woke <- end
	}()
	waiting := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.waiters)
	}
	for waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	g.bring(t, data, 0, 1000)
	g.bring(t, data, 1001, 5000)
	g.do(func(sink content.Sink) { _, _ = sink.WriteAt(data[1000:1001], 1000) }) // written is not readable
	if waiting() != 1 {
		t.Error("the reader woke for other bytes than its own")
	}
	if _, err := r.ReadAt(make([]byte, 1), 1000); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a byte that was written and not accepted was read: %v", err)
	}
	g.bring(t, data, 1000, 1001)
	if end := <-woke; end != 5000 {
		t.Errorf("readable up to %d, want 5000", end)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Wait(ctx, 7000); !errors.Is(err, context.Canceled) || waiting() != 0 {
		t.Errorf("a reader that gave up: %v, %d are waiting", err, waiting())
	}
	close(g)
	<-f.Done()
	if _, err := r.Wait(t.Context(), 7000); err == nil || err == io.EOF {
		t.Errorf("the fill ended early, the reader was told %v", err)
	}
	wantBytes(t, r, data, content.Range{Off: 0, End: 5000})
}

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

func TestLayerRefutesAndNextSourceMends(t *testing.T) {
	s := open(t, Config{})
	data := noise(5, 5*mib+99)
	layer, id := proof(t, data)
	bad := bytes.Clone(data)
	bad[3*mib+5] ^= 1
	f := create(t, s, "a", content.Object{ID: id, Size: id.Size, Layer: layer, Trust: content.TrustPieces})
	r, _ := f.Reader()
	defer r.Close()
	f.Start(from("liar", bad, 300_000), from("friend", data, 300_000))
	wantBytes(t, r, data, content.Range{End: id.Size})
	<-f.Done()
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	info, _ := s.Get(f.Num())
	if info.From["friend"] < mib || info.From["friend"]+info.From["liar"] != id.Size {
		t.Errorf("bytes came from %v", info.From)
	}
}

// TestBadBlockProvedByManyAtOnce has eight goroutines meet at a bad block; the
// one that is told brings it again, and what was proved since stays.
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
					if f.prove(0, "crowd") != nil {
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

func TestPromiseWithoutLayerIsKept(t *testing.T) {
	s := open(t, Config{})
	data := noise(7, 2*mib+1)
	_, id := proof(t, data)
	bad := bytes.Clone(data)
	bad[mib] ^= 1
	f := create(t, s, "a", content.Object{ID: id, Size: id.Size})
	f.Start(from("liar", bad, mib))
	<-f.Done()
	if !errors.Is(f.Err(), content.ErrBadPiece) {
		t.Errorf("fill ended with %v, want ErrBadPiece", f.Err())
	}
	if _, _, ok := s.Lookup("a"); ok || len(s.List()) != 0 || s.Stats().Bytes != 0 {
		t.Error("an object that broke its promise is still here")
	}
	f = create(t, s, "a", content.Object{ID: id, Size: content.UnknownSize})
	f.Start(from("friend", data, mib))
	<-f.Done()
	if info, ok := s.ByID(id); f.Err() != nil || !ok || info.ID != id {
		t.Errorf("an object that kept its promise: %v, %v", f.Err(), ok)
	}
}

func TestCreateRefusesContradictions(t *testing.T) {
	s := open(t, Config{})
	data := noise(8, mib+1)
	layer, id := proof(t, data)
	for name, object := range map[string]content.Object{
		"other size":       {ID: id, Size: id.Size + 1},
		"negative size":    {ID: content.ID{Root: id.Root, Size: -5}, Size: -5},
		"layer without ID": {Size: id.Size, Layer: layer},
		"layer too short":  {ID: id, Size: id.Size, Layer: &content.Layer{Size: id.Size, Hashes: layer.Hashes[:1]}},
	} {
		if _, err := s.Create(Spec{Object: object}, "x", nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(s.List()) != 0 || len(blobFiles(s.cfg.Dir)) != 0 {
		t.Error("something was left behind")
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

func TestNobodyHasIt(t *testing.T) {
	s := open(t, Config{})
	f := create(t, s, "a", content.Object{Size: mib})
	f.Start(
		source{"first", func(context.Context, content.Sink) error { return content.ErrNotHere }},
		source{"second", func(context.Context, content.Sink) error { return io.ErrNoProgress }},
	)
	<-f.Done()
	if err := f.Err(); !errors.Is(err, content.ErrNotHere) || !errors.Is(err, io.ErrNoProgress) || !strings.Contains(err.Error(), "second") {
		t.Errorf("fill ended with %v", err)
	}
	if _, err := s.Read(f.Num()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("reading it gave %v", err)
	}
}

// TestAcceptWaitsForWrites holds a write up: what is accepted meanwhile may
// still change, so no reader may have it.
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
