package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// Repairer finds Sources that bring again what was damaged of an object, whose
// names and meta it is given by number. The blocks that come are proved against
// the object's own tree.
type Repairer interface {
	Repair(ctx context.Context, info Info) ([]content.Source, error)
}

// SetRepairer says who repairs damaged objects. Without one they are repaired
// when they are next asked for.
func (s *Store) SetRepairer(r Repairer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repairer = r
}

// isChecked reports whether a range of an object was hashed since the start.
func (s *Store) isChecked(num uint64, r content.Range) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok {
		return false
	}
	set := s.checked[num]
	return e.is(isChecked) || set != nil && set.Covers(r)
}

// noteChecked says that a range was hashed and is right.
func (s *Store) noteChecked(num uint64, r content.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok {
		return
	}
	set := s.checked[num]
	if set == nil {
		set = &content.Ranges{}
		s.checked[num] = set
	}
	set.Add(r)
	if set.Covers(content.Range{End: e.size}) {
		e.set(isChecked, true)
		delete(s.checked, num)
	}
}

// checkBlock makes sure that a block of a complete object still has the bytes
// that came in, once after each start. If it has not, the block is fetched
// again: the fill that does it is returned.
func (s *Store) checkBlock(num uint64, block content.Range) (*Fill, error) {
	if s.isChecked(num, block) {
		return nil, nil
	}
	e, ok := s.look(num)
	if !ok {
		return nil, ErrNotFound
	}
	if !e.is(isComplete) { // another reader has met the damage
		return s.mend(num)
	}
	err := s.inspect(&e, block)
	switch {
	case err == nil:
		s.noteChecked(num, block)
		return nil, nil
	case errors.Is(err, disk.ErrDamaged):
		return s.mend(num)
	case isLost(err):
		s.editing.Lock()
		defer s.editing.Unlock()
		if now, ok := s.look(num); ok && now.is(isComplete) {
			s.miss(num)
		}
		return nil, errors.Join(ErrNotFound, err)
	}
	return nil, err
}

// inspect hashes a block against the object's tree. A slot of the tree that is
// damaged is made again from the body, if that proves to be the object's. A
// block that is damaged is marked as missing; the error then wraps
// disk.ErrDamaged.
func (s *Store) inspect(e *entry, block content.Range) error {
	v := s.volumeOf(e)
	b, err := v.Open(e.num())
	if err != nil {
		v.suspect(err)
		return err
	}
	defer b.Close()
	i := block.Off / content.BlockSize
	err = b.Check(i, e.size)
	slot := errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrMissing)
	switch {
	case err == nil:
		return nil
	case slot && s.mendSlot(b, e, block):
		s.noteDamage(e.num(), block.Off)
		return nil
	case !slot && !errors.Is(err, disk.ErrDiffers):
		if err := v.Probe(); err != nil { // not a bad sector, but the whole disk
			v.suspect(err)
			return err
		}
	}
	s.noteDamage(e.num(), block.Off)
	if err := s.breakBlock(b, e, i); err != nil {
		return err
	}
	return fmt.Errorf("block %d of object %d: %w", i, e.num(), disk.ErrDamaged)
}

// proofOf makes an object's layer from its sidecar; nil if that does not add up
// to its identity.
func (s *Store) proofOf(b *disk.Blob, e *entry) *content.Layer {
	l, err := b.Layer(e.size)
	if err != nil || !s.isLayerOf(l, e) {
		return nil
	}
	return l
}

// isLayerOf reports whether a layer adds up to an object's identity.
func (s *Store) isLayerOf(l *content.Layer, e *entry) bool {
	r := s.books.record(e.num())
	return r != nil && l.Check(r.ID) == nil
}

// mendSlot takes the hashes of a block from the body and keeps them if the
// whole adds up to the object's identity with them. Nothing is put before that:
// a slot made of damaged bytes would vouch for them.
func (s *Store) mendSlot(b *disk.Blob, e *entry, block content.Range) bool {
	i := block.Off / content.BlockSize
	leaves, err := b.HashBlock(block)
	if err != nil {
		return false
	}
	l, err := b.LayerWith(e.size, i, leaves)
	return err == nil && s.isLayerOf(l, e) && b.PutSlot(i, leaves) == nil && b.SyncTree() == nil
}

// breakBlock says that a block of a complete object is missing. The proof of
// the block stays in memory until it has come again.
func (s *Store) breakBlock(b *disk.Blob, seen *entry, i int64) error {
	layer := s.proofOf(b, seen)
	s.editing.Lock()
	defer s.editing.Unlock()
	num := seen.num()
	ed := s.unmakeWhole(num)
	s.mu.Lock()
	e, ok := s.objects[num]
	if !ok {
		s.mu.Unlock()
		return ErrNotFound
	}
	if f := s.active[num]; f != nil { // another block is being mended already
		s.mu.Unlock()
		err := b.Forget(i) // first, or it would be the block that has come again
		f.lose(content.Block(i, seen.size))
		return err
	}
	if e.is(isChecked) {
		s.checked[num] = &content.Ranges{{End: e.size}}
	}
	if set := s.checked[num]; set != nil {
		set.Remove(content.Block(i, e.size))
	}
	if layer != nil {
		s.proofs[num] = layer
	}
	s.change(e, func() { e.set(isComplete|isChecked, false) })
	ed.entry(e)
	ed.done()
	s.mu.Unlock()
	return b.Forget(i)
}

// unmakeWhole is the change that something is missing of an object that was
// complete; its entry is still to be put into it. s.editing is held until it is
// done.
func (s *Store) unmakeWhole(num uint64) *edit {
	ed := s.books.edit()
	if r := s.books.record(num); s.books.owns(num, r) {
		ed.drop(identityKey(r.ID))
	}
	return ed
}

// miss takes note that nothing is left of the body of a complete object. The
// object stays, to be fetched again, if it is pinned, or small and somebody
// repairs; else it is forgotten. s.editing is held.
func (s *Store) miss(num uint64) (stays bool) {
	r, ed := s.books.record(num), s.unmakeWhole(num)
	s.mu.Lock()
	e := s.objects[num]
	stays = e != nil && (e.is(isPinned) || r != nil && e.is(isSmall) && s.repairer != nil)
	if stays {
		delete(s.checked, num)
		delete(s.books.moving, num)
		s.bodies.drop(num)
		s.change(e, func() {
			e.place, e.here = disk.Place{}, 0
			e.set(isComplete|isChecked, false)
		})
		ed.entry(e)
		ed.done()
	}
	s.mu.Unlock()
	if !stays {
		s.forget(num)
	}
	return stays
}

// mending gives the fill that brings an object again, if one does.
func (s *Store) mending(num uint64) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[num]
}

// mend fetches again what is missing of an object that was complete, and returns
// the fill that does.
func (s *Store) mend(num uint64) (*Fill, error) {
	s.mu.Lock()
	layer, repairer := s.proofs[num], s.repairer
	s.mu.Unlock()
	f, err := s.OpenFill(num, layer)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	mine := !f.started && !f.mending
	f.mending = true
	f.mu.Unlock()
	if mine {
		s.spawn(func() { s.repair(f, repairer) }) // else Close has stopped the fill
	}
	return f, nil
}

// repair finds Sources for a fill and starts it.
func (s *Store) repair(f *Fill, by Repairer) {
	var sources []content.Source
	if info, ok := s.Get(f.num); ok && by != nil {
		var err error
		if sources, err = by.Repair(f.ctx, info); err != nil {
			s.log.Warn("found nobody to repair an object from", "object", f.num, "title", f.title, "err", err)
		}
	}
	f.Start(sources...) // without a source it ends, and keeps what it has
	<-f.Done()
}

// vet checks the blocks of a resumed fill that were durable when it began, before
// anybody reads them. What is damaged is missing again.
func (f *Fill) vet(block content.Range) error {
	b := f.body.blob.Load()
	if b == nil {
		return nil
	}
	f.vetting.Lock() // or the second to find damage takes back what has come again
	defer f.vetting.Unlock()
	if _, doubted := f.doubted(block.Off); !doubted { // somebody else was first, and may have closed the body
		return nil
	}
	i := block.Off / content.BlockSize
	err := b.Check(i, blockEnd(f.Size()))
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.unchecked.Remove(block)
		return nil
	}
	if !isDamage(err) {
		f.volume().suspect(err)
		return fmt.Errorf("check %s of %s: %w", block, f.title, err)
	}
	f.store.noteDamage(f.num, block.Off)
	err = b.Forget(i) // first, or it would be the block that has come again
	f.lose(block)
	return err
}

// isDamage reports whether a check has failed because of what is on the disk, and
// not for want of the disk.
func isDamage(err error) bool {
	return errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrMissing) || errors.Is(err, disk.ErrDiffers)
}

// vetRest checks what nobody has read of a resumed fill: a complete object was
// hashed from the first to the last byte since the start.
func (f *Fill) vetRest() error {
	f.mu.Lock()
	rest := slices.Clone(f.unchecked)
	f.mu.Unlock()
	for _, r := range rest {
		if err := f.vetAll(r); err != nil {
			return err
		}
	}
	if !f.whole() {
		return fmt.Errorf("complete %s: %w: %w", f.title, errDecayed, ErrIncomplete)
	}
	return nil
}

// lose takes a block back that turned out damaged.
func (f *Fill) lose(block content.Range) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unchecked.Remove(block)
	f.arrived.Remove(block)
	f.readable.Remove(block)
	f.durable.Remove(block)
	f.discredit(block)
	f.signalWanted()
}

// noteDamage counts what was found damaged and says so.
func (s *Store) noteDamage(num uint64, off int64) {
	s.mu.Lock()
	s.counts.Damaged++
	s.mu.Unlock()
	s.log.Warn("found an object damaged", "object", num, "offset", off)
}
