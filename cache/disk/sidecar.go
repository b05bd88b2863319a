package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cistern-edge/cistern/cache/content"
)

// A sidecar is a head of headSize bytes, then a slot of slotSize bytes for each
// block. Integers are big-endian, checksums are CRC-32C and begin with the blob's
// number, so that nothing of another blob passes.
//
//	0    magic "CISTREE2"
//	8    number
//	16   size of the body, or -1
//	24   checksum of what is above
//	32   card: length (4), checksum (4) over length and bytes, then the bytes
//	4096 slot 0: checksum (4), count (4), that many hashes of leaves
//
// The checksum of a slot covers its index too. A slot whose first 8 bytes are
// zero says that the block is not durable; a sound one says that it is. One with
// unhashed in the place of the count has, instead of hashes, the CRC-32C (4) of
// the block's bytes.
const (
	treeMagic  = "CISTREE2"
	headerSize = 32
	headSize   = 4096
	slotSize   = 8 + content.LeavesPerBlock*32

	unhashed = 1 << 31

	// MaxCard bounds a card, in bytes.
	MaxCard = 4000
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of bytes that belong in one place only.
func sum(bytes []byte, place ...uint64) uint32 {
	var prefix [24]byte
	p := prefix[:0]
	for _, n := range place {
		p = binary.BigEndian.AppendUint64(p, n)
	}
	return crc32.Update(crc32.Checksum(p, castagnoli), castagnoli, bytes)
}

func appendHeader(b []byte, num uint64, size int64) []byte {
	start := len(b)
	b = append(b, treeMagic...)
	b = binary.BigEndian.AppendUint64(b, num)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint32(b, sum(b[start:], num))
	return append(b, make([]byte, headerSize-(len(b)-start))...)
}

// parseHeader gives the size of the body, or content.UnknownSize.
func parseHeader(b []byte, num uint64) (size int64, err error) {
	if len(b) < headerSize || string(b[:8]) != treeMagic || binary.BigEndian.Uint64(b[8:]) != num ||
		binary.BigEndian.Uint32(b[24:]) != sum(b[:24], num) {
		return 0, fmt.Errorf("header of blob %d: %w", num, ErrDamaged)
	}
	if size = int64(binary.BigEndian.Uint64(b[16:])); size < content.UnknownSize {
		return 0, fmt.Errorf("header of blob %d: size is %d: %w", num, size, ErrDamaged)
	}
	return size, nil
}

// appendCard appends what goes behind the header; an empty card is like none.
func appendCard(b []byte, num uint64, card []byte) []byte {
	if len(card) == 0 {
		return append(b, make([]byte, 8)...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(card)))
	b = binary.BigEndian.AppendUint32(b, cardSum(num, card))
	return append(b, card...)
}

func cardSum(num uint64, card []byte) uint32 { return sum(card, num, uint64(len(card))) }

// parseCard reads the card behind the header; nil without an error is none.
func parseCard(b []byte, num uint64) ([]byte, error) {
	if len(b) < 8 || binary.BigEndian.Uint64(b) == 0 {
		return nil, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > MaxCard || int(n) > len(b)-8 || binary.BigEndian.Uint32(b[4:]) != cardSum(num, b[8:8+n]) {
		return nil, fmt.Errorf("card of blob %d: %w", num, ErrDamaged)
	}
	return b[8 : 8+n], nil
}

// slot is what a sidecar says of a durable block.
type slot struct {
	leaves []content.Hash // nil if they were not hashed yet
	crc    uint32         // of the bytes then
}

func appendSlot(b []byte, num uint64, i int64, s slot) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, 0)
	if s.leaves == nil {
		b = binary.BigEndian.AppendUint32(b, unhashed)
		b = binary.BigEndian.AppendUint32(b, s.crc)
	} else {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s.leaves)))
	}
	for _, h := range s.leaves {
		b = append(b, h[:]...)
	}
	binary.BigEndian.PutUint32(b[start:], sum(b[start+4:], num, uint64(i)))
	return b
}

// parseSlot reads the slot of block i. The error wraps ErrMissing if it is empty,
// ErrDamaged if it is not sound.
func parseSlot(b []byte, num uint64, i int64) (slot, error) {
	if len(b) < 8 || binary.BigEndian.Uint64(b) == 0 {
		return slot{}, fmt.Errorf("block %d of blob %d: %w", i, num, ErrMissing)
	}
	count := binary.BigEndian.Uint32(b[4:])
	end := int(8 + 32*min(count, content.LeavesPerBlock))
	if count == unhashed {
		end = 12
	}
	if count < 1 || count > content.LeavesPerBlock && count != unhashed || end > len(b) ||
		binary.BigEndian.Uint32(b) != sum(b[4:end], num, uint64(i)) {
		return slot{}, fmt.Errorf("slot of block %d of blob %d: %w", i, num, ErrDamaged)
	}
	if count == unhashed {
		return slot{crc: binary.BigEndian.Uint32(b[8:])}, nil
	}
	leaves := make([]content.Hash, count)
	for j := range leaves {
		copy(leaves[j][:], b[8+32*j:])
	}
	return slot{leaves: leaves}, nil
}

// slotOff is where slot i lies.
func slotOff(i int64) int64 { return headSize + i*slotSize }
