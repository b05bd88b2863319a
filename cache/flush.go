package cache

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// A fill is made durable every flushEvery bytes or flushAfter, whichever comes
// first.
const (
	flushEvery = 32 << 20
	flushAfter = 5 * time.Second
)

// keepFlushing makes a running fill durable from time to time. If the disk
// refuses, the fill stops.
func (f *Fill) keepFlushing(stopped <-chan struct{}) error {
	tick := time.NewTicker(flushAfter)
	defer tick.Stop()
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-stopped:
			return f.flush(last)
		case <-tick.C:
		case <-f.full:
		}
		err := f.flush(last)
		if err == nil && f.isGrowing() {
			err = f.store.grow(f.num, f.here())
		}
		if err != nil {
			f.cancel(err)
			<-stopped
			return err
		}
	}
}

// isGrowing reports whether the fill takes room as it goes.
func (f *Fill) isGrowing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size < 0 || f.part
}

// flush hashes the blocks that have become whole since the last time, or sums them
// up, syncs the body, and then says in the sidecar that they are durable: data
// first, then bits, which are synced too, or a power cut would cost the whole of a
// long fill.
func (f *Fill) flush(last time.Time) error {
	b := f.body.blob.Load()
	if b == nil {
		return nil // in memory: durable only when it is whole
	}
	blocks := f.undurable()
	if len(blocks) == 0 {
		return nil
	}
	// What the bits are of must be known to the index, or a crash takes the
	// blocks for nobody's.
	if err := f.recorded(); err != nil {
		return fmt.Errorf("flush %s: %w", f.title, err)
	}
	leaves, sums, err := f.syncAndHash(b, blocks, f.putsOff(last))
	if err != nil {
		return fmt.Errorf("flush %s: %w", f.title, err)
	}
	for n, block := range blocks {
		i := block.Off / content.BlockSize
		if leaves[n] != nil {
			err = b.PutSlot(i, leaves[n])
		} else if err = b.PutSum(i, sums[n]); err == nil {
			f.noteLate(block.Len())
		}
		if err != nil {
			return fmt.Errorf("flush %s: %w", f.title, f.volume().refused(err))
		}
	}
	if err := b.SyncTree(); err != nil {
		return fmt.Errorf("flush %s: %w", f.title, f.volume().refused(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, block := range blocks {
		f.durable.Add(block)
		delete(f.hashed, block.Off/content.BlockSize)
	}
	f.unsynced -= f.flushing
	f.flushing = 0
	close(f.flushed)
	f.flushed = make(chan struct{})
	return nil
}

// syncAndHash syncs the body and meanwhile hashes, on all processors, the blocks
// that were not hashed when they came, or only sums them up.
func (f *Fill) syncAndHash(b *disk.Blob, blocks []content.Range, late bool) ([][]content.Hash, []uint32, error) {
	leaves, sums := make([][]content.Hash, len(blocks)), make([]uint32, len(blocks))
	f.mu.Lock()
	for n, block := range blocks {
		leaves[n] = f.hashed[block.Off/content.BlockSize]
	}
	f.mu.Unlock()
	var work errgroup.Group
	work.Go(func() error {
		if err := b.Sync(); err != nil {
			return f.volume().refused(err)
		}
		return nil
	})
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() (err error) {
			for n := next.Add(1) - 1; n < int64(len(blocks)) && err == nil; n = next.Add(1) - 1 {
				switch {
				case leaves[n] != nil:
				case late:
					sums[n], err = b.SumBlock(blocks[n])
				default:
					leaves[n], err = b.HashBlock(blocks[n])
				}
			}
			return err
		})
	}
	return leaves, sums, work.Wait()
}

// undurable lists the blocks that are whole and readable, but not durable.
func (f *Fill) undurable() []content.Range {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flushing = 0
	var blocks []content.Range
	for _, r := range f.readable {
		for _, gap := range f.durable.Without(r) {
			for i := gap.Off / content.BlockSize; i <= (gap.End-1)/content.BlockSize; i++ {
				// A block at the end of an object of unknown size is not whole
				// until the size is known: blockEnd makes it a full one.
				if b := content.Block(i, blockEnd(f.size)); f.readable.Covers(b) && !f.durable.Covers(b) {
					blocks = append(blocks, b)
					f.flushing += b.Len()
				}
			}
		}
	}
	return blocks
}

// recorded makes sure, once, that the index has the object on disk.
func (f *Fill) recorded() error {
	if f.known {
		return nil
	}
	if err := f.store.books.index.Commit(f.store.ctx); err != nil {
		return err
	}
	f.known = true
	return nil
}

// finish gives a whole object its identity.
func (f *Fill) finish() error {
	size := f.Size()
	b := f.body.blob.Load()
	if b == nil {
		return f.store.completeSmall(f, f.body.mem[:size])
	}
	if err := f.vetRest(); err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	layer, err := f.layerOf(b, size)
	if err != nil {
		return fmt.Errorf("finish %s: %w", f.title, err)
	}
	if err := b.SyncTree(); err != nil { // the size, if that came last, and hashes made late
		return fmt.Errorf("finish %s: %w", f.title, f.volume().refused(err))
	}
	return f.store.complete(f, layer.Root(), size)
}

// spill moves the bytes from memory to a blob, once it shows that the object is
// not a small one; f.writing is held.
func (f *Fill) spill() error {
	if !f.body.inMemory() {
		return nil
	}
	b, err := f.store.unmake(f.num, f.Size())
	if err != nil {
		return fmt.Errorf("store %s: %w", f.title, err)
	}
	// All of it, for what was written may be accepted later; the object is larger.
	if _, err := b.WriteAt(f.body.mem, 0); err != nil {
		return errors.Join(fmt.Errorf("store %s: %w", f.title, f.volume().refused(err)), b.Close())
	}
	f.body.blob.Store(b)
	return nil
}

// makeSpace moves the bytes to a blob if a write ends beyond what memory holds.
func (f *Fill) makeSpace(end int64) error {
	if end <= int64(len(f.body.mem)) || !f.body.inMemory() {
		return nil
	}
	if size := f.Size(); size >= 0 {
		return nil // the write is refused
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.spill()
}

// volume is the disk that the body is on, or will be.
func (f *Fill) volume() *volume { return f.store.volumes[f.disk] }
