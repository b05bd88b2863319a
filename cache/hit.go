package cache

import "time"

// Hit is a small object that is whole, as [Store.Hit] found it.
type Hit struct {
	Num uint64
	// Body and Meta, which was kept with the name, must not be changed.
	Body, Meta []byte
}

// Hit finds a small object that is complete by a name, without what only people
// read of it. Whoever answers with it calls CountHit. It is false for all other
// objects, which Lookup may find.
func (s *Store) Hit(called string) (h Hit, ok bool) {
	n := s.books.named(called)
	if n == nil || s.denied.removed(n.Num) != nil {
		return Hit{}, false
	}
	s.mu.Lock()
	e, ok := s.objects[n.Num]
	if !ok || !e.is(isComplete) || !e.is(isSmall) || s.active[n.Num] != nil {
		s.mu.Unlock()
		return Hit{}, false
	}
	seen := *e
	s.mu.Unlock()
	body, err := s.smallBody(&seen)
	if err != nil { // it has been forgotten, or is being mended: Read says which
		return Hit{}, false
	}
	return Hit{Num: n.Num, Body: body, Meta: n.Meta}, true
}

// CountHit notes a request that was answered with a whole object, by the name of
// the outlet: Read and CountServed in one.
func (s *Store) CountHit(num uint64, outlet string, bytes int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals.Served[outlet] += bytes
	s.counted = true
	if e, ok := s.objects[num]; ok {
		s.use(e, now)
		s.countServed(num, outlet, bytes)
	}
}
