package cache

import (
	"errors"
	"maps"
	"slices"

	"github.com/cistern-edge/cistern/cache/evict"
)

// trimSmall removes the oldest segments until the pool is within its bound.
func (s *Store) trimSmall() {
	for range 64 { // at most so many at a time
		v, id := s.fullest()
		if v == nil {
			return
		}
		if err := s.dropSegment(v, id); err != nil {
			s.log.Warn("failed to remove a segment of small objects", "volume", v.dir, "err", err)
			return
		}
	}
}

// fullest finds the segment to go next if the pool is over its bound: of the
// volume with most in segments, the oldest that has not more pinned in it than
// would be won by moving that on. The newest is never it.
func (s *Store) fullest() (*volume, uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total int64
	for _, v := range s.volumes {
		total += v.small
	}
	if total <= s.cfg.SmallBytes {
		return nil, 0
	}
	byFill := slices.Clone(s.volumes)
	slices.SortStableFunc(byFill, func(a, b *volume) int { return int(min(max(b.small-a.small, -1), 1)) })
	for _, v := range byFill {
		if sick, _ := v.state(); sick != nil {
			continue
		}
		ids := slices.Sorted(maps.Keys(v.segments))
		for _, id := range ids[:max(0, len(ids)-1)] {
			if s.pinnedIn(v, id) <= v.segments[id].bytes/2 && !s.landing(v, id) {
				return v, id
			}
		}
	}
	return nil, 0
}

// pinnedIn is how many bytes of a segment are pinned; s.mu is held.
func (s *Store) pinnedIn(v *volume, id uint32) (n int64) {
	for _, e := range s.liveIn(v, id) {
		if e.is(isPinned) {
			n += e.size + recordOverhead
		}
	}
	return n
}

// landing reports whether an object was put into a segment whose fill is not at
// its end yet; s.mu is held.
func (s *Store) landing(v *volume, id uint32) bool {
	return slices.ContainsFunc(v.segments[id].nums, func(num uint64) bool {
		e := s.objects[num]
		return e != nil && e.is(isSmall) && !e.is(isComplete) && s.active[num] != nil && e.volume == v.num && e.place.Segment == id
	})
}

// liveIn lists the objects that lie in a segment; s.mu is held.
func (s *Store) liveIn(v *volume, id uint32) []*entry {
	var live []*entry
	seen := map[uint64]bool{}
	for _, num := range v.segments[id].nums {
		e := s.objects[num]
		if e != nil && !seen[num] && e.is(isSmall) && e.is(isComplete) && e.volume == v.num && e.place.Segment == id {
			live = append(live, e)
			seen[num] = true
		}
	}
	return live
}

// dropSegment removes a segment. What earned it moves to the newest one first,
// but never more than half of the segment, or nothing would be won.
func (s *Store) dropSegment(v *volume, id uint32) error {
	s.mu.Lock()
	var stay []entry
	room := v.segments[id].bytes / 2
	for _, e := range s.liveIn(v, id) {
		if n := e.size + recordOverhead; e.is(isPinned) || e.node.State().Freq > 0 && n <= room {
			room -= n
			stay = append(stay, *e)
		}
	}
	s.mu.Unlock()
	for i := range stay {
		if err := s.moveSmall(&stay[i]); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		s.tire(stay[i].num())
	}
	if err := s.flushVolume(v); err != nil {
		return err
	}
	if !s.leaveSegment(v, id) {
		return nil // what was pinned meanwhile moves the next time
	}
	// A crash must find the index knowing where things went.
	if err := s.books.index.Commit(s.ctx); err != nil {
		return err
	}
	if err := v.Segments().Remove(id); err != nil {
		v.suspect(err)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if seg := v.segments[id]; seg != nil {
		v.small -= seg.bytes
		delete(v.segments, id)
	}
	return nil
}

// leaveSegment forgets what still lies in a segment. If any of it is pinned, or
// the index points there, it does nothing and returns false.
func (s *Store) leaveSegment(v *volume, id uint32) bool {
	s.editing.Lock()
	defer s.editing.Unlock()
	s.mu.Lock()
	var leave []*entry
	if v.segments[id] != nil {
		leave = s.liveIn(v, id)
	}
	if slices.ContainsFunc(leave, func(e *entry) bool { return e.is(isPinned) }) || s.isMoving(v, id) {
		s.mu.Unlock()
		return false
	}
	for _, e := range leave {
		s.evict(e)
	}
	v.left = max(v.left, id+1)
	s.mu.Unlock()
	s.unlist(leave)
	return true
}

// isMoving reports whether the index points into a segment that an object has
// left: what was appended anew is not durable yet. s.mu is held.
func (s *Store) isMoving(v *volume, id uint32) bool {
	for num, place := range s.books.moving {
		if e := s.objects[num]; place.Segment == id && e != nil && e.volume == v.num {
			return true
		}
	}
	return false
}

// tire takes away half of the hits that saved an object, so that it does not
// stay for ever.
func (s *Store) tire(num uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.objects[num]; ok {
		q := s.queueOf(e)
		freq := e.node.State().Freq
		q.Remove(&e.node)
		q.Restore(&e.node, e.reserved(), evict.State{Main: true, Freq: freq / 2})
	}
}
