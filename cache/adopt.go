package cache

import (
	"errors"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// adopt takes in what lies on a volume and the index does not know: after the
// index was lost, or when a disk has come back. Figures are gone then; bytes,
// names, validators and pins are not.
func (s *Store) adopt(v *volume) {
	s.editing.Lock()
	defer s.editing.Unlock()
	var blobs, small, dropped int
	err := v.Walk(func(num uint64, size int64, text []byte, err error) bool {
		s.mu.Lock()
		s.next = max(s.next, num+1)
		_, here := s.objects[num]
		s.mu.Unlock()
		switch {
		case here:
		case err == nil && s.adoptOne(v, num, size, text, disk.Place{}):
			blobs++
		default:
			dropped++
		}
		return true
	})
	if err != nil {
		v.suspect(err)
		s.log.Warn("failed to walk a volume", "volume", v.dir, "err", err)
	}
	for _, seg := range v.Segments().List() {
		err := v.Segments().Scan(seg.ID, func(num uint64, p disk.Place, text []byte, size int, err error) bool {
			if err != nil {
				dropped++
				return true
			}
			s.mu.Lock()
			s.next = max(s.next, num+1)
			old, here := s.objects[num]
			moved := here && old.is(isSmall) && old.volume == v.num && slices.Compare([]uint32{old.place.Segment, old.place.Off}, []uint32{p.Segment, p.Off}) < 0
			if moved {
				old.place = p
				s.placed(old)
			}
			s.mu.Unlock()
			if !here && s.adoptOne(v, num, int64(size), text, p) {
				small++
			}
			return true
		})
		if err != nil {
			v.suspect(err)
			s.log.Warn("failed to read a segment", "volume", v.dir, "err", err)
		}
	}
	if blobs+small+dropped > 0 {
		s.log.Info("adopted what lay on a volume", "volume", v.dir, "objects", blobs+small, "dropped", dropped)
	}
}

// adoptOne takes in one object by its card; s.editing is held.
func (s *Store) adoptOne(v *volume, num uint64, size int64, text []byte, place disk.Place) bool {
	e, r, names, err := readCard(text)
	if err != nil {
		return false
	}
	e.node.Num, e.volume, e.place = num, v.num, place
	e.set(isSmall, place != disk.Place{})
	if e.is(isComplete) && e.size != size || size < 0 && e.is(isSmall) {
		return false
	}
	if e.size = size; size < 0 {
		e.here = 0
	}
	if int(e.service) >= len(s.services) {
		e.service = 0
	}
	for _, n := range names {
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
		if old := s.books.named(n.Name); old != nil && old.Num > num { // a later object has it
			continue
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
		if !ok || e.is(isSmall) {
			continue // the card of a small one lies in its segment
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
	b, err := v.Open(e.num())
	if err != nil {
		return err
	}
	defer b.Close()
	return b.SetCard(s.books.card(e, r))
}
