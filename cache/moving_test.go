package cache

import (
	"errors"
	"testing"

	"github.com/cistern-edge/cistern/cache/disk"
)

// TestIndexPointsToWhatIsDurable: an object that is appended anew is where the
// index says it is at any moment, flushed or not; a segment that the index points
// into stays; and if the new bytes cannot be read, the old ones are.
func TestIndexPointsToWhatIsDurable(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	num := putMany(t, s, "object", 1, 4000)[0]
	if err := s.Pin(num, true); err != nil {
		t.Fatal(err)
	}
	before := placeInIndex(t, s, num)
	s = nextSegment(t, s)
	v := s.volumes[0]
	e, _ := s.look(num)
	if err := errors.Join(s.moveSmall(&e), s.mark(num, isPublic, true)); err != nil { // which saves the entry
		t.Fatal(err)
	}
	moved, _ := s.look(num)
	if moved.place == before {
		t.Fatal("the object was not appended anew")
	}
	if at := placeInIndex(t, s, num); at != before {
		t.Errorf("before the flush the index says %v, the object was flushed at %v", at, before)
	}
	if s.leaveSegment(v, before.Segment) {
		t.Error("the segment left that the index points into")
	}
	if _, ok := s.lostSmall(&moved, true); !ok {
		t.Error("what cannot be read where it was moved to is given up")
	}
	if e, _ = s.look(num); e.place != before {
		t.Errorf("the object is at %v, was flushed at %v", e.place, before)
	}
	s.bodies.drop(num)
	wantObject(t, s, "object0", noise(ghostOf("object"), 4000))
	if err := errors.Join(s.moveSmall(&e), s.flushVolume(v)); err != nil {
		t.Fatal(err)
	}
	if e, _ = s.look(num); placeInIndex(t, s, num) != e.place || e.place == before {
		t.Errorf("after the flush the index says %v, the object is at %v", placeInIndex(t, s, num), e.place)
	}
	if len(s.books.moving) > 0 {
		t.Errorf("still moving: %v", s.books.moving)
	}
}

// placeInIndex is where the index has a small object.
func placeInIndex(t *testing.T, s *Store, num uint64) disk.Place {
	t.Helper()
	value, err := s.books.index.Get(numKey(entryPrefix, num))
	if err != nil {
		t.Fatal(err)
	}
	var e entry
	if _, err := e.decode(numKey(entryPrefix, num), value); err != nil {
		t.Fatal(err)
	}
	return e.place
}
