package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// Fill brings one object in. It is behind the content.Sink of each Source and is
// what its Readers wait on. It lives in the store, not in any client's request.
// All methods are safe for concurrent use.
type Fill struct {
	store *Store
	num   uint64
	title string
	disk  uint8 // number of the volume
	body  *body
	layer *content.Layer

	// only the flusher touches these
	known  bool  // by the index, on disk
	putOff int64 // bytes that wait to be hashed

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	wanted chan struct{} // capacity 1: readers wait for what nobody has claimed
	full   chan struct{} // capacity 1: flushEvery bytes wait to be made durable
	more   chan struct{} // capacity 1: a Source has returned

	// writing is held for reading while a Source writes, and taken for a moment
	// after a range was accepted: then no late write can touch what was hashed.
	// It is taken before Store.mu and Fill.mu, never after.
	writing sync.RWMutex

	vetting sync.Mutex // one block at a time; taken before mu

	// mu guards what follows.
	mu        sync.Mutex
	started   bool
	ending    bool // no further Source is asked
	kept      bool // it goes on whoever leaves
	late      bool // leaves may be hashed when all is here
	sparse    bool // it brings what readers ask for, and not the rest
	part      bool // room is kept for what is here alone
	size      int64
	mending   bool           // it brings again what was damaged
	arrived   content.Ranges // accepted by a Source, not yet checked against the layer
	readable  content.Ranges
	durable   content.Ranges // whole blocks whose slots are written
	unchecked content.Ranges // durable when the fill began, and not hashed since the start
	proving   map[int64]bool // blocks that are being checked against the layer
	hashed    map[int64][]content.Hash
	unsynced  int64          // bytes in blocks that are whole and not durable
	flushing  int64          // those of them that a flush is busy with
	flushed   chan struct{}  // closed and made anew at the end of each flush
	claims    content.Ranges // of all Sources together
	waiters   []*waiter
	woken     time.Time          // when all that could be were woken last
	waker     *time.Timer        // wakes those who were put off; nil: nobody was
	views     map[*view]struct{} // where readers are
	trails    []trail            // where readers were that have left
	stirred   chan struct{}      // closed and made anew when a reader of a fill on demand moves
	rest      context.CancelFunc // makes the Sources of a fill on demand return
	resting   context.Context    // is what it ends; nil as rest
	brought   map[string]*content.Ranges
	before    map[string]int64 // what Sources brought to earlier fills of the object
	base      map[string]int64 // what is here of that
	given     []content.Source
	sources   []content.Source // of them those that have not been asked yet
	taps      sync.WaitGroup
	running   int
	failed    []error
	idle      *time.Timer // since the last reader has left
	err       error
	final     uint64 // the object that has the bytes once the fill is done
}

// waiter is a reader that wants the byte at off.
type waiter struct {
	view  *view
	off   int64
	ready chan struct{}
}

// stallAfter is how long readers wait for a Source that brings nothing before
// the next one is asked beside it.
const stallAfter = 8 * time.Second

// newFill starts from the blocks that are durable in the blob; without one the
// bytes stay in memory for now.
func newFill(s *Store, e *entry, r *record, b *disk.Blob, layer *content.Layer, have content.Ranges) *Fill {
	f := &Fill{
		store: s, num: e.num(), title: r.Title, disk: e.volume, body: newBody(b, e.size), layer: layer, size: e.size,
		done: make(chan struct{}), wanted: make(chan struct{}, 1), full: make(chan struct{}, 1), flushed: make(chan struct{}),
		more: make(chan struct{}, 1), stirred: make(chan struct{}),
		arrived: slices.Clone(have), readable: slices.Clone(have), durable: have,
		proving: map[int64]bool{}, hashed: map[int64][]content.Hash{}, views: map[*view]struct{}{},
		brought: map[string]*content.Ranges{}, before: cloneCounts(r.From), final: e.num(), part: e.is(isPart),
	}
	f.unchecked = slices.Clone(have)
	if len(have) == 0 {
		f.before = nil
	}
	for _, p := range r.Parts {
		ranges := f.credit(p.Source)
		for _, left := range have.Within(p.Range) { // the rest was not durable, or is damaged
			ranges.Add(left)
		}
	}
	f.base = f.counts()
	f.ctx, f.cancel = context.WithCancelCause(s.ctx)
	return f
}

// Start runs the fill until nothing is missing. The Sources are asked in the
// order given, the cheapest first: the next one when one has ended, and beside
// it when readers have waited for stallAfter. Only the first call starts; it
// returns false for the others, and when the store is closed. The fill outlives
// whoever started it; see [Fill.left] for how long.
func (f *Fill) Start(sources ...content.Source) bool {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started || f.store.closed {
		return false
	}
	f.started = true
	f.sources, f.given = slices.Clone(sources), sources
	if f.sparse && len(f.views) == 0 {
		f.idle = time.AfterFunc(lull, f.doze)
	}
	f.store.fills.Go(f.run)
	return true
}

// Join adds a Source that works beside those that run. It returns false, and the
// Source is not asked, if the fill does not run.
func (f *Fill) Join(src content.Source) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started || f.isDone() || f.ctx.Err() != nil || f.ending {
		return false
	}
	f.ask(src)
	return true
}

func (f *Fill) run() {
	err := f.bringIn()
	if errors.Is(err, errDecayed) && f.again() {
		err = f.bringIn()
	}
	if err != nil {
		f.store.abandon(f, f.Size())
		level := slog.LevelWarn
		if f.store.ctx.Err() != nil || errors.Is(err, errUnwanted) { // the store is closing, or nobody waits
			level = slog.LevelInfo
		}
		f.store.log.Log(context.Background(), level, "fill ended early", "object", f.num, "title", f.title, "err", err)
	}
	f.noteLate(-f.putOff)
	f.cancel(nil)
	f.end(err)
	if cerr := f.body.close(); cerr != nil {
		f.store.log.Warn("failed to close a body", "object", f.num, "err", cerr)
	}
}

// errDecayed ends a fill when it turns out that bytes from before were damaged on
// disk: they are missing now.
var errDecayed = errors.New("a part was damaged on disk")

// again has the Sources asked once more.
func (f *Fill) again() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sources, f.ending, f.failed = slices.Clone(f.given), false, nil
	return f.ctx.Err() == nil
}

// bringIn has the Sources bring what is missing, and makes it durable.
func (f *Fill) bringIn() error {
	stopped := make(chan struct{})
	flushed := make(chan error, 1)
	go func() { flushed <- f.keepFlushing(stopped) }()
	err := f.drain()
	close(stopped)
	if err = errors.Join(<-flushed, err); err != nil {
		return err
	}
	return f.finish()
}

// drain runs the Sources. The first is asked even when nothing is missing: it
// may hold an open answer that it has to close.
func (f *Fill) drain() error {
	f.takeRoom()
	if f.ctx.Err() == nil { // else it was stopped before it was started
		f.next()
	}
	stall := time.NewTicker(stallAfter / 4)
	defer stall.Stop()
	last, since := int64(-1), time.Now()
	for {
		f.mu.Lock()
		whole := f.isWhole()
		var wanted, ended <-chan struct{} // Sources that run hear them themselves
		if f.running == 0 {
			wanted, ended = f.wanted, f.ctx.Done()
		}
		if f.running == 0 && (whole || len(f.sources) == 0 || f.ctx.Err() != nil) {
			f.ending = true
			f.mu.Unlock()
			break
		}
		f.mu.Unlock()
		select {
		case <-f.more: // a Source has returned
			f.goOn()
		case <-wanted:
			f.goOn()
		case <-ended:
		case now := <-stall.C:
			if here, waiting := f.progress(); here != last || !waiting {
				last, since = here, now
			} else if now.Sub(since) >= stallAfter && f.ctx.Err() == nil {
				since = now
				f.next()
			}
		}
	}
	f.taps.Wait()
	switch {
	case f.ctx.Err() != nil:
		return context.Cause(f.ctx)
	case f.whole():
		return nil
	case len(f.failed) == 0:
		return content.ErrNotHere
	}
	return errors.Join(f.failed...)
}

// goOn asks the next Source if anything is wanted of it.
func (f *Fill) goOn() {
	f.takeRoom()
	f.mu.Lock()
	due := f.ctx.Err() == nil && !f.isWhole() && f.isDue()
	f.mu.Unlock()
	if due {
		f.next()
	}
}

// next asks the next Source, if there is one.
func (f *Fill) next() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sources) > 0 {
		src := f.sources[0]
		f.sources = f.sources[1:]
		f.ask(src)
	}
}

// ask runs a Source beside those that run already; f.mu is held.
func (f *Fill) ask(src content.Source) {
	f.running++
	if f.rest == nil {
		f.resting, f.rest = context.WithCancel(f.ctx)
	}
	ctx := f.resting
	f.taps.Go(func() {
		t := &tap{Fill: f, name: src.Name()}
		err := src.Fill(ctx, t)
		t.close()
		f.mu.Lock()
		f.running--
		if t.idle && (err == nil || errors.Is(err, content.ErrNotHere)) || ctx.Err() != nil { // it may be asked again
			f.sources = slices.Insert(f.sources, 0, src)
		} else if err != nil && f.ctx.Err() == nil {
			f.failed = append(f.failed, fmt.Errorf("%s: %w", src.Name(), err))
			f.store.log.Info("source gave up", "object", f.num, "title", f.title, "source", src.Name(), "err", err)
		}
		f.mu.Unlock()
		select {
		case f.more <- struct{}{}:
		default:
		}
	})
}

// progress says how much has arrived, and whether a reader waits for more.
func (f *Fill) progress() (here int64, waiting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrived.Len(), len(f.waiters) > 0
}

// end publishes the outcome and wakes everybody.
func (f *Fill) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	for _, w := range f.waiters {
		close(w.ready)
	}
	f.waiters = nil
	if f.waker != nil {
		f.waker.Stop()
	}
	if f.idle != nil {
		f.idle.Stop()
	}
	close(f.done)
}

// stop ends the fill early for the given reason.
func (f *Fill) stop(why error) {
	f.mu.Lock()
	idle := !f.started
	f.started = true
	f.mu.Unlock()
	f.cancel(why)
	if idle { // nobody runs it, so nobody else ends it
		f.run()
	}
}

// Num is the object's number while the fill runs, and after it the number of
// the object that has the bytes: another one if equal bytes were here already.
func (f *Fill) Num() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.final
}

// moved says that another object has the bytes.
func (f *Fill) moved(num uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.final = num
}

// Done is closed when the fill has ended.
func (f *Fill) Done() <-chan struct{} { return f.done }

// Err is why the fill ended early; nil while it runs and when it is complete.
func (f *Fill) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// whole reports whether every byte is readable.
func (f *Fill) whole() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isWhole()
}

// isWhole is whole; f.mu is held.
func (f *Fill) isWhole() bool { return f.size >= 0 && f.readable.From(0) >= f.size }

// isFailing reports whether the fill asks nobody any more for what is missing.
func (f *Fill) isFailing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ending && !f.isWhole()
}

// here is how many bytes readers may have.
func (f *Fill) here() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readable.Len()
}

// blockEnd stands in for a size that is not known yet: every block is taken to
// be full.
func blockEnd(size int64) int64 {
	if size < 0 {
		return math.MaxInt64
	}
	return size
}
