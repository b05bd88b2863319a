package cache

import (
	"errors"
	"fmt"

	"github.com/cistern-edge/cistern/cache/content"
)

// complete records that a fill is done: the object has earned its identity. If
// a public object with the same bytes is here already, the names move to that
// one and the spare body goes. The fill learns its new number before anybody
// can miss the old one.
func (s *Store) complete(f *Fill, root content.Hash, size int64) error {
	id := content.ID{Root: root, Size: size}
	for {
		sum, err := s.denied.digest(f.body.reader(size)) // takes its time: before the lock
		if err != nil {
			return fmt.Errorf("complete %s: %w", f.title, err)
		}
		err = s.completeAs(f, id, sum)
		if !errors.Is(err, errNoDigest) {
			return err
		}
	}
}

// errNoDigest says that the digest of the whole is asked for since a moment ago.
var errNoDigest = errors.New("digest of the whole is not known")

// completeAs is complete; sum is nil if no digest of a whole is denied.
func (s *Store) completeAs(f *Fill, id content.ID, sum *content.Hash) error {
	size := id.Size
	s.editing.Lock()
	defer s.editing.Unlock()
	r := s.books.record(f.num)
	twin, twinned := s.twinOf(f.num, id)
	refused := s.refusal(r, id, sum)
	if errors.Is(refused, errNoDigest) {
		return refused
	}
	mended := r != nil && !r.ID.IsZero()
	ed, to := s.books.edit(), (*record)(nil)
	if r != nil {
		r = r.clone()
		r.ID, r.Promised, r.From, r.Parts = id, content.ID{}, f.from(), f.parts()
		if twinned {
			to = s.books.union(ed, f.num, r, twin)
		}
	}
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
	s.change(e, func() {
		e.set(isPart, false)
		e.set(isComplete|isChecked, true)
		delete(s.active, f.num)
	})
	delete(s.checked, f.num)
	delete(s.proofs, f.num)
	if mended {
		s.counts.Repaired++
		s.log.Info("repaired an object", "object", f.num, "title", f.title)
	}
	if to != nil && e.is(isPublic) && size > 0 {
		f.moved(twin)
		s.merge(ed, e, s.objects[twin], to)
		return nil
	}
	ed = s.books.edit()
	if e.is(isPublic) && size > 0 {
		ed.identity(id, f.num)
	}
	ed.entry(e)
	ed.record(f.num, r)
	ed.done()
	if !e.is(isSmall) { // else its card is in the segment already
		s.cards[f.num] = true
	}
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
func (s *Store) refusal(r *record, id content.ID, sum *content.Hash) error {
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
	err := s.denied.checkBody(id, sum)
	for _, called := range r.Names { // one may have been taken down since it was given
		if err == nil {
			err = s.denied.check(called, id)
		}
	}
	if err != nil {
		return fmt.Errorf("complete %s: %w", r.Title, err)
	}
	return nil
}

// merge moves what the spare object has to its twin and removes the spare; to is
// the record of both. s.editing and s.mu are held. The spare's body goes later.
func (s *Store) merge(ed *edit, spare, twin *entry, to *record) {
	for outlet, n := range s.served[spare.num()] {
		s.countServed(twin.num(), outlet, n)
	}
	s.change(twin, func() {
		twin.trust = max(twin.trust, spare.trust)
		twin.set(isPinned, twin.is(isPinned) || spare.is(isPinned))
	})
	s.queueOf(spare).Remove(&spare.node)
	s.forgetEntry(spare)
	ed.entry(twin)
	ed.done()
	s.cards[twin.num()] = true
	s.log.Info("merged equal objects", "object", twin.num(), "title", to.Title)
	s.editing.doomed = append(s.editing.doomed, spare)
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
	if !e.is(isPinned) && (e.is(isSmall) || r == nil) {
		s.mu.Unlock()
		s.forget(f.num)
		return
	}
	if r == nil { // it cannot be read now; what is pinned waits until it can
		s.mu.Unlock()
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
