package cache

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// makeRoom evicts until need more bytes fit under both bounds: those longest
// unused first, never what is pinned or being filled. If even that is too
// little for need, nothing is evicted: a claim to be huge must not empty the
// store. s.mu is held.
func (s *Store) makeRoom(need int64) error {
	free, err := freeBytes(s.cfg.Dir)
	if err != nil {
		return err
	}
	// Sums are written so that no need, however large, overflows.
	short := max(need-(s.cfg.MaxBytes-s.used), need-(free-s.cfg.MinFree))
	if short <= 0 {
		return nil
	}
	var victims []*record
	for _, r := range slices.SortedFunc(maps.Values(s.objects), func(a, b *record) int { return a.Used.Compare(b.Used) }) {
		if short <= 0 {
			break
		}
		if r.Pinned || s.active[r.Num] != nil {
			continue
		}
		short -= r.reserved()
		victims = append(victims, r)
	}
	if short <= 0 || need == 0 {
		for _, r := range victims {
			if err := s.remove(r.Num); err != nil {
				return err
			}
			s.log.Info("evicted", "object", r.Num, "title", r.Title, "bytes", r.reserved())
		}
	}
	if short > 0 {
		return fmt.Errorf("no room for %d bytes (%d over the bounds, the rest is pinned or being filled): %w", need, short, content.ErrFull)
	}
	return nil
}

// resize says how large an object is, or how much is here of one of unknown
// size; s.mu is held.
func (s *Store) resize(r *record, size, here int64) {
	s.used -= r.reserved()
	r.Size, r.Here = size, here
	s.used += r.reserved()
}

// grow counts what an object of unknown size takes by now, and makes sure that
// it does not eat the last of the disk.
func (s *Store) grow(num uint64, here int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.objects[num]; ok && r.Size < 0 {
		s.resize(r, r.Size, here)
	}
	return s.makeRoom(0)
}

// reserve says how large an object of unknown size turned out to be.
func (s *Store) reserve(num uint64, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.objects[num]
	if !ok {
		return fmt.Errorf("reserve room for object %d: %w", num, ErrNotFound)
	}
	if err := s.makeRoom(max(0, size-r.reserved())); err != nil {
		return err
	}
	s.resize(r, size, r.Here)
	return s.index.put(r)
}
