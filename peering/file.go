package peering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// errLeft ends the fills of a torrent that the swarm has left.
var errLeft = errors.New("the torrent was left")

// file is one file of a torrent and the object of the store that holds it. It
// is the content.Source of that object's fill. Bytes come in through the sink
// while there is one, and are read from the store otherwise.
type file struct {
	part
	name  string // in the store
	store *cache.Store
	fill  *cache.Fill   // nil if the object was complete
	fresh bool          // the object was made for this file just now
	mine  bool          // the file is the fill's Source; share.run
	left  chan struct{} // closed when the share ends
	begun chan struct{} // closed when there is a sink
	over  chan struct{} // closed when Fill has returned
	first sync.Once     // Fill is called again when something turns out damaged
	last  sync.Once

	want    func(r content.Range) // raises the priority of a range
	missing atomic.Int64          // bytes not accepted yet
	news    chan struct{}         // capacity 1: something was accepted
	served  atomic.Int64          // bytes read for peers and not reported yet

	// gate is held for reading while the sink is in use and taken to let go of
	// it: a Source writes nothing after Fill returns.
	gate sync.RWMutex
	sink content.Sink

	// mu guards what follows.
	mu     sync.Mutex
	reader *cache.Reader
	used   time.Time
}

// newFile binds a file to its object: the one that has its name already, the
// one that has its bytes, or a new one.
func newFile(store *cache.Store, key string, p part) (*file, error) {
	f := &file{
		part: p, name: "btih:" + key + "/" + p.path, store: store,
		left: make(chan struct{}), begun: make(chan struct{}), over: make(chan struct{}), news: make(chan struct{}, 1),
	}
	f.missing.Store(p.size)
	info, _, known := store.Lookup(f.name)
	if known && info.Complete && info.Size == p.size {
		f.missing.Store(0)
		return f, nil
	}
	if twin, ok := store.ByID(p.id()); ok && !p.id().IsZero() {
		f.missing.Store(0)
		return f, store.SetName(twin.Num, f.name, nil)
	}
	var err error
	if known && info.Size == p.size {
		if f.fill, err = store.OpenFill(info.Num, nil); err == nil {
			return f, nil
		}
	}
	f.fresh = true
	f.fill, err = store.Create(cache.Spec{
		Object: content.Object{ID: p.id(), Size: p.size, Trust: content.TrustPieces},
		Title:  p.path, Public: true, Vouched: "torrent " + key,
	}, f.name, nil)
	return f, err
}

// Name implements content.Source.
func (f *file) Name() string { return "swarm" }

// Fill implements content.Source. The bytes are written by the client's own
// goroutines, through the file's pieces; Fill lends them the sink and passes on
// what readers wait for.
func (f *file) Fill(ctx context.Context, sink content.Sink) error {
	f.gate.Lock()
	f.sink = sink
	f.gate.Unlock()
	defer func() {
		f.gate.Lock()
		f.sink = nil
		f.gate.Unlock()
		f.last.Do(func() { close(f.over) })
	}()
	f.first.Do(func() { close(f.begun) })
	var claims []content.Range
	defer func() {
		for _, r := range claims {
			sink.Release(r)
		}
	}()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	others := 0 // looks in a row that found nothing missing
	for f.missing.Load() > 0 {
		wanted := sink.Wanted()
		if len(claims) >= maxClaims {
			wanted = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.left:
			return errLeft
		case <-wanted:
			if r, ok := sink.Claim(-1, readAhead); ok {
				claims = append(claims, r)
				f.want(r)
			}
		case <-f.news:
			claims = release(sink, claims)
		case <-look.C:
			if len(sink.Missing()) > 0 {
				others = 0
			} else if others++; others > 1 { // it was not the client that brought it
				return nil
			}
		}
	}
	if len(sink.Missing()) > 0 { // what was here has turned out damaged meanwhile
		return cache.ErrIncomplete
	}
	return nil
}

// Readers waiting at up to maxClaims places get the next readAhead bytes first.
const (
	maxClaims = 16
	readAhead = 4 << 20
)

// release gives back the claims whose bytes have all come.
func release(sink content.Sink, claims []content.Range) []content.Range {
	missing := content.Ranges(sink.Missing())
	kept := claims[:0]
	for _, r := range claims {
		if len(missing.Within(r)) > 0 {
			kept = append(kept, r)
			continue
		}
		sink.Release(r)
	}
	return kept
}

// writeAt takes bytes from a peer. Those for a file that is complete are not
// needed.
func (f *file) writeAt(p []byte, off int64) error {
	if f.pad {
		return nil
	}
	f.gate.RLock()
	defer f.gate.RUnlock()
	if f.sink == nil {
		if f.missing.Load() == 0 {
			return nil
		}
		return errLeft
	}
	_, err := f.sink.WriteAt(p, off)
	return err
}

// accept lets readers have what a piece has proved.
func (f *file) accept(r content.Range) error {
	if f.pad {
		return nil
	}
	f.gate.RLock()
	defer f.gate.RUnlock()
	if f.sink == nil {
		if f.missing.Load() == 0 {
			return nil
		}
		return errLeft
	}
	return f.sink.Accept(r)
}

// accepted counts bytes that have come for good.
func (f *file) accepted(n int64) {
	f.missing.Add(-n)
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// readAt reads bytes back, also those not accepted yet.
func (f *file) readAt(p []byte, off int64) (int, error) {
	if f.pad {
		clear(p)
		return len(p), nil
	}
	f.gate.RLock()
	if f.sink != nil {
		defer f.gate.RUnlock()
		return f.sink.ReadAt(p, off)
	}
	f.gate.RUnlock()
	return f.serveAt(p, off)
}

// serveAt reads bytes for a peer: only what is accepted and, after a start, was
// checked again.
func (f *file) serveAt(p []byte, off int64) (int, error) {
	if f.pad {
		clear(p)
		return len(p), nil
	}
	r, err := f.open()
	if err != nil {
		return 0, err
	}
	return r.ReadAt(p, off)
}

// open gives the reader on the object, which peers' requests share: ReadAt has
// no place of its own.
func (f *file) open() (*cache.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used = time.Now()
	if f.reader != nil {
		return f.reader, nil
	}
	info, _, ok := f.store.Lookup(f.name)
	if !ok {
		return nil, fmt.Errorf("read %s: %w", f.name, cache.ErrNotFound)
	}
	r, err := f.store.Read(info.Num)
	if err != nil {
		return nil, err
	}
	f.reader = r
	return r, nil
}

// tend reports what was served and closes a reader that nobody uses, so that an
// evicted object's room is given back. ok says that the object is still in the
// store.
func (f *file) tend(idle time.Duration) (info cache.Info, ok bool) {
	if f.pad {
		return info, false
	}
	info, _, ok = f.store.Lookup(f.name)
	if n := f.served.Swap(0); ok && n > 0 {
		f.store.CountServed(info.Num, "bittorrent", n)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reader != nil && (!ok || time.Since(f.used) > idle) {
		_ = f.reader.Close() // opened for reading
		f.reader = nil
	}
	return info, ok
}

// snapshot describes the file.
func (f *file) snapshot() File {
	s := File{Path: f.path, Name: f.name, Size: f.size, Have: f.size - f.missing.Load()}
	if info, _, ok := f.store.Lookup(f.name); ok {
		s.Object = info.Num
	}
	return s
}
