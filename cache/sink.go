package cache

import (
	"errors"
	"fmt"

	"github.com/cistern-edge/cistern/cache/content"
)

// tap is the Fill as one Source sees it: it counts what the Source brings and
// shuts when the Source has returned, so that a late write touches nothing.
type tap struct {
	*Fill
	name string
	shut bool           // guarded by Fill.writing
	mine content.Ranges // what this Source has claimed; guarded by Fill.mu
	idle bool           // nothing was wanted when it last asked; guarded by Fill.mu
}

// errLate answers a Source that has returned.
var errLate = errors.New("source has returned and may not write")

// close shuts the tap and gives back the claims that the Source has left.
func (t *tap) close() {
	t.writing.Lock()
	t.shut = true
	t.writing.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.mine {
		t.claims.Remove(r)
	}
	t.mine = nil
	t.signalWanted()
}

// SetSize implements content.Sink. It also reserves the room.
func (t *tap) SetSize(size int64) error {
	t.writing.Lock() // no write that knows of no end is under way
	defer t.writing.Unlock()
	if t.shut {
		return errLate
	}
	return t.setSize(size)
}

// Claim implements content.Sink.
func (t *tap) Claim(at, max int64) (content.Range, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.pick(at, max)
	t.idle = !ok && at < 0 && t.sparse
	if ok {
		t.mine.Add(r)
	}
	return r, ok
}

// Release implements content.Sink. What other Sources have claimed stays.
func (t *tap) Release(r content.Range) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, own := range t.mine.Within(r) {
		t.claims.Remove(own)
	}
	t.mine.Remove(r)
	t.signalWanted()
}

// WriteAt implements content.Sink.
func (t *tap) WriteAt(p []byte, off int64) (int, error) {
	if err := t.makeSpace(off + int64(len(p))); err != nil {
		return 0, err
	}
	t.writing.RLock()
	defer t.writing.RUnlock()
	if t.shut {
		return 0, errLate
	}
	return t.write(p, off)
}

// Accept implements content.Sink.
func (t *tap) Accept(r content.Range) error {
	t.writing.RLock()
	shut := t.shut
	t.writing.RUnlock()
	if shut {
		return errLate
	}
	return t.accept(r, t.name)
}

// Size implements content.Sink.
func (f *Fill) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// setSize takes the size from a Source; f.writing is held.
func (f *Fill) setSize(size int64) error {
	f.mu.Lock()
	known := f.size
	end := int64(0)
	if n := len(f.arrived); n > 0 {
		end = f.arrived[n-1].End
	}
	f.mu.Unlock()
	switch {
	case size < 0:
		return fmt.Errorf("size %d of %s is negative", size, f.title)
	case known == size:
		return nil
	case known >= 0:
		return fmt.Errorf("size of %s was %d and is now said to be %d", f.title, known, size)
	case end > size:
		return fmt.Errorf("size of %s is said to be %d, but %d bytes are here", f.title, size, end)
	}
	if size > SmallObject && f.body.inMemory() {
		if err := f.spill(); err != nil {
			return err
		}
	}
	if err := f.store.reserve(f.num, size); err != nil {
		return err
	}
	if err := f.body.setSize(size); err != nil {
		f.volume().suspect(err)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = size
	if i := size / content.BlockSize; size%content.BlockSize > 0 { // whole, now that it is known to end there
		f.unsynced += f.wholeBlocks(i, i)
	}
	f.wake()
	return nil
}

// Missing implements content.Sink.
func (f *Fill) Missing() []content.Range {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrived.Without(content.Range{End: blockEnd(f.size)})
}

// pick takes a claim: a reader whose byte nobody is bringing comes first; then
// what readers will want next, as far ahead as they have earned; then whatever
// is missing first. f.mu is held.
func (f *Fill) pick(at, max int64) (content.Range, bool) {
	if max <= 0 {
		return content.Range{}, false
	}
	if at >= 0 {
		return f.claim(at, max)
	}
	if f.sparse {
		return f.pickDue(max)
	}
	for _, w := range f.waiters {
		if r, ok := f.claim(w.off, max); ok {
			return r, true
		}
	}
	for v := range f.views {
		if r, ok := f.claimWithin(content.Range{Off: v.pos, End: v.pos + v.ahead}, max); ok {
			return r, true
		}
	}
	return f.claimWithin(content.Range{End: blockEnd(f.size)}, max)
}

// claimWithin takes the first bytes of r that are missing and unclaimed; f.mu is
// held.
func (f *Fill) claimWithin(r content.Range, max int64) (content.Range, bool) {
	for _, gap := range f.arrived.Without(r.Clip(content.Range{End: blockEnd(f.size)})) {
		if free := f.claims.Without(gap); len(free) > 0 {
			return f.claim(free[0].Off, max)
		}
	}
	return content.Range{}, false
}

// claim takes what is missing and unclaimed from the byte at; f.mu is held.
func (f *Fill) claim(at, max int64) (content.Range, bool) {
	r := content.Range{Off: at, End: blockEnd(f.size)}
	if r.End-max > at { // without overflow, however large max is
		r.End = at + max
	}
	gaps := f.arrived.Without(r)
	if len(gaps) == 0 || gaps[0].Off != at {
		return content.Range{}, false
	}
	free := f.claims.Without(gaps[0])
	if len(free) == 0 || free[0].Off != at {
		return content.Range{}, false
	}
	f.claims.Add(free[0])
	return free[0], true
}

// Wanted implements content.Sink.
func (f *Fill) Wanted() <-chan struct{} { return f.wanted }

// signalWanted tells the Source if a reader waits for bytes that nobody has
// claimed; f.mu is held.
func (f *Fill) signalWanted() {
	if f.sparse {
		f.signalDemand()
		return
	}
	for _, w := range f.waiters {
		if f.arrived.From(w.off) == w.off && f.claims.From(w.off) == w.off {
			select {
			case f.wanted <- struct{}{}:
			default:
			}
			return
		}
	}
}

// write stores what has not been accepted yet; f.writing is held for reading.
func (f *Fill) write(p []byte, off int64) (int, error) {
	r := content.Range{Off: off, End: off + int64(len(p))}
	f.mu.Lock()
	size := f.size
	gaps := f.arrived.Without(r)
	f.mu.Unlock()
	if off < 0 || r.End < off || r.End > blockEnd(size) {
		return 0, fmt.Errorf("write %s of %s: outside its %d bytes", r, f.title, size)
	}
	for _, g := range gaps {
		if _, err := f.body.WriteAt(p[g.Off-off:g.End-off], g.Off); err != nil {
			return 0, fmt.Errorf("write %s of %s: %w", g, f.title, f.volume().refused(err))
		}
	}
	return len(p), nil
}

// ReadAt implements content.Sink.
func (f *Fill) ReadAt(p []byte, off int64) (int, error) { return f.body.ReadAt(p, off) }

// accept takes the bytes of r from a Source. Without a layer they are readable
// at once; with one, each block when it is whole and proved.
func (f *Fill) accept(r content.Range, source string) error {
	f.mu.Lock()
	if r.Off < 0 || r.End > blockEnd(f.size) {
		f.mu.Unlock()
		return fmt.Errorf("accept %s of %s: outside its %d bytes", r, f.title, f.size)
	}
	fresh := f.arrived.Without(r)
	for _, g := range fresh {
		f.arrived.Add(g)
		f.credit(source).Add(g)
	}
	f.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	defer f.throttle(r.End)
	if f.layer == nil {
		f.settle()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.publish(fresh...)
		return nil
	}
	var bad []error
	for i := r.Off / content.BlockSize; i <= (r.End-1)/content.BlockSize; i++ {
		bad = append(bad, f.prove(i))
	}
	return errors.Join(bad...)
}

// settle waits for the writes that began before a range arrived: those that
// begin later leave the range alone.
func (f *Fill) settle() {
	f.writing.Lock()
	//lint:ignore SA2001 nothing is guarded, only waited for
	f.writing.Unlock()
}

// prove checks block i against the layer once all of it has arrived. When two
// Sources complete a block at once, one of them proves it.
func (f *Fill) prove(i int64) error {
	block := content.Block(i, f.layer.Size)
	f.mu.Lock()
	ready := f.arrived.Covers(block) && !f.readable.Covers(block) && !f.proving[i]
	if ready {
		f.proving[i] = true
	}
	f.mu.Unlock()
	if !ready {
		return nil
	}
	f.settle()
	leaves, err := f.body.hashBlock(block)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.proving, i)
	if err == nil && content.BlockHash(leaves, f.layer.Size) == f.layer.Hashes[i] {
		f.hashed[i] = leaves
		f.publish(block)
		return nil
	}
	f.arrived.Remove(block)
	f.discredit(block)
	f.signalWanted()
	if err != nil {
		return err
	}
	return fmt.Errorf("block %d of %s: %w", i, f.title, content.ErrBadPiece)
}

// publish lets readers have ranges and wakes those that waited for them; f.mu
// is held.
func (f *Fill) publish(ranges ...content.Range) {
	for _, r := range ranges {
		first, last := r.Off/content.BlockSize, (r.End-1)/content.BlockSize
		before := f.wholeBlocks(first, last)
		f.readable.Add(r)
		f.unsynced += f.wholeBlocks(first, last) - before
	}
	if f.unsynced-f.flushing >= flushEvery {
		select {
		case f.full <- struct{}{}:
		default:
		}
	}
	f.wake()
}

// wholeBlocks is how many bytes of the blocks from first to last lie in blocks
// that are all readable; f.mu is held.
func (f *Fill) wholeBlocks(first, last int64) (n int64) {
	for i := first; i <= last; i++ {
		if b := content.Block(i, blockEnd(f.size)); f.readable.Covers(b) {
			n += b.Len()
		}
	}
	return n
}

// throttle holds a Source that is at off back while more waits to be made
// durable than a crash may cost, and where nobody will read so soon.
func (f *Fill) throttle(off int64) {
	for {
		f.mu.Lock()
		behind, far := f.unsynced >= 2*flushEvery, f.isFar(off)
		flushed, stirred, resting := f.flushed, f.stirred, f.resting
		f.mu.Unlock()
		switch {
		case behind:
			stirred = nil
		case !far:
			return
		default:
			flushed = nil
		}
		select {
		case <-flushed:
		case <-stirred:
		case <-resting.Done():
			return
		case <-f.ctx.Done():
			return
		}
	}
}
