package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Fill brings one object in. It is behind the content.Sink of each Source and is
// what its Readers wait on. It lives in the store, not in any client's request.
// All methods are safe for concurrent use.
type Fill struct {
	store *Store
	num   uint64
	title string
	blob  *blob
	layer *content.Layer

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	wanted chan struct{} // capacity 1: readers wait for what nobody has claimed
	full   chan struct{} // capacity 1: flushEvery bytes wait to be made durable

	// writing is held for reading while a Source writes, and taken for a moment
	// after a range was accepted: then no late write can touch what was hashed.
	// It is taken before Store.mu and Fill.mu, never after.
	writing sync.RWMutex

	// mu guards what follows.
	mu       sync.Mutex
	started  bool
	size     int64
	arrived  content.Ranges // accepted by a Source, not yet checked against the layer
	readable content.Ranges
	durable  content.Ranges // whole blocks whose slots are written
	proving  map[int64]bool // blocks that are being checked against the layer
	hashed   map[int64][]content.Hash
	unsynced int64         // bytes in blocks that are whole and not durable
	flushing int64         // those of them that a flush is busy with
	flushed  chan struct{} // closed and made anew at the end of each flush
	claims   content.Ranges
	waiters  []*waiter
	source   map[string]int64
	err      error
	final    uint64 // the object that has the bytes once the fill is done
}

// waiter is a reader that wants the byte at off.
type waiter struct {
	off   int64
	ready chan struct{}
}

// A fill is made durable every flushEvery bytes or flushAfter, whichever comes
// first.
const (
	flushEvery = 32 << 20
	flushAfter = 5 * time.Second
)

// newFill starts from the blocks that are durable in the blob.
func newFill(s *Store, r *record, b *blob, layer *content.Layer, have content.Ranges) *Fill {
	f := &Fill{
		store: s, num: r.Num, title: r.Title, blob: b, layer: layer, size: r.Size,
		done: make(chan struct{}), wanted: make(chan struct{}, 1), full: make(chan struct{}, 1), flushed: make(chan struct{}),
		arrived: slices.Clone(have), readable: slices.Clone(have), durable: have,
		proving: map[int64]bool{}, hashed: map[int64][]content.Hash{}, source: maps.Clone(r.From), final: r.Num,
	}
	f.ctx, f.cancel = context.WithCancelCause(s.ctx)
	return f
}

// Start runs the Sources one after the other, in the order given, until nothing
// is missing. Only the first call starts; it returns false for the others, and
// when the store is closed. The fill outlives whoever started it.
func (f *Fill) Start(sources ...content.Source) bool {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started || f.store.closed {
		return false
	}
	f.started = true
	f.store.fills.Go(func() { f.run(sources) })
	return true
}

func (f *Fill) run(sources []content.Source) {
	stopped := make(chan struct{})
	flushed := make(chan error, 1)
	go func() { flushed <- f.keepFlushing(stopped) }()
	err := f.drain(sources)
	close(stopped)
	err = errors.Join(<-flushed, err)
	if err == nil {
		err = f.finish()
	}
	if err != nil {
		size := f.Size()
		f.store.abandon(f, size)
		level := slog.LevelWarn
		if f.store.ctx.Err() != nil { // the store is closing
			level = slog.LevelInfo
		}
		f.store.log.Log(context.Background(), level, "fill ended early", "object", f.num, "title", f.title, "err", err)
	}
	f.cancel(nil)
	f.end(err)
	if cerr := f.blob.close(); cerr != nil {
		f.store.log.Warn("failed to close a blob", "object", f.num, "err", cerr)
	}
}

// drain asks each Source in turn. The first is asked even when nothing is
// missing: it may hold an open answer that it has to close.
func (f *Fill) drain(sources []content.Source) error {
	if f.ctx.Err() != nil { // stopped before it was started
		return context.Cause(f.ctx)
	}
	var failed []error
	for i, src := range sources {
		if i > 0 && f.whole() {
			break
		}
		t := &tap{Fill: f, name: src.Name()}
		err := src.Fill(f.ctx, t)
		t.close()
		if err != nil && f.ctx.Err() == nil {
			failed = append(failed, fmt.Errorf("%s: %w", src.Name(), err))
			f.store.log.Info("source gave up", "object", f.num, "title", f.title, "source", src.Name(), "err", err)
		}
		if f.ctx.Err() != nil {
			return context.Cause(f.ctx)
		}
	}
	if f.whole() {
		return nil
	}
	if len(failed) == 0 {
		failed = append(failed, content.ErrNotHere)
	}
	return errors.Join(failed...)
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
		f.run(nil)
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

// Reader opens a reader on the fill, whatever comes of it.
func (f *Fill) Reader() (*Reader, error) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	r, ok := f.store.objects[f.Num()]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", f.title, ErrNotFound)
	}
	if r.Complete {
		return f.store.newReader(r, nil)
	}
	return f.store.newReader(r, f)
}

// whole reports whether every byte is readable.
func (f *Fill) whole() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size >= 0 && f.readable.From(0) >= f.size
}

// here is how many bytes readers may have.
func (f *Fill) here() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readable.Len()
}

// from counts the bytes by Source.
func (f *Fill) from() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.source)
}

// describe adds what only the fill knows to a snapshot.
func (f *Fill) describe(i *Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i.Filling = f.started
	i.Size = f.size
	i.Readable = f.readable.Len()
	i.From = maps.Clone(f.source)
}

// blockEnd stands in for a size that is not known yet: every block is taken to
// be full.
func blockEnd(size int64) int64 {
	if size < 0 {
		return math.MaxInt64
	}
	return size
}
