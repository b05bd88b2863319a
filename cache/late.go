package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// Leaves that are hashed late: the Sources of a swarm have proved what they bring
// already, and hashing it once more costs more than all else that a fast fill does.
// Until all is here a checksum stands in the sidecar for the hashes of a block; then
// they are made in the background, and only then is the object complete.
//
// A fill is fast when flushEvery bytes come within fastFill; a slower one hashes as
// it goes, while what it hashes is still in memory. So does one that would put off
// more than maxLate bytes, of all fills together: that much a machine still has in
// memory, or reads again from its disk.
const (
	fastFill = flushAfter / 2
	maxLate  = 1 << 30
)

// HashLate says that the Sources prove what they bring by hashes of their own, so
// that the identity may wait until all is here. A fill with a layer hashes at once
// whatever they do.
func (f *Fill) HashLate() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = true
}

// putsOff reports whether the hashes of what is flushed now, since the last time,
// are made later.
func (f *Fill) putsOff(last time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.late && time.Since(last) < fastFill && f.store.late.Load() < maxLate
}

// layerOf gives the layer of a whole body, and first makes the hashes that were
// put off.
func (f *Fill) layerOf(b *disk.Blob, size int64) (*content.Layer, error) {
	layer, err := b.Layer(size)
	if !errors.Is(err, disk.ErrMissing) {
		return layer, err
	}
	if err := f.hashRest(b, size); err != nil {
		return nil, err
	}
	return b.Layer(size)
}

// hashRest makes the hashes that were put off, on a thread of low priority, one
// fill at a time.
func (f *Fill) hashRest(b *disk.Blob, size int64) error {
	select {
	case f.store.hashing <- struct{}{}:
		defer func() { <-f.store.hashing }()
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	done := make(chan error, 1)
	go func() {
		yieldToOthers()
		done <- f.hashBlocks(b, size)
	}()
	return <-done
}

// hashBlocks is hashRest's work. A power cut in the middle of a slot costs that
// block, so the slots are made durable as often as blocks are.
func (f *Fill) hashBlocks(b *disk.Blob, size int64) error {
	unsynced := int64(0)
	for i := range content.Blocks(size) {
		if f.ctx.Err() != nil {
			return context.Cause(f.ctx)
		}
		block := content.Block(i, size)
		hashed, err := b.HashLate(i, size)
		if err != nil {
			return f.spoilt(b, block, err)
		}
		if hashed {
			unsynced += block.Len()
		}
		if unsynced >= flushEvery {
			unsynced = 0
			if err := b.SyncTree(); err != nil {
				return f.volume().refused(err)
			}
		}
	}
	return nil // finish syncs the rest
}

// spoilt says what became of a block that could not be hashed: if it was damaged
// since it came, it is missing again.
func (f *Fill) spoilt(b *disk.Blob, block content.Range, err error) error {
	if !isDamage(err) {
		return f.volume().refused(err)
	}
	f.store.noteDamage(f.num, block.Off)
	if err := b.Forget(block.Off / content.BlockSize); err != nil { // first, or it would be the block that has come again
		return f.volume().refused(err)
	}
	f.lose(block)
	return fmt.Errorf("%w: %w", errDecayed, ErrIncomplete)
}

// noteLate counts bytes whose hashes were put off.
func (f *Fill) noteLate(n int64) {
	f.putOff += n
	f.store.late.Add(n)
}
