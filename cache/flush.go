package cache

import (
	"fmt"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// keepFlushing makes a running fill durable from time to time. If the disk
// refuses, the fill stops.
func (f *Fill) keepFlushing(stopped <-chan struct{}) error {
	tick := time.NewTicker(flushAfter)
	defer tick.Stop()
	for {
		select {
		case <-stopped:
			return f.flush()
		case <-tick.C:
		case <-f.full:
		}
		err := f.flush()
		if err == nil && f.Size() < 0 {
			err = f.store.grow(f.num, f.here())
		}
		if err != nil {
			f.cancel(err)
			<-stopped
			return err
		}
	}
}

// flush hashes the blocks that have become whole, syncs the body, and then says
// in the sidecar that they are durable: data first, then bits.
func (f *Fill) flush() error {
	blocks := f.undurable()
	if len(blocks) == 0 {
		return nil
	}
	leaves := make(map[int64][]content.Hash, len(blocks))
	for _, b := range blocks {
		i := b.Off / content.BlockSize
		f.mu.Lock()
		leaves[i] = f.hashed[i]
		f.mu.Unlock()
		if leaves[i] != nil {
			continue
		}
		var err error
		if leaves[i], err = f.blob.hashBlock(b); err != nil {
			return fmt.Errorf("flush %s: %w", f.title, err)
		}
	}
	if err := syncData(f.blob.body); err != nil {
		return fmt.Errorf("flush %s: %w", f.title, err)
	}
	for i, hashes := range leaves {
		if err := f.blob.putSlot(i, hashes); err != nil {
			return fmt.Errorf("flush %s: %w", f.title, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range blocks {
		f.durable.Add(b)
		delete(f.hashed, b.Off/content.BlockSize)
	}
	f.unsynced -= f.flushing
	f.flushing = 0
	close(f.flushed)
	f.flushed = make(chan struct{})
	return nil
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

// finish gives a whole object its identity.
func (f *Fill) finish() error {
	size := f.Size()
	layer, err := f.blob.layer(size)
	if err != nil {
		return fmt.Errorf("finish %s: %w", f.title, err)
	}
	if err := syncData(f.blob.tree); err != nil {
		return fmt.Errorf("finish %s: %w", f.title, err)
	}
	return f.store.complete(f, layer.Root(), size)
}
