package cache

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/evict"
)

// service is who objects are for, and how much of the store it may have.
// Store.mu guards it.
type service struct {
	name  string
	match []string
	quota int64 // 0: none but the store's own bound
	bytes int64
	loose int64        // of them what may be evicted
	crumb int64        // of them what may be evicted for the quota, in segments
	queue *evict.Queue // bodies in files of their own
	small *evict.Queue // bodies in segments
}

func newService(name string, match []string, quota, capacity int64) *service {
	return &service{name: name, match: match, quota: quota, queue: evict.New(capacity), small: evict.New(capacity)}
}

// serviceFor finds the service that a name belongs to.
func (s *Store) serviceFor(called string) uint8 {
	for i, svc := range s.services[1:] {
		if slices.ContainsFunc(svc.match, func(pattern string) bool { return Match(pattern, called) }) {
			return uint8(i + 1)
		}
	}
	return 0
}

// queueOf is the queue that an entry waits in.
func (s *Store) queueOf(e *entry) *evict.Queue {
	if e.is(isSmall) {
		return s.services[e.service].small
	}
	return s.services[e.service].queue
}

// evictable reports whether an entry may go to make room for others: small ones
// go with their segment. s.mu is held.
func (s *Store) evictable(e *entry) bool { return s.idle(e) && !e.is(isSmall) }

// idle reports whether an entry is neither pinned nor being filled; s.mu is held.
func (s *Store) idle(e *entry) bool { return !e.is(isPinned) && s.active[e.num()] == nil }

// change is the one way to change what an entry counts for; s.mu is held.
func (s *Store) change(e *entry, how func()) {
	s.tally(e, -1)
	was := s.idle(e)
	how()
	s.tally(e, +1)
	if !was && s.idle(e) {
		s.queueOf(e).Wake(&e.node)
	}
}

// tally adds an entry to the sums, or takes it out; s.mu is held.
func (s *Store) tally(e *entry, sign int64) {
	n := sign * e.reserved()
	svc, v := s.services[e.service], s.volumes[e.volume]
	s.used += n
	svc.bytes += n
	v.bytes += n
	switch {
	case s.evictable(e):
		svc.loose += n
		v.loose += n
	case s.idle(e):
		svc.crumb += n
	}
	if e.is(isComplete) {
		s.whole += int(sign)
	}
}

// resize says how large an object is, or how much is here of one of unknown
// size; s.mu is held.
func (s *Store) resize(e *entry, size, here int64) {
	s.change(e, func() { e.size, e.here = size, here })
	if s.objects[e.num()] == e {
		s.queueOf(e).Resize(&e.node, e.reserved())
	}
}

// makeRoom finds a volume (or takes the one given) where need more bytes fit
// under every bound, evicting what is least likely to be asked for again; never
// what is pinned or being filled. What it evicts is out of every list and still
// in the index and on disk: evicting sees to that. If even that is too little, nothing is
// evicted: a claim to be huge must not empty the store. s.editing and s.mu are
// held.
func (s *Store) makeRoom(need int64, svc *service, on *volume) (*volume, []*entry, error) {
	if err := s.indexTakes(); err != nil && need > 0 {
		return nil, nil, err
	}
	v, room, err := s.roomiest(need, on)
	if err != nil {
		return nil, nil, err
	}
	// Sums are written so that no need, however large, overflows.
	over := need - (s.cfg.MaxBytes - s.used)
	short := need - room
	quota := int64(0)
	if svc != nil && svc.quota > 0 {
		quota = need - (svc.quota - svc.bytes)
	}
	loose := int64(0)
	for _, each := range s.services {
		loose += each.loose
	}
	switch {
	case need == 0: // whatever can go, goes
	case quota > 0 && quota > svc.loose+svc.crumb:
		return nil, nil, fmt.Errorf("no room for %d bytes: the quota of %s is %d, and the rest of it is pinned or being filled: %w", need, svc.name, svc.quota, content.ErrFull)
	case over > loose:
		return nil, nil, fmt.Errorf("no room for %d bytes (%d over store.max_bytes, the rest is pinned or being filled): %w", need, over-loose, content.ErrFull)
	case short > v.loose:
		return nil, nil, fmt.Errorf("no room for %d bytes on %s (%d are missing with %d kept free, the rest is pinned or being filled): %w", need, v.dir, short-v.loose, v.floor(), content.ErrFull)
	}
	var victims []*entry
	for over > 0 || short > 0 || quota > 0 {
		e := s.victim(svc, quota > 0, v, over <= 0 && quota <= 0)
		if e == nil {
			break
		}
		n := e.reserved()
		over -= n
		if !e.is(isSmall) { // else the disk has no more room before its segment goes
			s.volumeOf(e).regain(n)
		}
		if e.volume == v.num && !e.is(isSmall) {
			short -= n
		}
		if svc != nil && s.services[e.service] == svc {
			quota -= n
		}
		s.evict(e)
		victims = append(victims, e)
	}
	if need == 0 && max(over, short, quota) > 0 {
		err = fmt.Errorf("%d bytes over the bounds, all of it pinned or being filled: %w", max(over, short, quota), content.ErrFull)
	}
	return v, victims, err
}

// roomiest picks the writable volume with the most room, counting what could be
// evicted only if none has enough without; s.mu is held.
func (s *Store) roomiest(need int64, on *volume) (best *volume, room int64, err error) {
	var why error
	rank := int64(0)
	for _, v := range s.volumes {
		if on != nil && v != on {
			continue
		}
		sick, gone := v.state()
		tidying := on != nil && need == 0 && !gone && errors.Is(sick, content.ErrFull) // removing needs no room
		if sick != nil && !tidying {
			why = cmp.Or(why, unwritable(v.dir, sick))
			continue
		}
		here := v.room()
		order := here
		if here < need {
			order = min(need-1, here+v.loose) // behind every volume that need not evict
		}
		if best == nil || order > rank {
			best, rank, room = v, order, here
		}
	}
	if best == nil {
		return nil, 0, cmp.Or(why, fmt.Errorf("no volume can be written: %w", content.ErrFull))
	}
	return best, room, nil
}

// victim says who goes next: of one service if that is over its quota, on one
// volume if only that is short. Of several services it is the object that was
// idle the longest. s.mu is held.
func (s *Store) victim(svc *service, only bool, v *volume, here bool) *entry {
	skip := func(n *evict.Node) bool {
		e := s.objects[n.Num]
		return e == nil || !s.idle(e) || here && e.volume != v.num
	}
	var found *entry
	ask := func(q *evict.Queue) {
		n := q.Victim(skip)
		for tries := 0; n == nil && tries < 1000; tries++ { // nil may mean "not found yet"
			n = q.Victim(skip)
		}
		if n == nil {
			return
		}
		if e := s.objects[n.Num]; found == nil || e.used < found.used {
			found = e
		}
	}
	for _, each := range s.services {
		if only && each != svc {
			continue
		}
		if each.loose > 0 {
			ask(each.queue)
		}
		if only && each.crumb > 0 { // a small one counts for its service, and needs room on the disk until its segment goes
			ask(each.small)
		}
	}
	return found
}

// evict takes an entry out of every list, to make room; s.mu is held.
func (s *Store) evict(e *entry) {
	s.queueOf(e).Evict(&e.node)
	s.forgetEntry(e)
	s.counts.Evicted++
	s.counts.EvictedBytes += e.reserved()
}

// unlist takes evicted objects out of the index; s.editing is held.
func (s *Store) unlist(victims []*entry) {
	ed := s.books.edit()
	for _, e := range victims {
		ed.object(e.num())
		s.log.Debug("evicted", "object", e.num(), "bytes", e.reserved())
	}
	ed.done()
}

// forgetEntry takes an entry out of every list but its queue; s.mu is held.
func (s *Store) forgetEntry(e *entry) {
	s.tally(e, -1)
	num := e.num()
	delete(s.objects, num)
	delete(s.served, num)
	delete(s.stale, num)
	delete(s.cards, num)
	delete(s.checked, num)
	delete(s.proofs, num)
	delete(s.books.moving, num)
	s.bodies.drop(num)
}

// discard removes the bodies of evicted objects.
func (s *Store) discard(victims []*entry) {
	touched := map[*volume]bool{}
	for _, e := range victims {
		if e.is(isSmall) {
			continue // its segment goes as a whole
		}
		v := s.volumeOf(e)
		touched[v] = true
		if err := v.Remove(e.num()); err != nil {
			v.suspect(err)
			s.log.Warn("failed to remove an evicted body", "object", e.num(), "err", err)
		}
	}
	for v := range touched {
		v.measure()
	}
}

// editLock is a lock under which objects may be forgotten. Their bodies go when
// it is let go of: a large file takes its time to be removed.
type editLock struct {
	sync.Mutex
	doomed  []*entry
	discard func(doomed []*entry)
}

// Unlock lets go of the lock and then removes bodies; Store.mu is not held.
func (l *editLock) Unlock() {
	doomed := l.doomed
	l.doomed = nil
	l.Mutex.Unlock()
	if len(doomed) > 0 {
		l.discard(doomed)
	}
}

// forget drops an object that is not being filled, and its body; s.editing is
// held.
func (s *Store) forget(num uint64) {
	s.mu.Lock()
	e := s.objects[num]
	if e != nil {
		s.queueOf(e).Remove(&e.node)
		s.forgetEntry(e)
	}
	s.mu.Unlock()
	ed := s.books.edit()
	ed.object(num)
	ed.done()
	if e == nil {
		return
	}
	if _, gone := s.volumeOf(e).state(); !gone {
		s.editing.doomed = append(s.editing.doomed, e)
	}
}

// evicting runs pick with s.editing and s.mu held, and then removes what it has
// evicted from the index and the disk.
func (s *Store) evicting(pick func() ([]*entry, error)) error {
	s.editing.Lock()
	s.mu.Lock()
	victims, err := pick()
	s.mu.Unlock()
	s.unlist(victims)
	s.editing.Unlock()
	s.discard(victims)
	return err
}

// grow counts what an object of unknown size, or a part, takes by now, and makes
// sure that it does not eat the last of the disk.
func (s *Store) grow(num uint64, here int64) error {
	if e, ok := s.look(num); ok {
		s.volumeOf(&e).measure()
	}
	return s.evicting(func() ([]*entry, error) {
		e, ok := s.objects[num]
		if !ok || e.size >= 0 && !e.is(isPart) || e.is(isSmall) {
			return nil, nil
		}
		s.resize(e, e.size, here)
		_, victims, err := s.makeRoom(0, s.services[e.service], s.volumeOf(e))
		return victims, err
	})
}

// reserve says how large an object of unknown size turned out to be, or that all
// of one is wanted of which only a part was.
func (s *Store) reserve(num uint64, size int64) error {
	return s.evicting(func() ([]*entry, error) {
		e, ok := s.objects[num]
		if !ok {
			return nil, fmt.Errorf("reserve room for object %d: %w", num, ErrNotFound)
		}
		_, victims, err := s.makeRoom(max(0, size-e.reserved()), s.services[e.service], s.volumeOf(e))
		if err == nil {
			s.change(e, func() { e.set(isPart, false) })
			s.resize(e, size, e.here)
			ed := s.books.edit()
			ed.entry(e)
			ed.done()
		}
		return victims, err
	})
}
