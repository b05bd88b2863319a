package disk

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// PutSlot says that block i is durable, and what its leaves hash to. The body
// must have been synced. SyncTree makes the slot durable.
func (b *Blob) PutSlot(i int64, leaves []content.Hash) error {
	if i < 0 || i > maxBlock || len(leaves) < 1 || len(leaves) > content.LeavesPerBlock {
		return fmt.Errorf("put slot %d of blob %d: %d leaves", i, b.num, len(leaves))
	}
	_, err := b.tree.WriteAt(appendSlot(make([]byte, 0, slotSize), b.num, i, leaves), slotOff(i))
	return within(fmt.Sprintf("put slot %d of blob %d", i, b.num), err)
}

// maxBlock is the last block that a file can have.
const maxBlock = (math.MaxInt64 - headSize) / slotSize / 2

// slot reads the hashes of the leaves of block i.
func (b *Blob) slot(i int64) ([]content.Hash, error) {
	var slot [slotSize]byte
	n, err := b.tree.ReadAt(slot[:], slotOff(i))
	if err != nil && err != io.EOF {
		return nil, within(fmt.Sprintf("read slot %d of blob %d", i, b.num), err)
	}
	return parseSlot(slot[:n], b.num, i)
}

// Forget says that block i is not durable any more. That is on disk when Forget
// returns, so the block may be written again.
func (b *Blob) Forget(i int64) error {
	if i < 0 || i > maxBlock {
		return fmt.Errorf("forget block %d of blob %d: no such block", i, b.num)
	}
	err := b.wipe(i)
	if err == nil {
		err = syncData(b.tree)
	}
	return within(fmt.Sprintf("forget block %d of blob %d", i, b.num), err)
}

// wipe empties slot i. It is 8 bytes at a multiple of 8, which no crash tears.
func (b *Blob) wipe(i int64) error {
	st, err := b.tree.Stat()
	if err != nil || st.Size() <= slotOff(i) {
		return err
	}
	_, err = b.tree.WriteAt(make([]byte, 8), slotOff(i))
	return err
}

// Resume lists the blocks that are durable in a body of size bytes, or of a size
// not known yet. What the size, the body's length or the layer (may be nil)
// belies is wiped, so that no old slot can vouch for new bytes; if the header is
// damaged or says another size, all is. The card stays.
func (b *Blob) Resume(size int64, layer *content.Layer) (content.Ranges, error) {
	have, err := b.resume(size, layer)
	return have, within(fmt.Sprintf("resume blob %d", b.num), err)
}

func (b *Blob) resume(size int64, layer *content.Layer) (content.Ranges, error) {
	known, err := b.Size()
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	if err != nil || known >= 0 && size >= 0 && known != size {
		return nil, b.restart(size)
	}
	// A crash between the owner's index and the sidecar leaves one of them
	// without the size.
	size = max(size, known)
	body, err := b.body.Stat()
	if err != nil {
		return nil, err
	}
	have, err := b.durable(size, body.Size(), layer)
	if err == nil && size >= 0 && (known != size || body.Size() != size) {
		err = b.SetSize(size)
	}
	return have, err
}

// restart wipes every slot.
func (b *Blob) restart(size int64) error {
	if err := b.tree.Truncate(headSize); err != nil {
		return err
	}
	if err := syncData(b.tree); err != nil { // no new head beside old slots
		return err
	}
	if err := b.SetSize(size); err != nil {
		return err
	}
	return syncData(b.tree)
}

// durable lists the blocks of a body of size bytes, length of which are here,
// whose slots hold.
func (b *Blob) durable(size, length int64, layer *content.Layer) (content.Ranges, error) {
	slots, wiped, err := b.slots(size)
	if err != nil {
		return nil, err
	}
	var have content.Ranges
	for i := range slots {
		leaves, err := b.slot(i)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		r := content.Block(i, blockEnd(size))
		if err == nil && r.End <= length && content.Leaves(r.Len()) == int64(len(leaves)) && holds(layer, i, leaves, size) {
			have.Add(r)
			continue
		}
		if err := b.wipe(i); err != nil {
			return nil, err
		}
		wiped = true
	}
	if wiped {
		err = syncData(b.tree)
	}
	return have, err
}

// slots counts the slots in the sidecar after cutting off those beyond the size.
func (b *Blob) slots(size int64) (n int64, cut bool, err error) {
	tree, err := b.tree.Stat()
	if err != nil {
		return 0, false, err
	}
	n = max(0, tree.Size()-headSize+slotSize-1) / slotSize
	if most := content.Blocks(blockEnd(size)); n > most {
		return most, true, b.tree.Truncate(slotOff(most))
	}
	return n, false, nil
}

func holds(layer *content.Layer, i int64, leaves []content.Hash, size int64) bool {
	return layer == nil || i < int64(len(layer.Hashes)) && content.BlockHash(leaves, size) == layer.Hashes[i]
}

// blockEnd stands in for a size that is not known yet: every block is taken to be
// full.
func blockEnd(size int64) int64 {
	if size < 0 {
		return math.MaxInt64
	}
	return size
}

// Layer makes the proof of a whole blob of size bytes from its sidecar. The error
// wraps ErrMissing or ErrDamaged if a slot is not there or not sound.
func (b *Blob) Layer(size int64) (*content.Layer, error) { return b.LayerWith(size, -1, nil) }

// LayerWith is Layer with leaves in the place of what slot with says: so an owner
// can prove a slot before it is put.
func (b *Blob) LayerWith(size, with int64, leaves []content.Hash) (*content.Layer, error) {
	l := &content.Layer{Size: size}
	for i := range content.Blocks(size) {
		leaves, err := leaves, error(nil)
		if i != with {
			leaves, err = b.slot(i)
		}
		if err == nil && int64(len(leaves)) != content.Leaves(content.Block(i, size).Len()) {
			err = fmt.Errorf("slot of block %d has %d leaves: %w", i, len(leaves), ErrDamaged)
		}
		if err != nil {
			return nil, fmt.Errorf("layer of blob %d: %w", b.num, err)
		}
		l.Hashes = append(l.Hashes, content.BlockHash(leaves, size))
	}
	return l, nil
}

// HashBlock reads a range of the body, which starts at a leaf, and hashes its
// leaves. The error wraps ErrDiffers if the body ends before the range.
func (b *Blob) HashBlock(r content.Range) ([]content.Hash, error) {
	leaves, err := content.HashLeaves(make([]content.Hash, 0, content.LeavesPerBlock), io.NewSectionReader(b.body, r.Off, r.Len()))
	if err != nil {
		return nil, within(fmt.Sprintf("read %s of blob %d", r, b.num), err)
	}
	if int64(len(leaves)) != content.Leaves(r.Len()) {
		return nil, fmt.Errorf("body of blob %d ends before %s: %w", b.num, r, ErrDiffers)
	}
	return leaves, nil
}

// Check hashes block i of a body of size bytes against its slot. The error wraps
// ErrDiffers if the bytes are others, ErrDamaged or ErrMissing if it is the slot
// that is not sound or not there, else it is of the disk.
func (b *Blob) Check(i, size int64) error {
	if i < 0 || i >= content.Blocks(size) {
		return fmt.Errorf("check block %d of blob %d: it has %d bytes", i, b.num, size)
	}
	want, err := b.slot(i)
	if err != nil {
		return fmt.Errorf("check blob %d: %w", b.num, err)
	}
	got, err := b.HashBlock(content.Block(i, size))
	if err != nil {
		return fmt.Errorf("check block %d: %w", i, err)
	}
	if len(want) != len(got) {
		return fmt.Errorf("check block %d of blob %d: slot has %d leaves: %w", i, b.num, len(want), ErrDamaged)
	}
	if !slices.Equal(want, got) {
		return fmt.Errorf("check block %d of blob %d: %w", i, b.num, ErrDiffers)
	}
	return nil
}
