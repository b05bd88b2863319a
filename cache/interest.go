package cache

import (
	"errors"
	"time"
)

// errUnwanted ends a fill that nobody waits for any more.
var errUnwanted = errors.New("everybody has left, and most was still to come")

// A fill goes on when its last reader has left, unless much is to come and
// little is here: nobody who closed a window wants the rest of an image over
// the uplink of a school. What is here stays, and the next request goes on.
const (
	unwantedAfter = 30 * time.Second
	nearlyDone    = 64 << 20 // bytes still to come that are always fetched
	wellBegun     = 4        // one part in so many is here: the rest is fetched
)

// enter notes a reader.
func (f *Fill) enter(v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.views[v] = struct{}{}
	f.followed()
	if f.idle != nil {
		f.idle.Stop()
		f.idle = nil
	}
}

// leave takes a reader off. After the last one the fill may end.
func (f *Fill) leave(v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.views, v)
	f.leaveTrail(v)
	if len(f.views) == 0 && !f.kept && !f.isDone() && f.idle == nil {
		if f.sparse {
			f.idle = time.AfterFunc(lull, f.doze)
			return
		}
		f.idle = time.AfterFunc(unwantedAfter, f.judge)
	}
}

// Keep makes the fill go on to the end whoever leaves.
func (f *Fill) Keep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = true
	f.wantAll()
}

// Keep makes the fill of an object, if one runs, go on to the end whoever
// leaves.
func (s *Store) Keep(num uint64) {
	s.mu.Lock()
	f := s.active[num]
	s.mu.Unlock()
	if f != nil {
		f.Keep()
	}
}

// judge ends the fill if nobody has come back and the rest is not worth it.
func (f *Fill) judge() {
	e, ok := f.store.look(f.num)
	f.mu.Lock()
	here := f.readable.Len()
	left := int64(len(f.views)) == 0 && !f.kept && !f.isDone()
	worth := !f.sparse && f.size >= 0 && (f.size-here <= nearlyDone || here >= f.size/wellBegun)
	idle := !f.started // whoever made it has left without starting it
	f.mu.Unlock()
	switch {
	case !ok || !left:
	case idle:
		f.store.spawn(func() { f.stop(errUnwanted) })
	case !worth && !e.is(isPinned):
		f.cancel(errUnwanted)
	case e.is(isPinned):
		f.Keep()
	}
}
