package cache

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Info is a snapshot of what the store knows of an object.
type Info struct {
	Num uint64 `json:"num"`
	// ID is the identity that the bytes have earned, or that was promised for
	// an object still incomplete; zero if neither.
	ID content.ID `json:"id,omitzero"`
	// Size in bytes, or content.UnknownSize.
	Size     int64         `json:"size"`
	Complete bool          `json:"complete"`
	Filling  bool          `json:"filling"`
	Trust    content.Trust `json:"trust"`
	Public   bool          `json:"public"`
	Pinned   bool          `json:"pinned"`
	Title    string        `json:"title"`
	Names    []string      `json:"names"`
	Created  time.Time     `json:"created"`
	Used     time.Time     `json:"used"`
	// Readable is how many bytes readers may have now.
	Readable int64 `json:"readable"`
	// From counts the bytes that each Source brought, by its name.
	From map[string]int64 `json:"from"`
	// Served counts the bytes that each outlet handed out, by its name.
	Served map[string]int64 `json:"served"`
}

// info makes the snapshot; s.mu is held.
func (s *Store) info(r *record) Info {
	i := Info{
		Num: r.Num, ID: r.ID, Size: r.Size, Complete: r.Complete, Trust: r.Trust, Public: r.Public, Pinned: r.Pinned,
		Title: r.Title, Names: slices.Sorted(maps.Keys(r.Names)), Created: r.Created, Used: r.Used,
		From: maps.Clone(r.From), Served: maps.Clone(r.Served),
	}
	if i.ID.IsZero() {
		i.ID = r.Promised
	}
	if r.Complete {
		i.Readable = r.Size
	}
	if f := s.active[r.Num]; f != nil {
		f.describe(&i)
	}
	return i
}

// SetName gives an object one more name, or new meta for a name that it has. An
// older object loses the name.
func (s *Store) SetName(num uint64, name string, meta []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.objects[num]
	if !ok {
		return fmt.Errorf("name object %d: %w", num, ErrNotFound)
	}
	return s.bind(r, name, meta)
}

// bind gives r a name and saves both records concerned; s.mu is held.
func (s *Store) bind(r *record, name string, meta []byte) error {
	changed := []*record{r}
	if old, ok := s.names[name]; ok && old != r.Num {
		delete(s.objects[old].Names, name)
		changed = append(changed, s.objects[old])
	}
	s.names[name] = r.Num
	r.Names[name] = slices.Clone(meta)
	return s.index.put(changed...)
}

// DropName takes a name away; the object stays until its room is needed.
func (s *Store) DropName(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	num, ok := s.names[name]
	if !ok {
		return fmt.Errorf("drop name %s: %w", name, ErrNotFound)
	}
	delete(s.names, name)
	delete(s.objects[num].Names, name)
	return s.index.put(s.objects[num])
}

// Pin keeps an object whatever room is needed, or lets go of it again. It is
// durable when Pin returns.
func (s *Store) Pin(num uint64, pinned bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.objects[num]
	if !ok {
		return fmt.Errorf("pin object %d: %w", num, ErrNotFound)
	}
	was := r.Pinned
	r.Pinned = pinned
	if err := s.index.put(r); err != nil {
		r.Pinned = was
		return err
	}
	return s.index.sync()
}

// Unpublish takes an object back from every outlet but the name it came by: an
// answer that was for everybody no longer is.
func (s *Store) Unpublish(num uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.objects[num]
	if !ok {
		return fmt.Errorf("unpublish object %d: %w", num, ErrNotFound)
	}
	r.Public = false
	if s.ids[r.ID] == num {
		delete(s.ids, r.ID)
	}
	return s.index.put(r)
}

// Evict removes an object and its names. A running fill is stopped first;
// readers that are open go on to the end of what they have.
func (s *Store) Evict(num uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.active[num] != nil { // another may begin while this one ends
		f := s.active[num]
		s.mu.Unlock()
		f.stop(fmt.Errorf("object %d was evicted", num))
		<-f.Done()
		s.mu.Lock()
	}
	if _, ok := s.objects[num]; !ok {
		return fmt.Errorf("evict object %d: %w", num, ErrNotFound)
	}
	return s.remove(num)
}

// remove forgets an object: index first, so that a crash leaves a blob that the
// sweep finds and never a name without bytes. s.mu is held.
func (s *Store) remove(num uint64) error {
	r := s.objects[num]
	gone := s.gone.plus(r)
	if err := s.index.drop(num, gone); err != nil {
		return err
	}
	s.gone = gone
	for name := range r.Names {
		delete(s.names, name)
	}
	if s.ids[r.ID] == num {
		delete(s.ids, r.ID)
	}
	s.used -= r.reserved()
	delete(s.objects, num)
	delete(s.dirty, num)
	return removeBlob(s.cfg.Dir, num)
}

// complete records that a fill is done: the object has earned its identity. If
// a public object with the same bytes is here already, the names move to that
// one and the spare blob goes. The fill learns its new number before anybody
// can miss the old one.
func (s *Store) complete(f *Fill, root content.Hash, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.active, f.num)
	r, ok := s.objects[f.num]
	if !ok {
		return fmt.Errorf("complete object %d: %w", f.num, ErrNotFound)
	}
	id := content.ID{Root: root, Size: size}
	if !r.Promised.IsZero() && r.Promised != id {
		err := fmt.Errorf("complete %s: bytes add up to %s, promised was %s: %w", r.Title, id, r.Promised, content.ErrBadPiece)
		return errors.Join(err, s.remove(r.Num))
	}
	s.resize(r, size, size)
	r.ID, r.Complete, r.From = id, true, f.from()
	if !r.Public || size == 0 {
		return s.index.put(r)
	}
	if twin, ok := s.ids[id]; ok {
		f.moved(twin)
		return s.merge(r, s.objects[twin])
	}
	s.ids[id] = r.Num
	return s.index.put(r)
}

// merge moves what the spare object has to its twin and removes the spare;
// s.mu is held.
func (s *Store) merge(spare, twin *record) error {
	for name, meta := range spare.Names {
		twin.Names[name] = meta
		s.names[name] = twin.Num
	}
	for source, n := range spare.From {
		twin.From[source] += n
	}
	for outlet, n := range spare.Served {
		twin.Served[outlet] += n
	}
	twin.Trust = max(twin.Trust, spare.Trust)
	twin.Pinned = twin.Pinned || spare.Pinned
	if err := s.index.merge(twin, spare.Num); err != nil {
		return err
	}
	s.used -= spare.reserved()
	delete(s.objects, spare.Num)
	delete(s.dirty, spare.Num)
	s.log.Info("merged equal objects", "object", twin.Num, "title", twin.Title)
	return removeBlob(s.cfg.Dir, spare.Num)
}

// abandon takes a fill that ended early off the list; its durable blocks stay
// for the next one.
func (s *Store) abandon(f *Fill, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, f.num)
	r, ok := s.objects[f.num]
	if !ok {
		return
	}
	s.resize(r, size, f.here())
	r.From = f.from()
	if err := s.index.put(r); err != nil {
		s.log.Error("failed to save an unfinished object", "object", r.Num, "err", err)
	}
}
