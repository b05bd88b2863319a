package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
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
	s.books.named(called) // may have to be read from disk: before the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok || r == nil {
		return fmt.Errorf("name object %d: %w", num, ErrNotFound)
	}
	if err := s.denied.check(called, r.ID); err != nil {
		return fmt.Errorf("name object %d: %w", num, err)
	}
	s.bind(e, r, called, meta)
	return nil
}

// bind gives an object a name and saves what it is; s.editing and s.mu are
// held.
func (s *Store) bind(e *entry, r *record, called string, meta []byte) {
	ed := s.books.edit()
	if old := s.books.named(called); old != nil && old.Num != e.num() {
		s.unname(ed, old.Num, called)
	}
	r = r.clone()
	for _, pushed := range r.add(called) {
		ed.dropName(pushed)
	}
	ed.entry(e)
	ed.record(e.num(), r)
	ed.name(&name{Num: e.num(), Name: called, Meta: slices.Clone(meta)})
	ed.done()
	s.cards[e.num()] = true
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
	r := s.books.record(num)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok {
		return ErrNotFound
	}
	s.change(e, func() { e.set(what, on) })
	s.cards[num] = true
	ed := s.books.edit()
	ed.entry(e)
	if what == isPublic && !on && r != nil {
		if at, ok := s.books.identified(r.ID); ok && at == num {
			ed.drop(identityKey(r.ID))
		}
	}
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

// complete records that a fill is done: the object has earned its identity. If
// a public object with the same bytes is here already, the names move to that
// one and the spare body goes. The fill learns its new number before anybody
// can miss the old one.
func (s *Store) complete(f *Fill, root content.Hash, size int64) error {
	s.editing.Lock()
	defer s.editing.Unlock()
	r := s.books.record(f.num)
	id := content.ID{Root: root, Size: size}
	twin, twinned := s.twinOf(f.num, id)
	refused := s.refusal(f, r, id)
	s.mu.Lock()
	e, ok := s.objects[f.num]
	if !ok || r == nil {
		delete(s.active, f.num)
		s.mu.Unlock()
		return fmt.Errorf("complete object %d: %w", f.num, ErrNotFound)
	}
	if refused != nil {
		s.change(e, func() { delete(s.active, f.num) })
		s.mu.Unlock()
		s.forget(f.num)
		return refused
	}
	defer s.mu.Unlock()
	s.resize(e, size, size)
	s.countFilled(f)
	mended := !r.ID.IsZero()
	r = r.clone()
	r.ID, r.Promised, r.From, r.Parts = id, content.ID{}, f.from(), f.parts()
	s.change(e, func() {
		e.set(isComplete|isChecked, true)
		delete(s.active, f.num)
	})
	delete(s.checked, f.num)
	delete(s.proofs, f.num)
	if mended {
		s.counts.Repaired++
		s.log.Info("repaired an object", "object", f.num, "title", f.title)
	}
	ed := s.books.edit()
	if twinned && e.is(isPublic) && size > 0 {
		f.moved(twin)
		s.merge(ed, e, r, s.objects[twin])
		return nil
	}
	if e.is(isPublic) && size > 0 {
		ed.identity(id, f.num)
	}
	ed.entry(e)
	ed.record(f.num, r)
	ed.done()
	s.cards[f.num] = true
	return nil
}

// twinOf finds another complete public object with an identity; s.editing is
// held.
func (s *Store) twinOf(num uint64, id content.ID) (uint64, bool) {
	twin, ok := s.books.identified(id)
	if !ok || twin == num {
		return 0, false
	}
	e, ok := s.look(twin)
	return twin, ok && e.is(isComplete) && e.is(isPublic) && s.books.record(twin) != nil
}

// refusal says why an object must not stay although all of it is here.
func (s *Store) refusal(f *Fill, r *record, id content.ID) error {
	if r == nil {
		return nil
	}
	promised := r.Promised
	if promised.IsZero() {
		promised = r.ID // of an object that is being mended
	}
	if !promised.IsZero() && promised != id {
		return fmt.Errorf("complete %s: bytes add up to %s, promised was %s: %w", r.Title, id, promised, content.ErrBadPiece)
	}
	if err := s.denied.checkBody(id, f.body.reader(id.Size)); err != nil {
		return fmt.Errorf("complete %s: %w", r.Title, err)
	}
	return nil
}

// merge moves what the spare object has to its twin and removes the spare;
// s.editing and s.mu are held. The spare's body goes later.
func (s *Store) merge(ed *edit, spare *entry, r *record, twin *entry) {
	to := s.books.record(twin.num()).clone()
	for _, called := range r.Names {
		n := s.books.named(called)
		if n == nil || n.Num != spare.num() {
			continue
		}
		for _, pushed := range to.add(called) {
			ed.dropName(pushed)
		}
		ed.name(&name{Num: twin.num(), Name: called, Meta: n.Meta})
	}
	for source, n := range r.From {
		to.From[source] += n
	}
	for outlet, n := range r.Served {
		to.Served[outlet] += n
	}
	for outlet, n := range s.served[spare.num()] {
		s.countServed(twin.num(), outlet, n)
	}
	s.change(twin, func() {
		twin.trust = max(twin.trust, spare.trust)
		twin.set(isPinned, twin.is(isPinned) || spare.is(isPinned))
	})
	s.queueOf(spare).Remove(&spare.node)
	s.forgetEntry(spare)
	ed.drop(numKey(entryPrefix, spare.num()))
	ed.drop(numKey(recordPrefix, spare.num()))
	ed.after = append(ed.after, func() { s.books.records.drop(spare.num()) })
	ed.entry(twin)
	ed.record(twin.num(), to)
	ed.done()
	s.cards[twin.num()] = true
	s.log.Info("merged equal objects", "object", twin.num(), "title", to.Title)
	s.fills.Go(func() { s.discard([]*entry{spare}) })
}

// abandon takes a fill that ended early off the list; its durable blocks stay
// for the next one. What was in memory is gone.
func (s *Store) abandon(f *Fill, size int64) {
	s.editing.Lock()
	defer s.editing.Unlock()
	r := s.books.record(f.num)
	s.mu.Lock()
	e, ok := s.objects[f.num]
	if !ok {
		delete(s.active, f.num)
		s.mu.Unlock()
		return
	}
	s.countFilled(f)
	s.change(e, func() { delete(s.active, f.num) })
	if e.is(isSmall) && !e.is(isPinned) || r == nil {
		s.mu.Unlock()
		s.forget(f.num)
		return
	}
	r = r.clone()
	if e.is(isSmall) {
		s.resize(e, size, 0)
		r.From, r.Parts = nil, nil
	} else {
		s.resize(e, size, f.here())
		r.From, r.Parts = f.from(), f.parts()
	}
	ed := s.books.edit()
	ed.entry(e)
	ed.record(f.num, r)
	ed.done()
	s.cards[f.num] = true
	s.mu.Unlock()
}
