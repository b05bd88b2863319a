package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// SetName gives an object one more name, or new meta for a name that it has. An
// older object loses the name. Of more than 64 names the oldest goes.
func (s *Store) SetName(num uint64, called string, meta []byte) error {
	if err := checkName(called, meta); err != nil {
		return fmt.Errorf("name object %d: %w", num, err)
	}
	s.editing.Lock()
	defer s.editing.Unlock()
	r := s.books.record(num)
	if r == nil {
		return fmt.Errorf("name object %d: %w", num, ErrNotFound)
	}
	if err := s.denied.check(called, r.ID); err != nil {
		return fmt.Errorf("name object %d: %w", num, err)
	}
	ed := s.bind(num, r, called, meta)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok {
		return fmt.Errorf("name object %d: %w", num, ErrNotFound)
	}
	ed.entry(e)
	ed.done()
	s.cards[num] = true
	return nil
}

// bind is the change that gives an object a name; its entry is still to be put
// into it. s.editing is held until it is done; Store.mu is not, for what is
// needed may have to be read from disk.
func (s *Store) bind(num uint64, r *record, called string, meta []byte) *edit {
	ed := s.books.edit()
	if old := s.books.named(called); old != nil && old.Num != num {
		s.unname(ed, old.Num, called)
	}
	r = r.clone()
	for _, pushed := range r.add(called) {
		ed.dropName(pushed)
	}
	ed.record(num, r)
	ed.name(&name{Num: num, Name: called, Meta: slices.Clone(meta)})
	return ed
}

// unname takes a name off an object's record; s.editing is held.
func (s *Store) unname(ed *edit, num uint64, called string) {
	if r := s.books.record(num); r != nil {
		r = r.clone()
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return n == called })
		ed.record(num, r)
	}
}

// DropName takes a name away; the object stays until its room is needed.
func (s *Store) DropName(called string) error {
	s.editing.Lock()
	defer s.editing.Unlock()
	n := s.books.named(called)
	if n == nil {
		return fmt.Errorf("drop name %s: %w", called, ErrNotFound)
	}
	ed := s.books.edit()
	s.unname(ed, n.Num, called)
	ed.dropName(called)
	ed.done()
	s.mu.Lock()
	s.cards[n.Num] = true
	s.mu.Unlock()
	return nil
}

// Pin keeps an object whatever room is needed, or lets go of it again. It is
// durable when Pin returns nil.
func (s *Store) Pin(num uint64, pinned bool) error {
	if err := s.mark(num, isPinned, pinned); err != nil {
		return fmt.Errorf("pin object %d: %w", num, err)
	}
	if err := s.settleSmall(num); err != nil {
		return fmt.Errorf("pin object %d: %w", num, err)
	}
	if err := s.books.index.Commit(context.Background()); err != nil {
		return fmt.Errorf("pin object %d: %w", num, err)
	}
	return nil
}

// Unpublish takes an object back from every outlet but the name it came by: an
// answer that was for everybody no longer is.
func (s *Store) Unpublish(num uint64) error {
	if err := s.mark(num, isPublic, false); err != nil {
		return fmt.Errorf("unpublish object %d: %w", num, err)
	}
	if err := s.settleSmall(num); err != nil { // its card must not say otherwise
		return fmt.Errorf("unpublish object %d: %w", num, err)
	}
	return nil
}

// mark sets a flag of an entry and saves it.
func (s *Store) mark(num uint64, what flag, on bool) error {
	s.editing.Lock()
	defer s.editing.Unlock()
	ed := s.books.edit()
	if r := s.books.record(num); what == isPublic && !on && s.books.owns(num, r) {
		ed.drop(identityKey(r.ID))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok {
		return ErrNotFound
	}
	s.change(e, func() { e.set(what, on) })
	s.cards[num] = true
	ed.entry(e)
	ed.done()
	return nil
}

// Evict removes an object and its names. A running fill is stopped first;
// readers that are open go on to the end of what they have.
func (s *Store) Evict(num uint64) error {
	s.editing.Lock()
	defer s.editing.Unlock()
	for {
		s.mu.Lock()
		f, e := s.active[num], s.objects[num]
		s.mu.Unlock()
		if e == nil {
			return fmt.Errorf("evict object %d: %w", num, ErrNotFound)
		}
		if f == nil {
			break
		}
		s.editing.Unlock()
		f.stop(fmt.Errorf("object %d was evicted", num))
		<-f.Done()
		s.editing.Lock() // another may have begun meanwhile
	}
	s.forget(num)
	return nil
}

// EvictMatching removes the objects that have a name that fits a pattern (see
// [Match]), pinned ones included, and says how many and how large they were.
func (s *Store) EvictMatching(pattern string) (objects int, bytes int64, err error) {
	if err := CheckPattern(pattern); err != nil {
		return 0, 0, fmt.Errorf("evict: %w", err)
	}
	for _, num := range s.matching(func(called string) bool { return Match(pattern, called) }) {
		e, ok := s.look(num)
		if !ok {
			continue
		}
		if err := s.Evict(num); err != nil {
			if errors.Is(err, ErrNotFound) {
				continue
			}
			return objects, bytes, err
		}
		objects++
		bytes += e.reserved()
	}
	return objects, bytes, nil
}

// matching lists the objects that have a name of a kind.
func (s *Store) matching(fits func(called string) bool) []uint64 {
	var nums []uint64
	err := s.books.eachName(func(n name) {
		if fits(n.Name) {
			nums = append(nums, n.Num)
		}
	})
	if err != nil {
		s.log.Warn("failed to read all names", "err", err)
	}
	slices.Sort(nums)
	return slices.Compact(nums)
}
