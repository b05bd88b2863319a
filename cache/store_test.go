package cache

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestConfigSaysEveryFault(t *testing.T) {
	err := Config{MaxBytes: -1, MinFree: -2}.Validate()
	for _, key := range []string{"store.dir", "store.max_bytes", "store.min_free"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%q does not name %s", err, key)
		}
	}
	if _, err := Open(Config{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a store without a directory was opened")
	}
}

func TestOneProcessOpensAStore(t *testing.T) {
	s := open(t, Config{})
	if _, err := Open(s.cfg, s.log); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestMergeOfEqualObjects(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(20, 2*mib+7)
	first := put(t, s, "first", data)
	f := create(t, s, "second", content.Object{Size: int64(len(data))})
	if err := s.Pin(f.Num(), true); err != nil {
		t.Fatal(err)
	}
	early, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	spare := f.Num()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() { // a fill always has a reader, even while it is merged
		for {
			r, err := f.Reader()
			if err != nil {
				t.Errorf("no reader: %v", err)
				return
			}
			r.Close()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	f.Start(from("memory", data, 100_000))
	<-f.Done()
	close(stop)
	readers.Wait()
	if f.Err() != nil || f.Num() != first {
		t.Fatalf("merged into %d, want %d: %v", f.Num(), first, f.Err())
	}
	wantBytes(t, early, data, content.Range{End: int64(len(data))})
	late, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	wantBytes(t, late, data, content.Range{End: int64(len(data))})
	for range 2 {
		wantObject(t, s, "first", data)
		wantObject(t, s, "second", data)
		info, _ := s.Get(first)
		if len(s.List()) != 1 || !slices.Equal(info.Names, []string{"first", "second"}) || !info.Pinned || s.Stats().Bytes != info.Size {
			t.Errorf("after the merge: %+v of %d, %d bytes", info, len(s.List()), s.Stats().Bytes)
		}
		if files := blobFiles(s.cfg.Dir); files[spare] != 0 || len(files) != 1 {
			t.Errorf("files are %v", files)
		}
		s = reopen(t, s)
	}
}

func TestPrivateObjectsAreNotMerged(t *testing.T) {
	s := open(t, Config{})
	data := noise(21, 1000)
	_, id := proof(t, data)
	put(t, s, "public", data)
	f, err := s.Create(Spec{Object: content.Object{Size: 1000}, Title: "private"}, "private", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(from("memory", data, mib))
	<-f.Done()
	if len(s.List()) != 2 {
		t.Error("a private object was merged")
	}
	if info, _ := s.ByID(id); info.Title != "public" {
		t.Errorf("the identity stands for %s", info.Title)
	}
}

func TestReopenGoesOnFromDurableBlocks(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(22, 5*mib+3)
	layer, id := proof(t, data)
	for _, c := range []struct {
		name   string
		object content.Object
		layer  *content.Layer
	}{
		{"sized", content.Object{Size: id.Size}, nil},
		{"unsized", content.Object{Size: content.UnknownSize}, nil},
		{"proved", content.Object{ID: id, Size: id.Size, Layer: layer}, layer},
		{"proved later", content.Object{Size: id.Size}, layer},
	} {
		f := create(t, s, c.name, c.object)
		num := f.Num()
		g := make(gate)
		f.Start(g.source())
		g.bring(t, data, 0, 2*mib)
		g.bring(t, data, 2*mib, 2*mib+5) // never durable: not a whole block
		g.bring(t, data, 3*mib, 4*mib)
		s = reopen(t, s)
		if !errors.Is(f.Err(), ErrClosed) {
			t.Errorf("%s: the fill ended with %v", c.name, f.Err())
		}
		if _, err := s.Read(num); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: reading a partial object gave %v", c.name, err)
		}
		f, err := s.OpenFill(num, c.layer)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.OpenFill(num, nil); again != f || err != nil {
			t.Errorf("%s: opened twice: %v", c.name, err)
		}
		r, err := s.Read(num)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		wantBytes(t, r, data, content.Range{End: 2 * mib})
		wantBytes(t, r, data, content.Range{Off: 3 * mib, End: 4 * mib})
		f.Start(from("later", data, mib))
		<-f.Done()
		if f.Err() != nil {
			t.Fatal(f.Err())
		}
		wantObject(t, s, c.name, data)
		if info, _ := s.Get(f.Num()); info.From["later"] != id.Size-3*mib {
			t.Errorf("%s: bytes came from %v", c.name, info.From)
		}
		if _, err := s.OpenFill(f.Num(), nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: a complete object can be filled: %v", c.name, err)
		}
		if err := s.Evict(f.Num()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResumeChecksDurableBlocks(t *testing.T) {
	s := open(t, Config{})
	data := noise(23, 3*mib)
	layer, id := proof(t, data)
	bad := bytes.Clone(data)
	bad[mib+9] ^= 1
	f := create(t, s, "a", content.Object{Size: id.Size}) // nothing proves it at first
	num := f.Num()
	g := make(gate)
	f.Start(g.source())
	g.bring(t, bad, 0, 2*mib)
	s = reopen(t, s)
	for name, l := range map[string]*content.Layer{
		"other size": {Size: id.Size + 1, Hashes: append(slices.Clone(layer.Hashes), content.Hash{})},
		"too short":  {Size: id.Size, Hashes: layer.Hashes[:1]},
	} {
		if _, err := s.OpenFill(num, l); err == nil {
			t.Errorf("layer of %s was accepted", name)
		}
	}
	f, err := s.OpenFill(num, layer)
	if err != nil {
		t.Fatal(err)
	}
	if want := (content.Ranges{{Off: 0, End: mib}}); !slices.Equal(f.readable, want) {
		t.Errorf("readable is %v, the layer proves %v", f.readable, want)
	}
	s = reopen(t, s) // the refuted block does not come back
	if f, err = s.OpenFill(num, nil); err != nil || f.readable.Len() != mib {
		t.Errorf("readable is %v, %v", f.readable, err)
	}
	f.Start(from("friend", data, mib))
	<-f.Done()
	if info, ok := s.ByID(id); f.Err() != nil || !ok || info.ID != id {
		t.Errorf("the promise of the layer was not kept: %v", f.Err())
	}
}

func TestNames(t *testing.T) {
	s := open(t, Config{})
	a, b := put(t, s, "a", noise(50, 10)), put(t, s, "b", noise(51, 10))
	if err := errors.Join(s.SetName(a, "more", []byte("1")), s.SetName(b, "more", []byte("2")), s.SetName(b, "b", []byte("3"))); err != nil {
		t.Fatal(err)
	}
	if err := s.DropName("a"); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(s.DropName("a"), ErrNotFound) || !errors.Is(s.SetName(99, "x", nil), ErrNotFound) ||
		!errors.Is(s.Pin(99, true), ErrNotFound) || !errors.Is(s.Evict(99), ErrNotFound) {
		t.Error("what is not here is not told as ErrNotFound")
	}
	f := create(t, s, "b", content.Object{Size: mib}) // takes the name over
	for range 2 {
		info, meta, ok := s.Lookup("more")
		if !ok || info.Num != b || string(meta) != "2" {
			t.Errorf("more: %d, %q, %v", info.Num, meta, ok)
		}
		if info, _, _ := s.Lookup("b"); info.Num != f.Num() {
			t.Errorf("b is object %d, want %d", info.Num, f.Num())
		}
		if info, ok := s.Get(a); !ok || len(info.Names) != 0 {
			t.Errorf("an object without names: %v, %+v", ok, info)
		}
		s = reopen(t, s)
	}
}

func TestFiguresAreKept(t *testing.T) {
	s := open(t, Config{})
	num := put(t, s, "a", noise(60, 1000))
	s.CountServed(num, "http", 700)
	s.CountServed(num, "http", 300)
	s.CountServed(num, "multicast", 5)
	s.CountServed(num, "http", -5)
	s.CountServed(99, "http", 5)
	s = reopen(t, s)
	info, _ := s.Get(num)
	st := s.Stats()
	if info.Served["http"] != 1000 || info.Served["multicast"] != 5 || st.Served["http"] != 1005 ||
		st.Filled["memory"] != 1000 || st.Objects != 1 || st.Complete != 1 || st.Fills != 0 || st.Bytes != 1000 {
		t.Errorf("figures are %+v and %+v", info, st)
	}
}

func TestEvictWhileFilling(t *testing.T) {
	s := open(t, Config{})
	data := noise(70, 2*mib)
	for name, start := range map[string]bool{"running": true, "never started": false} {
		f := create(t, s, name, content.Object{Size: int64(len(data))})
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		if start {
			g := make(gate)
			f.Start(g.source())
			g.bring(t, data, 0, mib)
		}
		told := make(chan error)
		go func() { _, err := r.Wait(context.Background(), mib+5); told <- err }()
		if err := s.Evict(f.Num()); err != nil {
			t.Error(err)
		}
		if err := <-told; err == nil || !strings.Contains(err.Error(), "evicted") {
			t.Errorf("%s: the reader was told %v", name, err)
		}
		if start {
			wantBytes(t, r, data, content.Range{End: mib}) // what it was given stays
		}
		r.Close()
		if f.Start(from("x", data, mib)) {
			t.Errorf("%s: an evicted fill was started", name)
		}
		if _, _, ok := s.Lookup(name); ok || len(blobFiles(s.cfg.Dir)) != 0 || s.Stats().Fills != 0 || s.Stats().Bytes != 0 {
			t.Errorf("%s: something is left: %+v", name, s.Stats())
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	before := descriptors(t)
	s := open(t, Config{})
	running := create(t, s, "running", content.Object{Size: mib})
	running.Start(make(gate).source())
	idle := create(t, s, "idle", content.Object{Size: mib})
	r, _ := idle.Reader()
	told := make(chan error)
	go func() { _, err := r.Wait(context.Background(), 0); told <- err }()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := <-told; !errors.Is(err, ErrClosed) {
		t.Errorf("the reader was told %v", err)
	}
	r.Close()
	if _, err := s.Create(Spec{}, "x", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("created in a closed store: %v", err)
	}
	if _, err := s.OpenFill(running.Num(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("resumed in a closed store: %v", err)
	}
	if idle.Start() {
		t.Error("started in a closed store")
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, were %d", after, before)
	}
}

// descriptors counts those that this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
