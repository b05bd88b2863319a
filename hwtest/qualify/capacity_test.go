package qualify

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// faker is a disk in memory that says that it holds more than it does. Blocks are
// kept where they really land.
type faker struct {
	land func(off int64) (int64, bool) // where a block goes; false: nowhere

	// mu guards blocks.
	mu     sync.Mutex
	blocks map[int64][markBytes]byte
}

func (f *faker) each(b []byte, off int64, do func(part []byte, at int64, lands bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := int64(0); i < int64(len(b)); i += markBytes {
		at, lands := f.land(off + i)
		do(b[i:i+markBytes], at, lands)
	}
}

func (f *faker) WriteAt(b []byte, off int64) (int, error) {
	f.each(b, off, func(part []byte, at int64, lands bool) {
		if lands {
			f.blocks[at] = [markBytes]byte(part)
		}
	})
	return len(b), nil
}

func (f *faker) ReadAt(b []byte, off int64) (int, error) {
	f.each(b, off, func(part []byte, at int64, lands bool) {
		block := f.blocks[at]
		if !lands {
			block = [markBytes]byte{}
		}
		copy(part, block[:])
	})
	return len(b), nil
}

func (f *faker) Sync() error { return nil }

func explore(t *testing.T, size int64, land func(int64) (int64, bool)) client.Capacity {
	t.Helper()
	s, err := newSurvey(&faker{land: land, blocks: map[int64][markBytes]byte{}}, size, 7, make([]byte, chunkBytes))
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.look(t.Context(), time.Hour, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A disk that comes round is caught whatever it really holds, and told for what
// it is.
func TestSurveyCatchesFakes(t *testing.T) {
	const size = 64 << 30
	for _, real := range []int64{8 << 30, 32 << 30, size - markBytes, 7_800_000_000 / markBytes * markBytes, 1<<30 + markBytes, 63<<30 + 11*markBytes, 20 << 20} {
		found := explore(t, size, func(off int64) (int64, bool) { return off % real, true })
		if found.Wrong == 0 || found.Wraps%real != 0 || found.Wraps == 0 {
			t.Errorf("%d bytes that come round: %+v", real, found)
		}
		found = explore(t, size, func(off int64) (int64, bool) { return off, off < real })
		if found.Wrong == 0 || found.Wraps != 0 || found.First < real {
			t.Errorf("%d bytes, the rest is lost: %+v", real, found)
		}
		found = explore(t, size, func(off int64) (int64, bool) { return min(off, real), true })
		if real < size-markBytes && found.Wrong == 0 { // else one block is all that it lacks
			t.Errorf("%d bytes, the rest lands on the last: %+v", real, found)
		}
	}
}

func TestSurveyBelievesHonestDisks(t *testing.T) {
	for _, size := range []int64{minSpan, minSpan + 5, 100 << 20, 1<<30 + 12345, 64 << 30} {
		found := explore(t, size, func(off int64) (int64, bool) { return off, true })
		if found.Wrong != 0 || found.Wraps != 0 || found.Marks != found.Planned || found.Bytes > size {
			t.Errorf("%d bytes: %+v", size, found)
		}
	}
	if _, err := newSurvey(nil, minSpan-1, 1, nil); err == nil {
		t.Error("too small a disk passed")
	}
}

// Every mark has a place of its own inside the disk, and a few of them lie all
// over it.
func TestMarksAreSpread(t *testing.T) {
	const size = 10<<30 + 4096*3
	s, err := newSurvey(nil, size, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	places, halves := map[int64]bool{}, [2]int{}
	for k := range s.places() {
		off := s.place(k)
		if off < s.dense {
			continue
		}
		if off%markBytes != 0 || off+markBytes > size || places[off] {
			t.Fatalf("mark %d at %d", k, off)
		}
		places[off] = true
		if len(places) <= 32 {
			halves[2*off/size]++
		}
	}
	if len(places) != s.steps() || halves[0] < 12 || halves[1] < 12 {
		t.Errorf("%d marks of %d; the first 32 by halves: %v", len(places), s.steps(), halves)
	}
}

// sick fails from an offset on.
type sick struct {
	faker
	from int64
}

var errSick = errors.New("input/output error")

func (s *sick) WriteAt(b []byte, off int64) (int, error) {
	if off >= s.from {
		return 0, errSick
	}
	return s.faker.WriteAt(b, off)
}

func TestSurveyOfASickDisk(t *testing.T) {
	honest := func(off int64) (int64, bool) { return off, true }
	disk := &sick{faker{land: honest, blocks: map[int64][markBytes]byte{}}, 40 << 20}
	s, err := newSurvey(disk, 64<<20, 1, make([]byte, chunkBytes))
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.look(t.Context(), time.Hour, func(float64) {})
	if err != nil || found.Wrong == 0 || found.First < 40<<20 {
		t.Errorf("%+v, %v", found, err)
	}
	disk.from = 0
	if _, err := s.look(t.Context(), time.Hour, func(float64) {}); !errors.Is(err, errSick) {
		t.Errorf("a disk that takes nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.look(ctx, time.Hour, func(float64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
