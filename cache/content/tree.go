package content

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/bits"
)

// Leaves gives how many leaves a file of size bytes has.
func Leaves(size int64) int64 { return parts(size, LeafSize) }

// Blocks gives how many blocks a file of size bytes has.
func Blocks(size int64) int64 { return parts(size, BlockSize) }

// parts is size divided by unit, rounded up without overflow; 0 if size is
// negative.
func parts(size, unit int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/unit + 1
}

// LeafHash hashes one leaf. The last leaf of a file is hashed as long as it is,
// without padding (BEP 52).
func LeafHash(p []byte) Hash { return sha256.Sum256(p) }

// node hashes two children.
func node(a, b Hash) Hash {
	var buf [64]byte
	copy(buf[:32], a[:])
	copy(buf[32:], b[:])
	return sha256.Sum256(buf[:])
}

// zeroSubtree is the hash of a subtree of the given height whose leaves all lie
// beyond the end of the file. BEP 52 gives such a leaf the zero hash.
func zeroSubtree(height int) Hash {
	var h Hash
	for range height {
		h = node(h, h)
	}
	return h
}

// fold combines the hashes of one layer, whose entries stand for subtrees of
// the given height, into the root of a tree with width entries (a power of
// two, at least len(layer)).
func fold(layer []Hash, height, width int) Hash {
	if len(layer) == 0 {
		return zeroSubtree(height + bits.Len(uint(width)) - 1)
	}
	level := append([]Hash(nil), layer...)
	pad := zeroSubtree(height)
	for ; width > 1; width /= 2 {
		if len(level)%2 == 1 {
			level = append(level, pad)
		}
		for i := 0; i < len(level)/2; i++ {
			level[i] = node(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
		pad = node(pad, pad)
	}
	return level[0]
}

// powerOfTwo is the smallest power of two that is at least n.
func powerOfTwo(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}

// Root is the pieces root of a file given the hashes of all its leaves.
func Root(leaves []Hash) Hash {
	if len(leaves) == 0 {
		return Hash{}
	}
	return fold(leaves, 0, powerOfTwo(len(leaves)))
}

// BlockHash combines the hashes of the leaves of block i of a file of size
// bytes into that block's entry of the file's Layer. A file of one block or
// less has a tree no higher than it needs, so the entry is the root itself.
func BlockHash(leaves []Hash, size int64) Hash {
	if size <= BlockSize {
		return Root(leaves)
	}
	return fold(leaves, 0, LeavesPerBlock)
}

// Layer proves a file block by block: the hashes of the subtrees over each
// block of BlockSize bytes (a piece layer of BEP 52 with that piece length).
type Layer struct {
	Size   int64
	Hashes []Hash
}

// NewLayer makes the layer of a file from the hashes of all its leaves.
func NewLayer(size int64, leaves []Hash) *Layer {
	l := &Layer{Size: size, Hashes: make([]Hash, 0, Blocks(size))}
	for len(leaves) > 0 {
		n := min(len(leaves), LeavesPerBlock)
		l.Hashes = append(l.Hashes, BlockHash(leaves[:n], size))
		leaves = leaves[n:]
	}
	return l
}

// Root is the pieces root that the layer adds up to.
func (l *Layer) Root() Hash {
	if len(l.Hashes) <= 1 {
		if len(l.Hashes) == 0 {
			return Hash{}
		}
		return l.Hashes[0]
	}
	height := bits.Len(uint(LeavesPerBlock)) - 1
	return fold(l.Hashes, height, powerOfTwo(len(l.Hashes)))
}

// Check reports whether the layer has the right length and adds up to id. A
// layer from the network is checked before it is used.
func (l *Layer) Check(id ID) error {
	if id.Size < 0 {
		return fmt.Errorf("layer is for %d bytes", l.Size)
	}
	if l.Size != id.Size {
		return fmt.Errorf("layer is for %d bytes, the object has %d", l.Size, id.Size)
	}
	if int64(len(l.Hashes)) != Blocks(id.Size) {
		return fmt.Errorf("layer has %d hashes, an object of %d bytes needs %d", len(l.Hashes), id.Size, Blocks(id.Size))
	}
	if l.Root() != id.Root {
		return fmt.Errorf("layer adds up to another root than %s: %w", id.Root, ErrBadPiece)
	}
	return nil
}

// Block is the range of block i of a file of size bytes; i is in [0,Blocks(size)).
func Block(i, size int64) Range {
	off := i * BlockSize
	return Range{Off: off, End: off + min(BlockSize, size-off)}
}

// HashLeaves reads r and appends the hashes of its leaves to dst. r starts at a
// leaf of the file and ends at another or at the end of the file.
func HashLeaves(dst []Hash, r io.Reader) ([]Hash, error) {
	buf := make([]byte, LeafSize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			dst = append(dst, LeafHash(buf[:n]))
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return dst, nil
		default:
			return dst, fmt.Errorf("hash leaves: %w", err)
		}
	}
}
