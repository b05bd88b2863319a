package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// putMany fills n small objects of size bytes under names that begin with what.
func putMany(t *testing.T, s *Store, what string, n int, size int64) (nums []uint64) {
	t.Helper()
	for i := range n {
		nums = append(nums, put(t, s, fmt.Sprintf("%s%d", what, i), noise(ghostOf(what)+uint64(i), size)))
	}
	return nums
}

func has(s *Store, num uint64) bool {
	_, ok := s.look(num)
	return ok
}

// nextSegment makes the objects that come lie in another segment than those
// before.
func nextSegment(t *testing.T, s *Store) *Store {
	t.Helper()
	return reopen(t, s) // an earlier run's segments are sealed
}

// TestSegmentsGoWhole: the oldest segment leaves with all that is in it but what
// was asked for again and what is pinned.
func TestSegmentsGoWhole(t *testing.T) {
	t.Parallel()
	s := open(t, Config{SmallBytes: 60_000})
	old := putMany(t, s, "old", 10, 4000)
	s = nextSegment(t, s)
	if err := s.Pin(old[3], true); err != nil {
		t.Fatal(err)
	}
	wantObject(t, s, "old7", noise(ghostOf("old")+7, 4000))
	fresh := putMany(t, s, "fresh", 10, 4000)
	s.trimSmall()
	for i, num := range old {
		if want := i == 3 || i == 7; has(s, num) != want {
			t.Errorf("old%d is here: %v", i, !want)
		}
	}
	for _, num := range fresh {
		if !has(s, num) {
			t.Errorf("object %d of the newest segment went", num)
		}
	}
	if v := s.volumes[0]; len(v.segments) != 1 || len(v.Segments().List()) != 1 {
		t.Errorf("%d segments are counted, %d on disk", len(v.segments), len(v.Segments().List()))
	}
	balance(t, s)
	for range 2 {
		wantObject(t, s, "old3", noise(ghostOf("old")+3, 4000))
		wantObject(t, s, "old7", noise(ghostOf("old")+7, 4000))
		s = reopen(t, s)
	}
	if st := s.Stats(); st.Objects != 12 || st.Bytes != 48_000 {
		t.Errorf("%d objects of %d bytes", st.Objects, st.Bytes)
	}
}

// TestPinnedSmallObjectsStay: a pool that is full of pinned objects is not
// written anew for ever.
func TestPinnedSmallObjectsStay(t *testing.T) {
	t.Parallel()
	s := open(t, Config{SmallBytes: 20_000})
	pinned := putMany(t, s, "pinned", 10, 4000)
	for _, num := range pinned {
		if err := s.Pin(num, true); err != nil {
			t.Fatal(err)
		}
	}
	s = nextSegment(t, s)
	rest := putMany(t, s, "rest", 3, 4000)
	s = nextSegment(t, s)
	putMany(t, s, "new", 1, 4000)
	before := s.volumes[0].Segments().List()
	s.trimSmall()
	s.trimSmall()
	after := s.volumes[0].Segments().List()
	if len(after) != 2 || after[0].ID != before[0].ID {
		t.Errorf("segments were %v, are %v", before, after)
	}
	for _, num := range pinned {
		if !has(s, num) {
			t.Errorf("object %d was pinned and is gone", num)
		}
	}
	for _, num := range rest {
		if has(s, num) {
			t.Errorf("object %d stayed in a pool that is full", num)
		}
	}
	balance(t, s)
}

// TestFailedFlush: what came since the last flush that went well is appended
// anew, or forgotten when it cannot be read any more.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	safe := putMany(t, s, "safe", 2, 4000)
	s = nextSegment(t, s)
	v := s.volumes[0]
	lost := putMany(t, s, "lost", 1, 4000)
	kept := putMany(t, s, "kept", 2, 4000)
	places := map[uint64]disk.Place{}
	for _, num := range append(append(safe, lost...), kept...) {
		e, _ := s.look(num)
		places[num] = e.place
	}
	// With its directory away a new segment cannot be made durable, nor another
	// begun.
	dir := filepath.Join(s.cfg.Dir, "segments")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := s.flushVolume(v); err == nil {
		t.Fatal("the flush did not fail")
	}
	if err := errors.Join(os.Rename(dir+".away", dir), os.Truncate(s.segmentOf(lost[0]), 100)); err != nil {
		t.Fatal(err)
	}
	s.bodies.drop(lost[0])
	for range 2 {
		if err := s.flushVolume(v); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.torn)+len(v.fresh) != 0 {
		t.Errorf("%d objects wait to be appended anew, %d for a flush", len(v.torn), len(v.fresh))
	}
	s = reopen(t, s)
	for _, num := range append(safe, kept...) {
		e, ok := s.look(num)
		if moved := e.place != places[num]; !ok || moved == (num == safe[0] || num == safe[1]) {
			t.Errorf("object %d: here %v, moved %v", num, ok, moved)
		}
	}
	wantObject(t, s, "kept0", noise(ghostOf("kept"), 4000))
	wantObject(t, s, "safe1", noise(ghostOf("safe")+1, 4000))
	if has(s, lost[0]) {
		t.Error("an object that was lost with its flush is listed")
	}
	balance(t, s)
}

// segmentOf is the file that a small object lies in.
func (s *Store) segmentOf(num uint64) string {
	e, _ := s.look(num)
	return filepath.Join(s.cfg.Dir, "segments", fmt.Sprintf("%08x.seg", e.place.Segment))
}

// TestDamagedSmallObject: it is forgotten at the first read, or by the scrub.
func TestDamagedSmallObject(t *testing.T) {
	t.Parallel()
	for _, scrub := range []bool{false, true} {
		s := open(t, Config{})
		nums := putMany(t, s, "a", 3, 5000)
		s = reopen(t, s)
		e, _ := s.look(nums[1])
		flipByte(t, s.segmentOf(nums[1]), int64(e.place.Off)+int64(e.place.Len)-100)
		if scrub {
			if report, err := s.Scrub(t.Context(), 0); err != nil || report.Damaged != 1 || report.Bytes != 15_000 {
				t.Errorf("the scrub says %+v, %v", report, err)
			}
		} else if _, err := s.Read(nums[1]); !errors.Is(err, ErrNotFound) {
			t.Errorf("a damaged object was read: %v", err)
		}
		if has(s, nums[1]) || s.Stats().Damaged != 1 {
			t.Errorf("a damaged object is listed, %d were found", s.Stats().Damaged)
		}
		wantObject(t, s, "a0", noise(ghostOf("a"), 5000))
		wantObject(t, s, "a2", noise(ghostOf("a")+2, 5000))
		balance(t, s)
	}
}

// TestLostSegment: objects whose segment is gone are not there, and not damaged.
func TestLostSegment(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	nums := putMany(t, s, "a", 2, 5000)
	if err := errors.Join(s.Close(), os.Remove(s.segmentOf(nums[0]))); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.cfg)
	for _, num := range nums {
		if _, err := s.Read(num); !errors.Is(err, ErrNotFound) || has(s, num) {
			t.Errorf("read gave %v", err)
		}
	}
	if s.Stats().Damaged != 0 {
		t.Errorf("%d are called damaged", s.Stats().Damaged)
	}
}

// TestEmptySegmentsGo: a segment of which nothing is left counts for the pool,
// also after a restart.
func TestEmptySegmentsGo(t *testing.T) {
	t.Parallel()
	s := open(t, Config{SmallBytes: 30_000})
	for _, num := range putMany(t, s, "gone", 8, 4000) {
		if err := s.Evict(num); err != nil {
			t.Fatal(err)
		}
	}
	s = nextSegment(t, s)
	if v := s.volumes[0]; v.small < 32_000 {
		t.Errorf("%d bytes are counted in segments", v.small)
	}
	putMany(t, s, "new", 1, 4000)
	s.trimSmall()
	if v := s.volumes[0]; v.small > 30_000 || len(v.Segments().List()) != 1 {
		t.Errorf("%d bytes in %d segments", v.small, len(v.Segments().List()))
	}
	wantObject(t, s, "new0", noise(ghostOf("new"), 4000))
}

// TestUnknownSizeFindsItsPlace: what turns out small goes to a segment, what
// grows beyond moves to a file, and readers do not notice.
func TestUnknownSizeFindsItsPlace(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	for _, c := range []struct {
		size  int64
		small bool
	}{{0, true}, {1, true}, {SmallObject, true}, {SmallObject + 1, false}, {mib + 1, false}} {
		name := fmt.Sprint(c.size)
		data := noise(500+uint64(c.size), c.size)
		f := create(t, s, name, content.Object{Size: content.UnknownSize})
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		g := make(gate)
		f.Start(g.source())
		for off := int64(0); off < c.size; off += 30_000 {
			g.bring(t, data, off, min(c.size, off+30_000))
			wantBytes(t, r, data, content.Range{Off: max(0, off-100), End: min(c.size, off+30_000)})
		}
		g.do(func(sink content.Sink) {
			if err := sink.SetSize(c.size); err != nil {
				t.Error(err)
			}
		})
		close(g)
		<-f.Done()
		if e, ok := s.look(f.Num()); f.Err() != nil || !ok || e.is(isSmall) != c.small {
			t.Errorf("%d bytes: small %v, %v", c.size, e.is(isSmall), f.Err())
		}
		wantBytes(t, r, data, content.Range{End: c.size})
		r.Close()
		wantObject(t, s, name, data)
		s = reopen(t, s)
		wantObject(t, s, name, data)
		balance(t, s)
	}
}

// TestUnfinishedSmallObject: what was in memory when the store stopped is gone,
// name and all.
func TestUnfinishedSmallObject(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	f := create(t, s, "a", content.Object{Size: 1000})
	g := make(gate)
	f.Start(g.source())
	g.bring(t, noise(1, 1000), 0, 500)
	s = reopen(t, s)
	if _, _, ok := s.Lookup("a"); ok || len(s.List()) != 0 || s.Stats().Bytes != 0 {
		t.Error("an unfinished small object is listed")
	}
	put(t, s, "a", noise(1, 1000))
	wantObject(t, s, "a", noise(1, 1000))
}

// TestRAMIsBounded: bodies in memory never exceed their bound, and are not
// needed.
func TestRAMIsBounded(t *testing.T) {
	t.Parallel()
	s := open(t, Config{RAM: 100_000})
	putMany(t, s, "a", 50, 4000)
	for round := range 3 {
		for i := range 50 {
			wantObject(t, s, fmt.Sprintf("a%d", i), noise(ghostOf("a")+uint64(i), 4000))
		}
		b := s.bodies
		if bytes := b.queue.Bytes(); bytes > b.max || len(b.items) != len(b.keys) || len(b.items) != b.queue.Len() || len(b.items) == 0 {
			t.Errorf("round %d: %d bytes of %d in memory, %d items, %d keys", round, bytes, b.max, len(b.items), len(b.keys))
		}
	}
	r := newRAM[int, string](10)
	r.put(1, "large", 11)
	if _, _, ok := r.get(1); ok {
		t.Error("what is larger than the bound was kept")
	}
	r.put(1, "a", 4)
	_, gen, _ := r.get(2)
	r.drop(1)
	r.offer(2, "stale", 1, gen)
	if _, _, ok := r.get(2); ok {
		t.Error("what was read before a change was kept")
	}
}

// TestSegmentWaitsForWhatLands: an object is in its segment a moment before it is
// complete. The segment does not leave meanwhile, however full the pool is.
func TestSegmentWaitsForWhatLands(t *testing.T) {
	t.Parallel()
	s := open(t, Config{SmallBytes: 60_000})
	body := noise(77, 5000)
	f := create(t, s, "landing", content.Object{Size: int64(len(body))})
	if err := s.Pin(f.num, true); err != nil {
		t.Fatal(err)
	}
	if err := s.putSmall(f.num, nil, body); err != nil {
		t.Fatal(err)
	}
	others := putMany(t, s, "other", disk.SegmentSize/SmallObject+2, SmallObject) // the next segment is begun
	s.trimSmall()
	if !has(s, others[0]) {
		t.Error("the segment has left")
	}
	if err := s.complete(f, content.Root(leavesOf(body)), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	f.end(nil)
	s.trimSmall()
	if has(s, others[0]) {
		t.Error("the segment stays for ever")
	}
	s.bodies.drop(f.num)
	s = reopen(t, s)
	wantObject(t, s, "landing", body)
	balance(t, s)
}
