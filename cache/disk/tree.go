package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// PutSlot says that block i is durable, and what its leaves hash to. The body
// must have been synced. SyncTree makes the slot durable.
func (b *Blob) PutSlot(i int64, leaves []content.Hash) error {
	if len(leaves) < 1 || len(leaves) > content.LeavesPerBlock {
		return fmt.Errorf("put slot %d of blob %d: %d leaves", i, b.num, len(leaves))
	}
	return b.put(i, slot{leaves: leaves})
}

// PutSum is PutSlot for a block whose leaves are to be hashed later, by HashLate:
// the bytes are those with this CRC-32C.
func (b *Blob) PutSum(i int64, crc uint32) error { return b.put(i, slot{crc: crc}) }

func (b *Blob) put(i int64, s slot) error {
	if i < 0 || i > maxBlock {
		return fmt.Errorf("put slot %d of blob %d: no such block", i, b.num)
	}
	_, err := b.tree.WriteAt(appendSlot(make([]byte, 0, slotSize), b.num, i, s), slotOff(i))
	return within(fmt.Sprintf("put slot %d of blob %d", i, b.num), err)
}

// maxBlock is the last block that a file can have.
const maxBlock = (math.MaxInt64 - headSize) / slotSize / 2

// slot reads what the sidecar says of block i.
func (b *Blob) slot(i int64) (slot, error) {
	var buf [slotSize]byte
	n, err := b.tree.ReadAt(buf[:], slotOff(i))
	if err != nil && err != io.EOF {
		return slot{}, within(fmt.Sprintf("read slot %d of blob %d", i, b.num), err)
	}
	return parseSlot(buf[:n], b.num, i)
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
		s, err := b.slot(i)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		r := content.Block(i, blockEnd(size))
		if err == nil && r.End <= length && s.holds(layer, i, r, size) {
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

// holds reports whether a slot can be that of block i, which is r, and agrees with
// the layer. Without hashes it agrees with no layer.
func (s slot) holds(layer *content.Layer, i int64, r content.Range, size int64) bool {
	if s.leaves == nil {
		return layer == nil
	}
	return content.Leaves(r.Len()) == int64(len(s.leaves)) &&
		(layer == nil || i < int64(len(layer.Hashes)) && content.BlockHash(s.leaves, size) == layer.Hashes[i])
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
// wraps ErrMissing or ErrDamaged if a slot is not there, has no hashes yet or is not
// sound.
func (b *Blob) Layer(size int64) (*content.Layer, error) { return b.LayerWith(size, -1, nil) }

// LayerWith is Layer with leaves in the place of what slot with says: so an owner
// can prove a slot before it is put.
func (b *Blob) LayerWith(size, with int64, leaves []content.Hash) (*content.Layer, error) {
	l := &content.Layer{Size: size}
	for i := range content.Blocks(size) {
		leaves, err := leaves, error(nil)
		if i != with {
			leaves, err = b.leaves(i)
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

// leaves gives the hashes of the leaves of block i.
func (b *Blob) leaves(i int64) ([]content.Hash, error) {
	s, err := b.slot(i)
	if err == nil && s.leaves == nil {
		err = fmt.Errorf("hashes of block %d of blob %d: %w", i, b.num, ErrMissing)
	}
	return s.leaves, err
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

// SumBlock reads a range of the body and sums it up for PutSum. The error is as of
// HashBlock.
func (b *Blob) SumBlock(r content.Range) (uint32, error) {
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.NewSectionReader(b.body, r.Off, r.Len()))
	if err != nil {
		return 0, within(fmt.Sprintf("read %s of blob %d", r, b.num), err)
	}
	if n != r.Len() {
		return 0, fmt.Errorf("body of blob %d ends before %s: %w", b.num, r, ErrDiffers)
	}
	return sum.Sum32(), nil
}

// HashLate hashes the leaves of block i of a body of size bytes if PutSum has put
// that off, and says whether it had. The bytes that it hashes are those that were
// summed up, else the error is as of Check.
func (b *Blob) HashLate(i, size int64) (bool, error) {
	s, err := b.slot(i)
	if err != nil {
		return false, fmt.Errorf("hash block of blob %d: %w", b.num, err)
	}
	if s.leaves != nil {
		return false, nil
	}
	r, sum := content.Block(i, size), crc32.New(castagnoli)
	body := io.TeeReader(io.NewSectionReader(b.body, r.Off, r.Len()), sum) // or other bytes are hashed than summed up
	leaves, err := content.HashLeaves(make([]content.Hash, 0, content.LeavesPerBlock), body)
	if err != nil {
		return false, within(fmt.Sprintf("read %s of blob %d", r, b.num), err)
	}
	if sum.Sum32() != s.crc {
		return false, fmt.Errorf("hash block %d of blob %d: %w", i, b.num, ErrDiffers)
	}
	return true, b.PutSlot(i, leaves)
}

// Check hashes block i of a body of size bytes against its slot, or sums it up if
// that has no hashes yet. The error wraps ErrDiffers if the bytes are others,
// ErrDamaged or ErrMissing if it is the slot that is not sound or not there, else it
// is of the disk.
func (b *Blob) Check(i, size int64) error {
	if i < 0 || i >= content.Blocks(size) {
		return fmt.Errorf("check block %d of blob %d: it has %d bytes", i, b.num, size)
	}
	s, err := b.slot(i)
	if err != nil {
		return fmt.Errorf("check blob %d: %w", b.num, err)
	}
	r := content.Block(i, size)
	if s.leaves == nil {
		sum, err := b.SumBlock(r)
		if err == nil && sum != s.crc {
			err = ErrDiffers
		}
		if err != nil {
			return fmt.Errorf("check block %d of blob %d: %w", i, b.num, err)
		}
		return nil
	}
	got, err := b.HashBlock(r)
	if err != nil {
		return fmt.Errorf("check block %d: %w", i, err)
	}
	if len(s.leaves) != len(got) {
		return fmt.Errorf("check block %d of blob %d: slot has %d leaves: %w", i, b.num, len(s.leaves), ErrDamaged)
	}
	if !slices.Equal(s.leaves, got) {
		return fmt.Errorf("check block %d of blob %d: %w", i, b.num, ErrDiffers)
	}
	return nil
}
