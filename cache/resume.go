package cache

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// OpenFill returns the fill of an incomplete object: the running one, or a new
// one that goes on from the durable blocks and that the caller starts. layer
// proves the blocks; it may be nil, and a running fill keeps the one it has.
func (s *Store) OpenFill(num uint64, layer *content.Layer) (*Fill, error) {
	for {
		s.editing.Lock()
		f, err := s.openFill(num, layer)
		s.editing.Unlock()
		if err != nil || !f.isFailing() {
			return f, err
		}
		<-f.Done() // then another can go on
	}
}

// openFill is OpenFill, and may find a fill that is about to fail; s.editing is
// held.
func (s *Store) openFill(num uint64, layer *content.Layer) (*Fill, error) {
	s.mu.Lock()
	e, f, closed := s.objects[num], s.active[num], s.closed
	s.mu.Unlock()
	r := s.books.record(num)
	switch {
	case closed:
		return nil, fmt.Errorf("resume object %d: %w", num, ErrClosed)
	case f != nil:
		return f, nil
	case e == nil || e.is(isComplete) || r == nil:
		return nil, fmt.Errorf("resume object %d: %w", num, ErrNotFound)
	}
	if err := s.writable(e); err != nil {
		return nil, fmt.Errorf("resume %s: %w", r.Title, err)
	}
	f, err := s.resume(e, r, layer)
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", r.Title, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.checked[num]; set != nil {
		for _, done := range *set {
			f.unchecked.Remove(done)
		}
	}
	if s.closed {
		return nil, errors.Join(fmt.Errorf("resume %s: %w", r.Title, ErrClosed), f.body.close())
	}
	s.change(e, func() { s.active[num] = f })
	return f, nil
}

// resume makes a fill that goes on from what is here; s.editing is held.
func (s *Store) resume(e *entry, r *record, layer *content.Layer) (*Fill, error) {
	b, err := s.openBody(e)
	if err != nil {
		return nil, err
	}
	if layer == nil {
		layer = ownLayer(b, e, r)
	}
	if layer != nil {
		r, err = s.promise(e, r, layer)
	}
	var have content.Ranges
	if err == nil && b != nil {
		have, err = b.Resume(e.size, layer)
	}
	if err != nil && b != nil {
		err = errors.Join(err, b.Close())
	}
	if err != nil {
		return nil, err
	}
	return newFill(s, e, r, b, layer, have), nil
}

// openBody opens the blob of an incomplete object, nil if that is filled in
// memory. If it is not there, for instance because the power was cut before it
// was durable, a pinned object is begun anew, any other forgotten; s.editing is
// held.
func (s *Store) openBody(e *entry) (*disk.Blob, error) {
	if e.is(isSmall) {
		return nil, nil
	}
	v := s.volumeOf(e)
	b, err := v.Open(e.num())
	switch {
	case !isLost(err):
		v.suspect(err)
		return b, err
	case e.is(isPinned):
		s.discard([]*entry{e}) // one of its two files may be there
		return v.create(e.num(), e.size, e.is(isPart))
	}
	s.forget(e.num())
	return nil, errors.Join(ErrNotFound, err)
}

// ownLayer proves what is fetched again of an object that was whole once, or
// that is so small that its identity proves it; else it is nil.
func ownLayer(b *disk.Blob, e *entry, r *record) *content.Layer {
	id := cmp.Or(r.Promised, r.ID)
	var l *content.Layer
	switch {
	case id.IsZero():
		return nil
	case b == nil:
		l = &content.Layer{Size: id.Size, Hashes: []content.Hash{id.Root}}
	case r.ID.IsZero():
		return nil
	default:
		l, _ = b.Layer(e.size) // without it nothing is proved before the end
	}
	if l == nil || l.Check(id) != nil {
		return nil
	}
	return l
}

// promise takes the identity that a layer adds up to for a partial object, or
// checks it against the one promised before; s.editing is held.
func (s *Store) promise(e *entry, r *record, layer *content.Layer) (*record, error) {
	if promised := cmp.Or(r.Promised, r.ID); !promised.IsZero() {
		return r, layer.Check(promised)
	}
	id := content.ID{Root: layer.Root(), Size: e.size}
	if err := layer.Check(id); err != nil {
		return r, err
	}
	r = r.clone()
	r.Promised = id
	ed := s.books.edit()
	ed.record(e.num(), r)
	ed.done()
	return r, nil
}
