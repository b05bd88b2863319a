package cache

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/evict"
)

// Small objects live in segments: files that are only appended to, and that go
// as a whole when the pool is full. What was asked for again, or is pinned, is
// appended anew before its segment goes. Until a segment is flushed its newest
// objects may be lost by a crash, never damaged: each is checked at each read.

// recordOverhead is what an object costs in a segment beside its bytes, about.
const recordOverhead = 512

// completeSmall writes a whole object from memory into a segment.
func (s *Store) completeSmall(f *Fill, body []byte) error {
	leaves := leavesOf(body)
	id := content.ID{Root: content.Root(leaves), Size: int64(len(body))}
	s.editing.Lock()
	r := s.books.record(f.num)
	s.mu.Lock()
	e, ok := s.objects[f.num]
	if !ok || r == nil {
		s.mu.Unlock()
		s.editing.Unlock()
		return fmt.Errorf("complete object %d: %w", f.num, ErrNotFound)
	}
	s.resize(e, id.Size, id.Size)
	after := *e // as it will be
	s.mu.Unlock()
	r = r.clone()
	r.ID, r.Promised = id, content.ID{}
	after.set(isComplete, true)
	text := s.books.card(&after, r)
	s.editing.Unlock()
	if err := s.putSmall(f.num, text, body); err != nil {
		return fmt.Errorf("complete %s: %w", f.title, err)
	}
	return s.complete(f, id.Root, id.Size)
}

// putSmall appends an object to the segments of its volume and notes where it
// is.
func (s *Store) putSmall(num uint64, text, body []byte) error {
	e, ok := s.look(num)
	if !ok {
		return ErrNotFound
	}
	v := s.volumeOf(&e)
	if sick, _ := v.state(); sick != nil {
		return unwritable(v.dir, sick)
	}
	place, err := v.Segments().Append(num, text, body)
	if err != nil {
		v.suspect(err)
		return unwritable(v.dir, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.objects[num]; ok {
		e.place = place
		s.placed(e)
	}
	if v.small > s.cfg.SmallBytes {
		s.kick()
	}
	return nil
}

// placed counts an object in its segment; s.mu is held.
func (s *Store) placed(e *entry) {
	v := s.volumeOf(e)
	seg := v.segments[e.place.Segment]
	if seg == nil {
		seg = &segment{}
		v.segments[e.place.Segment] = seg
	}
	seg.nums = append(seg.nums, e.num())
	seg.bytes += e.size + recordOverhead
	v.small += e.size + recordOverhead
}

// smallBody reads a small object. If it is damaged or gone, it is forgotten.
func (s *Store) smallBody(e *entry) ([]byte, error) {
	body, gen, ok := s.bodies.get(e.num())
	if ok {
		return body, nil
	}
	v := s.volumeOf(e)
	_, body, err := v.Segments().Read(e.place, e.num(), nil)
	if err == nil && int64(len(body)) != e.size {
		err = fmt.Errorf("%w: %d bytes instead of %d", disk.ErrDamaged, len(body), e.size)
	}
	if err == nil {
		s.bodies.offer(e.num(), body, int64(len(body))+200, gen)
		return body, nil
	}
	now, ok := s.look(e.num())
	if ok && now.place != e.place { // it has just moved
		return s.smallBody(&now)
	}
	v.suspect(err)
	if damaged := errors.Is(err, disk.ErrDamaged); damaged || isLost(err) {
		s.noteDamage(e.num(), 0, damaged)
		s.editing.Lock()
		now, ok := s.look(e.num())
		stays := ok && now.is(isComplete) && s.miss(e.num())
		s.editing.Unlock()
		if stays {
			_, _ = s.mend(e.num()) // else the next request has it fetched
		}
		return nil, errors.Join(ErrNotFound, err)
	}
	return nil, err
}

// settleSmall makes a small object durable, and its card with it.
func (s *Store) settleSmall(num uint64) error {
	e, ok := s.look(num)
	if !ok || !e.is(isSmall) || !e.is(isComplete) {
		return nil
	}
	if err := s.moveSmall(&e); err != nil {
		return err
	}
	v := s.volumeOf(&e)
	err := v.Segments().Flush()
	v.suspect(err)
	return err
}

// moveSmall appends an object anew.
func (s *Store) moveSmall(e *entry) error {
	body, err := s.smallBody(e)
	if err != nil {
		return err
	}
	s.editing.Lock()
	r := s.books.record(e.num())
	if r == nil {
		s.editing.Unlock()
		return ErrNotFound
	}
	text := s.books.card(e, r)
	s.editing.Unlock()
	if err := s.putSmall(e.num(), text, body); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.objects[e.num()]; ok {
		ed := s.books.edit()
		ed.entry(e)
		ed.done()
	}
	return nil
}

// flushSmall makes what has come into the segments durable.
func (s *Store) flushSmall() {
	for _, v := range s.volumes {
		if sick, _ := v.state(); sick != nil {
			continue
		}
		if err := v.Segments().Flush(); err != nil {
			v.suspect(err)
			s.log.Warn("failed to flush small objects", "volume", v.dir, "err", err)
		}
	}
}

// trimSmall removes the oldest segments until the pool is within its bound.
func (s *Store) trimSmall() {
	for range 64 { // at most so many at a time
		s.mu.Lock()
		var total int64
		var fullest *volume
		for _, v := range s.volumes {
			total += v.small
			if sick, _ := v.state(); sick == nil && len(v.segments) > 1 && (fullest == nil || v.small > fullest.small) {
				fullest = v
			}
		}
		over := total > s.cfg.SmallBytes
		s.mu.Unlock()
		if !over || fullest == nil {
			return
		}
		if err := s.dropSegment(fullest); err != nil {
			s.log.Warn("failed to remove a segment of small objects", "volume", fullest.dir, "err", err)
			return
		}
	}
}

// dropSegment removes the oldest segment of a volume. What earned it moves to
// the newest one first, but never more than half of the segment, or nothing
// would be won.
func (s *Store) dropSegment(v *volume) error {
	s.mu.Lock()
	oldest := slices.Min(slices.Collect(maps.Keys(v.segments)))
	seg := v.segments[oldest]
	var stay, leave []entry
	room := seg.bytes / 2
	for _, num := range seg.nums {
		e := s.objects[num]
		if e == nil || !e.is(isSmall) || e.volume != v.num || e.place.Segment != oldest {
			continue // it is gone, or has moved
		}
		if n := e.size + recordOverhead; e.is(isPinned) || e.node.State().Freq > 0 && n <= room {
			room -= n
			stay = append(stay, *e)
		} else {
			leave = append(leave, *e)
		}
	}
	s.mu.Unlock()
	for i := range stay {
		if err := s.moveSmall(&stay[i]); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		s.tire(stay[i].num())
	}
	if err := v.Segments().Flush(); err != nil {
		v.suspect(err)
		return err
	}
	s.editing.Lock()
	s.mu.Lock()
	ed := s.books.edit()
	for i := range leave {
		e, ok := s.objects[leave[i].num()]
		if !ok || e.place != leave[i].place || e.is(isPinned) {
			continue
		}
		s.queueOf(e).Evict(&e.node)
		s.counts.Evicted++
		s.counts.EvictedBytes += e.size
		s.forgetEntry(e)
	}
	v.small -= seg.bytes
	delete(v.segments, oldest)
	s.mu.Unlock()
	for i := range leave {
		if _, ok := s.look(leave[i].num()); !ok {
			ed.object(leave[i].num())
		}
	}
	ed.done()
	s.editing.Unlock()
	if err := v.Segments().Remove(oldest); err != nil {
		v.suspect(err)
		return err
	}
	return nil
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

// unmake turns an object that was taken for a small one into one with a blob:
// the blob first, so that the index never knows of one that is not there.
func (s *Store) unmake(num uint64, size int64) (*disk.Blob, error) {
	e, ok := s.look(num)
	if !ok {
		return nil, ErrNotFound
	}
	v := s.volumeOf(&e)
	err := s.evicting(func() ([]*entry, error) {
		_, victims, err := s.makeRoom(2*SmallObject, s.services[e.service], v)
		return victims, err
	})
	if err != nil {
		return nil, err
	}
	b, err := v.create(num, size)
	if err != nil {
		return nil, err
	}
	s.editing.Lock()
	defer s.editing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	now, ok := s.objects[num]
	if !ok {
		return nil, errors.Join(ErrNotFound, b.Close())
	}
	s.queueOf(now).Remove(&now.node)
	s.change(now, func() { now.set(isSmall, false) })
	s.queueOf(now).Add(&now.node, now.reserved())
	ed := s.books.edit()
	ed.entry(now)
	ed.done()
	return b, nil
}
