package cache

import (
	"fmt"
	"math"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// A fill on demand brings what its readers have asked for, in whole blocks, and
// to those who go straight on, what comes next. This file says what that is.

// trail is where a reader was that has left. Clients that read a file in slices
// send a request for each: whoever goes on where another has left is taken for
// the same one, and keeps the read-ahead it has earned.
type trail struct{ pos, ahead int64 }

const (
	// maxTrails is how many readers that have left a fill remembers.
	maxTrails = 16
	// lull is how long after its last reader a fill on demand keeps what it has
	// open at its Sources.
	lull = 5 * time.Second
)

// OnDemand makes the fill bring what readers ask for, and not the rest, until
// one of them, or Keep, asks for all. It does nothing once the fill was started.
func (f *Fill) OnDemand() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started && !f.kept {
		f.sparse = true
	}
}

// Expect says what the reader is going to read: of a fill on demand that is
// what comes, and in requests as large. From 0 to math.MaxInt64 it is all. It
// gives the first byte of rng for which a Source has to be asked first; ok is
// false if all is here, or on its way already.
func (r *Reader) Expect(rng content.Range) (missing int64, ok bool) {
	if r.fill == nil {
		return 0, false
	}
	f := r.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.sparse {
		return 0, false
	}
	if rng.Off == 0 && rng.End >= blockEnd(f.size) {
		f.wantAll()
		return f.missingIn(content.Range{End: blockEnd(f.size)})
	}
	rng = rng.Clip(content.Range{End: blockEnd(f.size)})
	r.view = view{pos: rng.Off, end: rng.End, ahead: f.earned(rng.Off)}
	f.signalDemand()
	return f.missingIn(rng)
}

// earned is the read-ahead of a reader that begins at off; f.mu is held.
func (f *Fill) earned(off int64) int64 {
	for i, t := range f.trails {
		if t.pos <= off && off <= t.pos+max(t.ahead, content.BlockSize) {
			f.trails = append(f.trails[:i], f.trails[i+1:]...)
			return min(max(2*t.ahead, 2*minAhead), maxAhead)
		}
	}
	return 0
}

// leaveTrail remembers a reader; f.mu is held.
func (f *Fill) leaveTrail(v *view) {
	if f.sparse && v.end > 0 {
		f.trails = append(f.trails, trail{v.end, v.ahead})
		f.trails = f.trails[max(0, len(f.trails)-maxTrails):]
	}
}

// wantAll ends the demand: everything is wanted now; f.mu is held.
func (f *Fill) wantAll() {
	if !f.sparse {
		return
	}
	f.sparse = false
	f.stir()
	for _, c := range []chan struct{}{f.more, f.wanted} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// takeRoom keeps room for all of an object as soon as more than a part of it is
// wanted; if there is none, the fill ends.
func (f *Fill) takeRoom() {
	f.mu.Lock()
	size, turned := f.size, f.part && !f.sparse && f.ctx.Err() == nil
	f.mu.Unlock()
	if !turned {
		return
	}
	err := f.store.reserve(f.num, size)
	if err == nil {
		err = f.body.reserve(size)
		f.volume().suspect(err)
		f.volume().measure()
	}
	if err != nil {
		f.cancel(fmt.Errorf("keep all of %s: %w", f.title, err))
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.part = false
}

// followed tells the Sources of a fill on demand that a reader has come or gone
// on; f.mu is held.
func (f *Fill) followed() {
	if f.sparse {
		f.stir()
		f.signalDemand()
	}
}

// stir wakes Sources that are too far ahead; f.mu is held.
func (f *Fill) stir() {
	close(f.stirred)
	f.stirred = make(chan struct{})
}

// demand is what a reader has coming: whole blocks from where it is to the end
// of what it has asked for, and its read-ahead beyond.
func (f *Fill) demand(v *view) content.Range {
	end := max(v.end, v.pos+1)
	end = min(end+min(v.ahead, math.MaxInt64-end), v.pos+maxAhead)
	const block = content.BlockSize
	return content.Range{Off: v.pos / block * block, End: min((end+block-1)/block*block, blockEnd(f.size))}
}

// missingIn is the first byte of r that is neither here nor on its way; f.mu is
// held.
func (f *Fill) missingIn(r content.Range) (int64, bool) {
	for _, gap := range f.arrived.Without(r) {
		if free := f.claims.Without(gap); len(free) > 0 {
			return free[0].Off, true
		}
	}
	return 0, false
}

// due is where to go on for a reader that does not wait, and up to where: not as
// long as half of what it has coming is here or on its way, so that requests are
// few and large; f.mu is held.
func (f *Fill) due(v *view) (at, end int64, ok bool) {
	if v.end == 0 { // it has not said what it wants
		return 0, 0, false
	}
	d := f.demand(v)
	at, missing := f.missingIn(d)
	return at, d.End, missing && at-v.pos <= (d.End-v.pos)/2
}

// signalDemand tells the Sources if anything is due; f.mu is held.
func (f *Fill) signalDemand() {
	if f.sparse && f.isDue() {
		select {
		case f.wanted <- struct{}{}:
		default:
		}
	}
}

// isDue reports whether there is anything to ask Sources for; f.mu is held.
func (f *Fill) isDue() bool {
	if !f.sparse {
		return true
	}
	for v := range f.views {
		if _, _, ok := f.due(v); ok {
			return true
		}
	}
	for _, w := range f.waiters {
		if _, missing := f.missingIn(f.demand(w.view)); missing {
			return true
		}
	}
	return false
}

// pickDue takes a claim in a fill on demand; f.mu is held.
func (f *Fill) pickDue(most int64) (content.Range, bool) {
	for _, w := range f.waiters {
		d := f.demand(w.view)
		if at, missing := f.missingIn(d); missing {
			return f.claim(at, min(most, d.End-at))
		}
	}
	for v := range f.views {
		if at, end, ok := f.due(v); ok {
			return f.claim(at, min(most, end-at))
		}
	}
	return content.Range{}, false
}

// isFar reports whether a Source is so far ahead of all readers that it has to
// wait; f.mu is held.
func (f *Fill) isFar(off int64) bool {
	if !f.sparse {
		return false
	}
	first := int64(-1)
	for v := range f.views {
		first = max(first, v.pos)
	}
	for _, t := range f.trails {
		first = max(first, t.pos)
	}
	return first < 0 || off > first+maxAhead+content.BlockSize
}

// doze lets go of what is open at the Sources of a fill on demand that nobody
// has read for a while. It goes on as soon as somebody does.
func (f *Fill) doze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.views) > 0 || f.isDone() {
		return
	}
	if f.sparse && f.rest != nil {
		f.rest()
		f.rest = nil
	}
	f.idle = time.AfterFunc(unwantedAfter-lull, f.judge)
}
