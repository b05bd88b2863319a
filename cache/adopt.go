package cache

import (
	"errors"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// takeIn adopts what lies on a volume, and from then on the index knows it. If
// that failed, it is tried again when the disk is next looked at.
func (s *Store) takeIn(v *volume) {
	whole := s.adopt(v)
	v.mu.Lock()
	v.alien = !whole
	v.mu.Unlock()
	s.noteVolumes()
	if err := s.denied.doubt(); err != nil {
		s.log.Warn("failed to save the list of takedowns", "err", err)
	}
}

// adopt takes in what lies on a volume and the index does not know: after the
// index was lost, or when a disk has come back. Figures are gone then; bytes,
// names, validators and pins are not. It reports whether it got to the end.
func (s *Store) adopt(v *volume) (whole bool) {
	var adopted, dropped int
	mine := map[uint64]bool{} // small objects that were adopted just now
	take := func(num uint64, size int64, text []byte, place disk.Place) {
		s.editing.Lock()
		defer s.editing.Unlock()
		if place != (disk.Place{}) && isCardAlone(text, size) {
			if mine[num] {
				s.recard(v, num, text)
			}
			return
		}
		switch known, ok := s.settled(v, num, place); {
		case known:
		case ok && s.adoptOne(v, num, size, text, place):
			mine[num] = place != disk.Place{}
			adopted++
		default:
			dropped++
		}
	}
	whole = true
	failed := func(msg string, err error) {
		if err != nil {
			v.suspect(err)
			s.log.Warn(msg, "volume", v.dir, "err", err)
			whole = whole && errors.Is(err, disk.ErrDamaged)
		}
	}
	failed("failed to walk a volume", v.Walk(func(num uint64, size int64, text []byte, err error) bool {
		if err != nil {
			dropped++
			whole = whole && (errors.Is(err, disk.ErrDamaged) || isLost(err))
		} else {
			take(num, size, text, disk.Place{})
		}
		return s.ctx.Err() == nil
	}))
	for _, seg := range v.Segments().List() {
		failed("failed to read a segment", v.Segments().Scan(seg.ID, func(num uint64, p disk.Place, text []byte, size int, err error) bool {
			if err != nil {
				dropped++
			} else {
				take(num, int64(size), text, p)
			}
			return s.ctx.Err() == nil
		}))
	}
	s.countSegments(v)
	if adopted+dropped > 0 {
		s.log.Info("adopted what lay on a volume", "volume", v.dir, "objects", adopted, "dropped", dropped)
	}
	return whole && s.ctx.Err() == nil
}

// settled says whether an object that was found on a volume is known already,
// and if not, whether its number is free. Of a small object that was moved, the
// newest card counts: the one before it is forgotten. s.editing is held.
func (s *Store) settled(v *volume, num uint64, place disk.Place) (known, free bool) {
	s.mu.Lock()
	s.next = max(s.next, num+1)
	old, here := s.objects[num]
	here = here && old.volume == v.num
	moved := here && old.is(isSmall) && old.is(isComplete) && (old.place.Segment < place.Segment || old.place.Segment == place.Segment && old.place.Off < place.Off)
	_, taken := s.objects[num]
	s.mu.Unlock()
	if moved {
		s.forget(num)
		return false, true
	}
	return here, !taken
}

// isCardAlone reports whether a record of a segment has nothing but a newer card
// of an object whose body lies before it.
func isCardAlone(text []byte, size int64) bool {
	if size > 0 {
		return false
	}
	e, _, _, err := readCard(text)
	return err == nil && e.size > 0
}

// recard adopts a small object once more, by a newer card; s.editing is held.
func (s *Store) recard(v *volume, num uint64, text []byte) {
	e, ok := s.look(num)
	if !ok || !e.is(isSmall) || !e.is(isComplete) || e.volume != v.num {
		return
	}
	s.forget(num)
	s.adoptOne(v, num, e.size, text, e.place)
}

// adoptOne takes in one object by its card; s.editing is held.
func (s *Store) adoptOne(v *volume, num uint64, size int64, text []byte, place disk.Place) bool {
	e, r, names, err := readCard(text)
	if err != nil {
		return false
	}
	e.node.Num, e.volume, e.place = num, v.num, place
	e.set(isSmall, place != disk.Place{})
	if e.is(isComplete) && e.size != size || !e.is(isComplete) && e.is(isSmall) {
		return false
	}
	if e.size = size; size < 0 {
		e.here = 0
	}
	e.service = 0 // what the number meant is lost with the index
	if len(names) > 0 {
		e.service = s.serviceFor(names[0].Name)
	}
	for _, n := range append(names, &name{}) {
		if s.denied.check(n.Name, r.ID) != nil {
			return false
		}
	}
	if !e.is(isSmall) && e.is(isComplete) && !s.adoptable(v, e, r) {
		e.set(isComplete, false) // what is durable of it is gone on with
		r.Promised, r.ID = r.ID, content.ID{}
	}
	r = r.clone()
	r.Names = nil
	ed := s.books.edit()
	for _, n := range names {
		old := s.books.named(n.Name)
		if old != nil && old.Num > num { // a later object has it
			continue
		}
		if old != nil && old.Num != num {
			s.unname(ed, old.Num, n.Name)
		}
		r.add(n.Name)
		ed.name(&name{Num: num, Name: n.Name, Meta: n.Meta})
	}
	s.mu.Lock()
	s.enter(e, evictState{})
	ed.entry(e)
	s.mu.Unlock()
	ed.record(num, r)
	if _, ok := s.books.identified(r.ID); !ok && e.is(isComplete) && e.is(isPublic) && e.size > 0 {
		ed.identity(r.ID, num)
	}
	ed.done()
	return true
}

// adoptable reports whether a sidecar proves the identity that the card says.
func (s *Store) adoptable(v *volume, e *entry, r *record) bool {
	b, err := v.Open(e.num())
	if err != nil {
		return false
	}
	defer b.Close()
	l, err := b.Layer(e.size)
	return err == nil && l.Check(r.ID) == nil
}

// saveCards writes the cards that are out of date. They are a help in need: what
// a crash loses of them the index still has.
func (s *Store) saveCards() {
	s.mu.Lock()
	cards := s.cards
	s.cards = map[uint64]bool{}
	s.mu.Unlock()
	for num := range cards {
		e, ok := s.look(num)
		if !ok || e.is(isSmall) && !e.is(isComplete) {
			continue
		}
		if err := s.saveCard(&e); err != nil && !errors.Is(err, ErrNotFound) && !isLost(err) {
			s.volumeOf(&e).suspect(err)
			s.mu.Lock()
			s.cards[num] = true
			s.mu.Unlock()
		}
	}
}

func (s *Store) saveCard(e *entry) error {
	r := s.books.record(e.num())
	if r == nil {
		return ErrNotFound
	}
	v := s.volumeOf(e)
	if sick, _ := v.state(); sick != nil {
		return sick
	}
	if e.is(isSmall) {
		return s.appendCard(v, e, r)
	}
	b, err := v.Open(e.num())
	if err != nil {
		return err
	}
	defer b.Close()
	return b.SetCard(s.books.card(e, r))
}

// appendCard writes a newer card for a small object, behind its body. Only where
// much of the body's segment is pinned may the card leave before the body does.
func (s *Store) appendCard(v *volume, e *entry, r *record) error {
	place, err := v.Segments().Append(e.num(), s.books.card(e, r), nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.segment(place.Segment).bytes += int64(place.Len)
	v.small += int64(place.Len)
	return nil
}
