package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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
