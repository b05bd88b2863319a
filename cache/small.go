package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"

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
	delete(s.cards, f.num)
	v := s.volumeOf(e)
	failures := v.failures
	s.mu.Unlock()
	r = r.clone()
	r.ID, r.Promised = id, content.ID{}
	after.set(isComplete, true)
	text := s.books.card(&after, r)
	s.editing.Unlock()
	if err := s.putSmall(f.num, text, body); err != nil {
		return fmt.Errorf("complete %s: %w", f.title, err)
	}
	if after.is(isPinned) { // what was said to be pinned must not be lost
		if err := s.flushVolume(v); err != nil {
			return fmt.Errorf("complete %s: %w", f.title, err)
		}
	}
	if err := s.complete(f, id.Root, id.Size); err != nil {
		return err
	}
	s.mu.Lock()
	again := v.failures != failures
	s.mu.Unlock()
	if again { // it was not complete when what the flush has lost was appended again
		return s.settleSmall(f.num)
	}
	return nil
}

// putSmall appends an object to the segments of its volume and notes where it
// is.
func (s *Store) putSmall(num uint64, text, body []byte) error {
	e, ok := s.look(num)
	if !ok {
		return ErrNotFound
	}
	v := s.volumeOf(&e)
	for {
		if sick, _ := v.state(); sick != nil {
			return unwritable(v.dir, sick)
		}
		s.mu.Lock()
		failures := v.failures
		s.mu.Unlock()
		place, err := v.Segments().Append(num, text, body)
		if err != nil {
			v.suspect(err)
			return unwritable(v.dir, err)
		}
		s.mu.Lock()
		// A flush that failed meanwhile may have lost it, and a segment that is not
		// the newest any more may have left before this object was counted in it.
		if v.failures != failures || place.Segment < v.left {
			s.mu.Unlock()
			continue
		}
		if e, ok := s.objects[num]; ok {
			if _, ok := s.books.moving[num]; !ok && e.is(isComplete) {
				s.books.moving[num] = e.place
			}
			e.place = place
			s.placed(e)
			v.fresh[num] = true
		}
		over := v.small > s.cfg.SmallBytes
		s.mu.Unlock()
		if over {
			s.kick()
		}
		if _, gen, ok := s.bodies.get(num); !ok {
			s.bodies.offer(num, bytes.Clone(body), int64(len(body))+200, gen)
		}
		return nil
	}
}

// placed counts an object in its segment; s.mu is held.
func (s *Store) placed(e *entry) {
	seg := s.volumeOf(e).segment(e.place.Segment)
	seg.nums = append(seg.nums, e.num())
	seg.bytes += e.size + recordOverhead
	s.volumeOf(e).small += e.size + recordOverhead
}

// segment is what is known of a segment; Store.mu is held.
func (v *volume) segment(id uint32) *segment {
	seg := v.segments[id]
	if seg == nil {
		seg = &segment{}
		v.segments[id] = seg
	}
	return seg
}

// countSegments takes the size of each segment from the disk: the objects that
// are left in it say nothing of those that have gone.
func (s *Store) countSegments(v *volume) {
	list := v.Segments().List()
	s.mu.Lock()
	defer s.mu.Unlock()
	v.small = 0
	for _, info := range list {
		v.segment(info.ID).bytes = info.Bytes
	}
	for _, seg := range v.segments {
		v.small += seg.bytes
	}
}

// smallBody reads a small object. If it is damaged or gone, it is forgotten.
func (s *Store) smallBody(e *entry) ([]byte, error) {
	for seen := *e; ; {
		body, err := s.readSmall(&seen)
		damaged := errors.Is(err, disk.ErrDamaged)
		if err == nil || !damaged && !isLost(err) {
			return body, err
		}
		now, moved := s.lostSmall(&seen, damaged)
		if !moved {
			return nil, errors.Join(ErrNotFound, err)
		}
		seen = now
	}
}

// readSmall reads from memory or from the segment.
func (s *Store) readSmall(e *entry) ([]byte, error) {
	body, gen, ok := s.bodies.get(e.num())
	if ok {
		return body, nil
	}
	v := s.volumeOf(e)
	_, body, err := v.Segments().Read(e.place, e.num(), nil)
	if err == nil && int64(len(body)) != e.size {
		err = fmt.Errorf("%w: %d bytes instead of %d", disk.ErrDamaged, len(body), e.size)
	}
	if v.suspect(err); err != nil {
		return nil, err
	}
	body = bytes.Clone(body) // what was read has a card beside it, longer than many a body
	s.bodies.offer(e.num(), body, int64(len(body))+200, gen)
	return body, nil
}

// lostSmall takes note that an object is not where it was seen, unless it has
// just moved. What stays is fetched again.
func (s *Store) lostSmall(seen *entry, damaged bool) (now entry, moved bool) {
	s.editing.Lock()
	now, ok := s.look(seen.num())
	if ok && now.place == seen.place && now.volume == seen.volume {
		now, ok = s.moveBack(now)
	}
	if ok && (now.place != seen.place || now.volume != seen.volume) {
		s.editing.Unlock()
		return now, true
	}
	if ok && damaged {
		s.noteDamage(seen.num(), 0)
	}
	stays := ok && now.is(isComplete) && s.miss(seen.num())
	s.editing.Unlock()
	if stays {
		_, _ = s.mend(seen.num()) // else the next request has it fetched
	}
	return now, false
}

// settleSmall writes a small object anew, with the card that it has now, and
// makes it durable.
func (s *Store) settleSmall(num uint64) error {
	e, ok := s.look(num)
	if !ok || !e.is(isSmall) || !e.is(isComplete) {
		return nil
	}
	if err := s.moveSmall(&e); err != nil {
		return err
	}
	return s.flushVolume(s.volumeOf(&e))
}

// moveSmall appends an object anew. The next flush tells the index.
func (s *Store) moveSmall(e *entry) error {
	body, err := s.smallBody(e)
	if err != nil {
		return err
	}
	s.editing.Lock()
	r := s.books.record(e.num())
	now, ok := s.look(e.num())
	if r == nil || !ok {
		s.editing.Unlock()
		return ErrNotFound
	}
	text := s.books.card(&now, r)
	s.mu.Lock()
	delete(s.cards, e.num())
	s.mu.Unlock()
	s.editing.Unlock()
	return s.putSmall(e.num(), text, body)
}

// flushSmall makes what has come into the segments durable.
func (s *Store) flushSmall() {
	for _, v := range s.volumes {
		if sick, _ := v.state(); sick != nil {
			continue
		}
		if err := s.flushVolume(v); err != nil {
			s.log.Warn("failed to flush small objects", "volume", v.dir, "err", err)
		}
	}
}

// flushVolume makes what has come into the segments of one volume durable. If
// that fails, what came since it last went well is appended anew, from memory or
// from what can be read of it still; what is lost is forgotten.
func (s *Store) flushVolume(v *volume) error {
	s.reappend(v)
	s.mu.Lock()
	fresh := v.fresh
	v.fresh = map[uint64]bool{}
	s.mu.Unlock()
	err := v.Segments().Flush()
	if err == nil {
		s.confirm(v, fresh)
		return nil
	}
	v.suspect(err)
	s.mu.Lock()
	v.failures++
	maps.Copy(v.torn, fresh)
	maps.Copy(v.torn, v.fresh)
	v.fresh = map[uint64]bool{}
	s.mu.Unlock()
	s.reappend(v)
	return err
}

// confirm has the index point to where flushed objects lie by now.
func (s *Store) confirm(v *volume, flushed map[uint64]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ed := s.books.edit()
	for num := range flushed {
		e := s.objects[num]
		if _, moved := s.books.moving[num]; !moved || e == nil || v.fresh[num] { // or appended once more meanwhile
			continue
		}
		delete(s.books.moving, num)
		ed.entry(e)
	}
	ed.done()
}

// moveBack gives an object the place that the index knows of, if it has another
// by now.
func (s *Store) moveBack(seen entry) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[seen.num()]
	place, moved := s.books.moving[seen.num()]
	if !ok || !moved {
		return seen, ok
	}
	delete(s.books.moving, seen.num())
	e.place = place
	return *e, true
}

// reappend appends what a failed flush may have lost. What the disk does not take
// now waits for the next flush.
func (s *Store) reappend(v *volume) {
	s.mu.Lock()
	torn := v.torn
	v.torn = map[uint64]bool{}
	s.mu.Unlock()
	for num := range torn {
		e, ok := s.look(num)
		if !ok || !e.is(isSmall) || !e.is(isComplete) || e.volume != v.num {
			continue // gone, or its fill will see to it
		}
		if err := s.moveSmall(&e); err != nil && !errors.Is(err, ErrNotFound) {
			s.mu.Lock()
			v.torn[num] = true
			s.mu.Unlock()
		}
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
	b, err := v.create(num, size, false)
	if errors.Is(err, fs.ErrExist) { // a crash came between the blob and the index
		s.discard([]*entry{{node: evict.Node{Num: num}, volume: v.num}})
		b, err = v.create(num, size, false)
	}
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
