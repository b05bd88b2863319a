package cache

import (
	"context"
	"fmt"
	"io"

	"github.com/cistern-edge/cistern/cache/content"
)

// view is where a reader of a fill is; Fill.mu guards it.
type view struct {
	pos   int64
	ahead int64 // how far beyond pos bytes are wanted before others
	fed   bool  // it was told of a byte before
	end   int64 // where what it said it will read ends, ahead being beyond that; 0: it has not said
}

// Read-ahead begins at minAhead and doubles with each sequential wait.
const (
	minAhead = 1 << 20
	maxAhead = 16 << 20
)

// wait is Reader.Wait on a running fill.
func (f *Fill) wait(ctx context.Context, v *view, off int64) (int64, error) {
	for {
		if block, ok := f.doubted(off); ok {
			if err := f.vet(block); err != nil {
				return off, err
			}
		}
		f.mu.Lock()
		if v.pos != off {
			v.move(off)
			f.followed()
		}
		end := f.believable(off)
		v.fed = v.fed || end > off
		size, ended, err := f.size, f.isDone(), f.err
		var w *waiter
		if end == off && !ended && off < blockEnd(size) {
			w = &waiter{view: v, off: off, ready: make(chan struct{})}
			f.waiters = append(f.waiters, w)
			f.signalWanted()
		}
		f.mu.Unlock()
		switch {
		case end > off:
			return end, nil
		case size >= 0 && off >= size:
			return off, io.EOF
		case w == nil && err == nil:
			return off, ErrIncomplete
		case w == nil:
			return off, fmt.Errorf("fill of %s ended early: %w", f.title, err)
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			f.forget(w)
			return off, ctx.Err()
		}
	}
}

// doubted gives the block at off if it was not checked since the start.
func (f *Fill) doubted(off int64) (content.Range, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	block := content.Block(off/content.BlockSize, blockEnd(f.size))
	return block, f.unchecked.From(off) > off
}

// believable is how far readers may read from off: up to what is missing, or was
// not checked since the start; f.mu is held.
func (f *Fill) believable(off int64) int64 {
	end := f.readable.From(off)
	if doubt := f.unchecked.Within(content.Range{Off: off, End: end}); len(doubt) > 0 {
		return doubt[0].Off
	}
	return end
}

// move follows a reader: the read-ahead grows as long as it goes straight on.
func (v *view) move(off int64) {
	switch {
	case v.end > 0:
	case off > v.pos && off <= v.pos+v.ahead:
		v.ahead = min(2*v.ahead, maxAhead)
	default:
		v.ahead = minAhead
	}
	v.pos = off
}

// isDone reports whether the fill has ended; f.mu is held.
func (f *Fill) isDone() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// forget takes a waiter off the list.
func (f *Fill) forget(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.waiters {
		if other == w {
			f.waiters = append(f.waiters[:i], f.waiters[i+1:]...)
			return
		}
	}
}

// vetAll checks every block of a range that is not checked yet.
func (f *Fill) vetAll(r content.Range) error {
	for off := r.Off; off < r.End; off = (off/content.BlockSize + 1) * content.BlockSize {
		if block, ok := f.doubted(off); ok {
			if err := f.vet(block); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasReadable reports whether readers may have all of a range.
func (f *Fill) hasReadable(r content.Range) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readable.Covers(r)
}
