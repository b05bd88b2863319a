package cache

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestEvictionByUse(t *testing.T) {
	s := open(t, Config{MaxBytes: 5 * mib})
	var data [6][]byte
	names := []string{"0", "1", "2", "3", "4", "5"}
	for i := range data {
		data[i] = noise(uint64(30+i), mib)
	}
	for i := range 5 {
		put(t, s, names[i], data[i])
	}
	pinned, _, _ := s.Lookup("0")
	if err := s.Pin(pinned.Num, true); err != nil {
		t.Fatal(err)
	}
	wantObject(t, s, "1", data[1]) // used: now the last to go
	put(t, s, "5", data[5])
	here := func() string {
		var have []string
		for _, name := range names {
			if _, _, ok := s.Lookup(name); ok {
				have = append(have, name)
			}
		}
		return strings.Join(have, " ")
	}
	if here() != "0 1 3 4 5" {
		t.Errorf("kept %s", here())
	}
	for _, size := range []int64{5 * mib, 6 * mib, math.MaxInt64 - 1, math.MaxInt64} {
		_, err := s.Create(Spec{Object: content.Object{Size: size}}, "huge", nil)
		if !errors.Is(err, content.ErrFull) || here() != "0 1 3 4 5" {
			t.Errorf("asked for %d bytes: %v, kept %s", size, err, here())
		}
	}
	f := create(t, s, "running", content.Object{Size: 4 * mib})
	if here() != "0" {
		t.Errorf("kept %s", here())
	}
	if _, err := s.Create(Spec{Object: content.Object{Size: 1}}, "one more", nil); !errors.Is(err, content.ErrFull) {
		t.Errorf("a fill and a pin gave way: %v", err)
	}
	if err := errors.Join(s.Evict(f.Num()), s.Pin(pinned.Num, false)); err != nil {
		t.Fatal(err)
	}
	create(t, s, "all", content.Object{Size: 5 * mib})
	if here() != "" || s.Stats().Bytes != 5*mib {
		t.Errorf("kept %s, %d bytes", here(), s.Stats().Bytes)
	}
}

func TestFreeSpaceIsKept(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "a", noise(40, mib))
	s.volumes[0].minFree = math.MaxInt64
	if _, err := s.Create(Spec{Object: content.Object{Size: 1}}, "b", nil); !errors.Is(err, content.ErrFull) {
		t.Errorf("the reserve was used: %v", err)
	}
	if _, _, ok := s.Lookup("a"); !ok {
		t.Error("an object went for a create that could not succeed")
	}
}

func TestUnknownSizeCountsAndStops(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 40 * mib})
	put(t, s, "old", noise(41, 20*mib))
	data := noise(42, 200*mib)
	f := create(t, s, "endless", content.Object{Size: content.UnknownSize})
	f.Start(source{"endless", func(ctx context.Context, sink content.Sink) error {
		for off := int64(0); ctx.Err() == nil; off += mib {
			if off == int64(len(data)) {
				return errors.New("nobody stopped it")
			}
			if err := bring(sink, data, content.Range{Off: off, End: off + mib}); err != nil {
				return err
			}
		}
		return ctx.Err()
	}})
	<-f.Done()
	if !errors.Is(f.Err(), content.ErrFull) {
		t.Errorf("the fill ended with %v, want ErrFull", f.Err())
	}
	if _, _, ok := s.Lookup("old"); ok {
		t.Error("the older object did not give way")
	}
	if err := s.Evict(f.Num()); err != nil || s.Stats().Bytes != 0 {
		t.Errorf("%d bytes are counted in an empty store: %v", s.Stats().Bytes, err)
	}
}
