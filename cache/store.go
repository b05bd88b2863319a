// Package cache is the store: bodies on one or several disks, an index of names
// and records, and one Fill for each object that is on its way in, however many
// readers drink from it.
//
// The way of a byte through it: a content.Source writes to a [Fill] (a
// content.Sink), which makes ranges readable, wakes every [Reader] and later
// makes them durable; a complete object earns its identity. The store knows
// nothing of HTTP, torrents or multicast. It refuses to call anything complete
// that has not been hashed, and to hand out after a start what it has not
// checked since. Start reading at [Store.Create] and [Fill.Start]; what is kept
// of an object is in entry.go (memory) and books.go (index).
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// Errors that callers tell apart.
var (
	// ErrNotFound says that the store has no such object or name.
	ErrNotFound = errors.New("not in the store")
	// ErrIncomplete says that an object is not whole and nothing is filling it.
	ErrIncomplete = errors.New("object is incomplete and nothing is filling it")
	// ErrClosed says that the store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrDenied says that an object was taken down and may not come back.
	ErrDenied = errors.New("taken down")
)

// Store keeps objects. All methods are safe for concurrent use.
type Store struct {
	cfg    Config // Store.mu guards MaxBytes and SmallBytes
	asked  Config // as it was given
	log    *slog.Logger
	books  *books
	bodies *ram[uint64, []byte] // of small objects, read lately
	denied *denials

	ctx    context.Context // ends at Close; fills live in it
	cancel context.CancelFunc
	fills  sync.WaitGroup
	kicked chan struct{} // capacity 1: housekeeping is wanted before its time
	name   string        // of the index
	apart  func(dir string) bool
	absent []VolumeStats // what this store stands in for

	late    atomic.Int64  // bytes of running fills whose hashes were put off
	hashing chan struct{} // capacity 1: one fill makes them at a time

	// editing makes changes of names and records one at a time. It is taken
	// before mu and Fill.mu, never after, and not held over work on bodies.
	editing editLock

	// mu guards what follows. It is taken before a Fill's own lock, never after,
	// and never held over disk I/O.
	mu       sync.Mutex
	volumes  []*volume
	services []*service // the first is for whatever has no quota
	objects  map[uint64]*entry
	active   map[uint64]*Fill
	checked  map[uint64]*content.Ranges // blocks of large objects that were hashed since the start
	proofs   map[uint64]*content.Layer  // of damaged objects, until they are repaired
	repairer Repairer
	closed   bool
	whole    int   // objects that are complete
	used     int64 // bytes that objects take or have reserved
	next     uint64
	numbers  uint64 // numbers below it are spoken for in the index
	first    uint64 // number given out since the start
	totals   totals
	counted  bool                        // the totals are not what the index has
	served   map[uint64]map[string]int64 // figures that the records have not got
	stale    map[uint64]bool             // entries whose time of use the index has not got
	cards    map[uint64]bool             // objects whose card is out of date
	counts   counts
}

// Spec says what a new object is.
type Spec struct {
	content.Object
	// Title is what people see: a file name or an address.
	Title string
	// Public objects may be had under other names than the one they came by.
	Public bool
	// Part says that readers will ask for ranges of it: room is kept for what
	// comes, and for all of it when all is wanted. See [Fill.OnDemand].
	Part bool
	// Vouched says who vouches for the bytes, for `explain`: a signature, a
	// torrent. It may be empty.
	Vouched string
}

// check makes sure that size, identity and layer are of one object, and takes
// the size from the identity if it was not said.
func (spec *Spec) check() error {
	spec.Size = max(spec.Size, content.UnknownSize)
	spec.Title, spec.Vouched = clip(spec.Title, maxTitle), clip(spec.Vouched, maxTitle)
	if !spec.ID.IsZero() {
		if spec.Size == content.UnknownSize {
			spec.Size = spec.ID.Size
		}
		if spec.Size != spec.ID.Size || spec.Size < 0 {
			return fmt.Errorf("size is said to be %d, its identity says %d", spec.Size, spec.ID.Size)
		}
	}
	if spec.Layer != nil {
		return spec.Layer.Check(spec.ID)
	}
	return nil
}

// Create makes an empty object under a name and returns the Fill that brings it
// in; the caller starts it. An older object loses the name. meta is kept with
// the name and means nothing to the store. The error wraps content.ErrFull if
// there is no room, ErrDenied if the name or the bytes were taken down.
func (s *Store) Create(spec Spec, called string, meta []byte) (*Fill, error) {
	fail := func(err error) (*Fill, error) { return nil, fmt.Errorf("create %s: %w", spec.Title, err) }
	if err := spec.check(); err != nil {
		return fail(err)
	}
	if err := checkName(called, meta); err != nil {
		return fail(err)
	}
	if err := s.denied.check(called, spec.ID); err != nil {
		return fail(err)
	}
	e, err := s.admit(&spec, called)
	if err != nil {
		return fail(err)
	}
	var b *disk.Blob
	if !e.is(isSmall) {
		v := s.volumeOf(e)
		b, err = v.create(e.num(), spec.Size, e.is(isPart))
		if v.pledge(-e.reserved()); err != nil {
			s.unadmit(e)
			return fail(err)
		}
	}
	now := time.Now()
	r := &record{Promised: spec.ID, Title: spec.Title, Vouched: spec.Vouched, Created: now}

	s.editing.Lock()
	defer s.editing.Unlock()
	f := newFill(s, e, r, b, spec.Layer, nil)
	ed := s.bind(e.num(), r, called, meta)
	err = s.denied.check(called, spec.ID) // it may have been taken down meanwhile
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.tally(e, -1)
		return fail(errors.Join(err, f.body.close()))
	}
	s.objects[e.num()] = e
	s.change(e, func() { s.active[e.num()] = f })
	s.queueOf(e).Add(&e.node, e.reserved())
	ed.entry(e)
	ed.done()
	s.cards[e.num()] = true
	return f, nil
}

// admit gives a new object its number, its service and its room.
func (s *Store) admit(spec *Spec, called string) (e *entry, err error) {
	err = s.evicting(func() ([]*entry, error) {
		if s.closed {
			return nil, ErrClosed
		}
		if err := s.indexTakes(); err != nil {
			return nil, err
		}
		e = &entry{size: spec.Size, trust: uint8(spec.Trust), service: s.serviceFor(called)}
		e.node.Num, e.node.Ghost = s.nextNumber(), ghostOf(called)
		e.set(isPublic, spec.Public)
		e.set(isSmall, spec.Size <= SmallObject) // also if it is not known
		e.touch(time.Now())
		e.set(isPart, spec.Part && spec.Size > SmallObject)
		v, victims, err := s.makeRoom(e.reserved(), s.services[e.service], nil)
		if err == nil {
			e.volume = v.num
			s.tally(e, +1)
			if !e.is(isSmall) {
				v.pledge(e.reserved()) // until the file system counts it itself
			}
		}
		return victims, err
	})
	return e, err
}

// unadmit gives the room back.
func (s *Store) unadmit(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally(e, -1)
}

// nextNumber gives out a number that no object ever had, not even one that a
// crash has lost; s.mu is held.
func (s *Store) nextNumber() uint64 {
	num := s.next
	s.next++
	if s.next+numberStep/2 > s.numbers {
		s.numbers = s.next + numberStep
		ed := s.books.edit()
		ed.setting("numbers", s.numbers)
		ed.done()
	}
	return num
}

// numberStep is how many numbers are spoken for at a time.
const numberStep = 1 << 20

// Lookup finds the object that a name stands for, and what was kept with the
// name.
func (s *Store) Lookup(called string) (info Info, meta []byte, ok bool) {
	n := s.books.named(called)
	if n == nil {
		return Info{}, nil, false
	}
	info, ok = s.Get(n.Num)
	return info, slices.Clone(n.Meta), ok
}

// ByID finds a complete public object by its identity.
func (s *Store) ByID(id content.ID) (Info, bool) {
	num, ok := s.books.identified(id)
	if !ok {
		return Info{}, false
	}
	info, ok := s.Get(num)
	return info, ok && info.Complete && info.Public && info.ID == id
}

// Get gives what is known of an object.
func (s *Store) Get(num uint64) (Info, bool) {
	r := s.books.record(num) // may have to be read from disk: before the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok || r == nil {
		return Info{}, false
	}
	return s.info(e, r), true
}

// look gives a copy of an entry.
func (s *Store) look(num uint64) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok {
		return entry{}, false
	}
	return *e, true
}

// List gives every object, newest first. It reads all records: it is for people
// and their tools, not for requests.
func (s *Store) List() []Info {
	nums := s.numbersOf()
	all := make([]Info, 0, len(nums))
	for _, num := range slices.Backward(nums) {
		if info, ok := s.Get(num); ok {
			all = append(all, info)
		}
	}
	return all
}

// numbersOf lists the objects, oldest first.
func (s *Store) numbersOf() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// spawn does work that Close waits for; it returns false, and does nothing, if
// the store is closed.
func (s *Store) spawn(work func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.fills.Go(work)
	return true
}

// Layer gives the proof of a complete object, block by block.
func (s *Store) Layer(num uint64) (*content.Layer, error) {
	fail := func(err error) (*content.Layer, error) { return nil, fmt.Errorf("layer of object %d: %w", num, err) }
	e, ok := s.look(num)
	if !ok || !e.is(isComplete) {
		return fail(ErrNotFound)
	}
	if e.is(isSmall) {
		body, err := s.smallBody(&e)
		if err != nil {
			return fail(err)
		}
		return content.NewLayer(e.size, leavesOf(body)), nil
	}
	b, err := s.volumeOf(&e).Open(num)
	if err != nil {
		return fail(err)
	}
	defer b.Close()
	l, err := b.Layer(e.size)
	if err != nil {
		return fail(err)
	}
	return l, nil
}
