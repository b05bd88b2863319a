package cache

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
)

// load reads the entries of all objects into memory.
func (s *Store) load(fresh bool) error {
	s.loadServices()
	s.totals = totals{}
	err := errors.Join(s.books.setting("numbers", &s.numbers), s.books.setting("totals", &s.totals))
	if err != nil {
		return err
	}
	if s.totals.Filled == nil || s.totals.Served == nil {
		s.totals = totals{Filled: map[string]int64{}, Served: map[string]int64{}}
	}
	where, err := s.whereabouts()
	if err != nil {
		return err
	}
	if s.next = s.numbers; fresh {
		s.next = numberStep // clear of the numbers of what may yet come back
	}
	shelves, err := s.readEntries(where)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	s.enterAll(shelves)
	for _, v := range s.volumes {
		switch {
		case !v.isOpen():
		case fresh || v.alien:
			s.takeIn(v)
		default:
			s.countSegments(v)
		}
	}
	return s.begin()
}

// whereabouts says on which volume of today's configuration the objects lie that
// the index has under a volume's number, and marks as alien the volumes that it
// does not know, or that another index has had meanwhile.
func (s *Store) whereabouts() (map[uint8]*volume, error) {
	known := map[string]uint8{}
	if err := s.books.setting("volumes", &known); err != nil {
		return nil, err
	}
	if err := s.books.setting("index", &s.name); err != nil {
		return nil, err
	}
	where, homeless := map[uint8]*volume{}, map[uint8]bool{}
	for _, num := range known {
		homeless[num] = true
	}
	for _, v := range s.volumes {
		if !v.isOpen() {
			continue
		}
		num, ok := known[v.ID()]
		owner := readClaim(v.dir).Index
		if v.alien = !ok || owner != "" && owner != s.name; !v.alien {
			where[num] = v
			delete(homeless, num)
		}
	}
	for _, v := range s.volumes { // of an index whose making was cut short, or with a new name
		renamed := homeless[v.num] && isThere(filepath.Join(v.dir, "volume.json.damaged"))
		if v.isOpen() && where[v.num] == nil && (len(known) == 0 || renamed) {
			where[v.num] = v
		}
	}
	return where, nil
}

// shelf is entries in the order of their numbers. There may be a million of them:
// they lie side by side in memory, and are entered into the lists when all have
// been read.
type shelf struct {
	slabs []slab
	moved []*entry // whose volume has another number than in the index
	lost  []uint64 // objects that are on no volume
}

// slab is entries with their places in the eviction queues.
type slab struct {
	entries []entry
	states  []evictState
}

// slabSize is how many entries are allocated, and freed, together.
const slabSize = 1024

// readEntries reads every entry, in order, with two readers at once.
func (s *Store) readEntries(where map[uint8]*volume) ([]shelf, error) {
	ends := [][]byte{{entryPrefix}, {entryPrefix + 1}}
	if middle := s.books.index.Middle(ends[0], ends[1]); middle != nil {
		ends = slices.Insert(ends, 1, middle)
	}
	shelves, errs := make([]shelf, len(ends)-1), make([]error, len(ends)-1)
	var wait sync.WaitGroup
	for i := range shelves {
		wait.Go(func() {
			_, errs[i] = s.books.index.Scan(ends[i], ends[i+1], func(key, value []byte) bool {
				var e entry
				state, err := e.decode(key, value)
				if err != nil {
					s.log.Warn("dropped a record that makes no sense", "err", err)
					return true
				}
				s.shelve(&shelves[i], &e, state, where[e.volume])
				return true
			})
		})
	}
	wait.Wait()
	return shelves, errors.Join(errs...)
}

// shelve puts an entry that was read with the others, if what it is of may still
// be on a volume (nil: of which today's configuration knows nothing).
func (s *Store) shelve(to *shelf, e *entry, state evictState, v *volume) {
	inMemory := e.is(isSmall) && !e.is(isComplete) // it was; what is pinned is filled anew
	if v == nil || v.gone || inMemory && !e.is(isPinned) {
		to.lost = append(to.lost, e.num())
		return
	}
	if int(e.service) >= len(s.services) {
		e.service = 0
	}
	last := len(to.slabs) - 1
	if last < 0 || len(to.slabs[last].entries) == slabSize {
		to.slabs = append(to.slabs, slab{make([]entry, 0, slabSize), make([]evictState, 0, slabSize)})
		last++
	}
	sl := &to.slabs[last]
	sl.entries, sl.states = append(sl.entries, *e), append(sl.states, state)
	if kept := &sl.entries[len(sl.entries)-1]; kept.volume != v.num {
		kept.volume = v.num
		to.moved = append(to.moved, kept)
	}
}

// enterAll is enter for all that was read, the map of objects beside the other
// lists, and corrects the index; nobody else is there yet.
func (s *Store) enterAll(shelves []shelf) {
	count := 0
	for _, sh := range shelves {
		for _, sl := range sh.slabs {
			count += len(sl.entries)
		}
	}
	s.objects = make(map[uint64]*entry, count)
	var wait sync.WaitGroup
	wait.Go(func() {
		for _, sh := range shelves {
			for _, sl := range sh.slabs {
				for i := range sl.entries {
					s.objects[sl.entries[i].num()] = &sl.entries[i]
				}
			}
		}
	})
	lost := 0
	ed := s.books.edit()
	for _, sh := range shelves {
		for _, sl := range sh.slabs {
			for i := range sl.entries {
				s.line(&sl.entries[i], sl.states[i])
			}
		}
		for _, e := range sh.moved {
			ed.entry(e)
		}
		for _, num := range sh.lost {
			ed.object(num)
		}
		lost += len(sh.lost)
	}
	ed.done()
	wait.Wait()
	if lost > 0 {
		s.log.Info("forgot objects that are on no volume", "objects", lost)
	}
}

// enter takes an entry into the lists; s.mu is held, or nobody else is there
// yet.
func (s *Store) enter(e *entry, state evictState) {
	s.objects[e.num()] = e
	s.line(e, state)
}

// line is enter less the map of objects, which it neither reads nor changes.
func (s *Store) line(e *entry, state evictState) {
	s.next = max(s.next, e.num()+1)
	s.queueOf(e).Restore(&e.node, e.reserved(), state)
	s.tally(e, +1)
	if e.is(isSmall) && e.is(isComplete) {
		s.placed(e)
	}
}
