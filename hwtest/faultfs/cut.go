//go:build linux

package faultfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
)

// dice decide what survives of what was not synced.
type dice struct {
	*rand.Rand // nil: nothing survives
}

// share is how much of something survives: nothing, all, or anything between, a
// third of the time each.
func (d dice) share() float64 {
	if d.Rand == nil {
		return 0
	}
	switch d.IntN(3) {
	case 0:
		return 0
	case 1:
		return 1
	}
	return d.Float64()
}

func (d dice) keeps(share float64) bool { return d.Rand != nil && d.Float64() < share }

// upTo is a number from 0 to n.
func (d dice) upTo(n int64) int64 {
	if d.Rand == nil {
		return 0
	}
	return d.Int64N(n + 1)
}

// sectors has a bit for each sector of a block whose newer version survives. Of
// those that survive at all one block in eight is torn.
func (d dice) sectors(share float64) uint8 {
	switch {
	case !d.keeps(share):
		return 0
	case share < 1 && d.IntN(8) == 0:
		return uint8(d.Uint32())
	}
	return 0xff
}

// cut takes the disk to a state that a power cut now could leave behind. Nothing
// may use the disk meanwhile, and the kernel must have forgotten all of it.
func (d *disk) cut(luck dice) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.survivors(luck) {
		for _, e := range c {
			e.dir.engrave(e.name, e.now)
		}
	}
	d.journal = nil
	for _, n := range d.nodes {
		n.links, n.past, n.known = 0, 0, 0
	}
	d.revive(d.nodes[rootNum])
	d.space.used.Store(0)
	// In the order of their numbers, so that the same seed does the same.
	for _, num := range slices.Sorted(maps.Keys(d.nodes)) {
		n := d.nodes[num]
		if n.links == 0 {
			d.destroy(n)
		} else if n.body != nil {
			if err := n.body.cut(luck); err != nil {
				return fmt.Errorf("cut file %d: %w", num, err)
			}
		}
	}
	return nil
}

// revive counts the names of n and of what is below it, from the durable ones.
func (d *disk) revive(n *inode) {
	n.links++
	if n.links > 1 || !n.isDir() {
		return
	}
	n.names = maps.Clone(n.durable)
	for _, below := range n.durable {
		d.revive(below)
	}
}

// cut leaves of the file what was synced and what luck spares of the rest.
func (b *body) cut(luck dice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.undo) > 0 || b.size != b.synced {
		if err := b.lose(luck); err != nil {
			return err
		}
	}
	b.space.used.Add(b.held.count()) // whether there is room or not: it is there
	b.vacated = false
	return nil
}

// lose is cut for a file that has something to lose.
func (b *body) lose(luck dice) error {
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	share := luck.share()
	size := b.survivingSize(luck, share)
	for _, i := range slices.Sorted(maps.Keys(b.undo)) {
		newer := luck.sectors(share)
		if size > b.size && (i+1)*blockSize > b.size {
			newer = 0 // it was cut off, and the cutting off did not survive
		}
		if err := b.restore(f, i, newer); err != nil {
			return err
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	_, whole := span(0, size)
	for i := range b.held.within(whole, b.held.past()) {
		b.held.remove(i)
	}
	b.size, b.synced, b.undo = size, size, map[int64][]byte{}
	return nil
}

func (b *body) survivingSize(luck dice, share float64) int64 {
	switch {
	case b.size > b.synced && share < 1:
		if share == 0 {
			return b.synced
		}
		return b.synced + luck.upTo(b.size-b.synced)
	case b.size < b.synced && !luck.keeps(share):
		return b.synced
	}
	return b.size
}

// restore brings the older version of a block back, but for the sectors marked
// as newer. It may leave bytes behind the end of the file.
func (b *body) restore(f *os.File, i int64, newer uint8) error {
	if newer == 0xff {
		return nil
	}
	old := b.undo[i]
	if old == nil && newer == 0 {
		return hole(f, i*blockSize, (i+1)*blockSize)
	}
	var block [blockSize]byte
	if _, err := readAt(f, block[:], i*blockSize); err != nil {
		return err
	}
	for s := range blockSize / sectorSize {
		if newer>>s&1 == 1 {
			continue
		}
		sector := block[s*sectorSize : (s+1)*sectorSize]
		clear(sector)
		if old != nil {
			copy(sector, old[s*sectorSize:])
		}
	}
	if old != nil {
		b.held.add(i) // it may have been cut off
	}
	_, err := f.WriteAt(block[:], i*blockSize)
	return err
}
