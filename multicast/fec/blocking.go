package fec

import "fmt"

// Blocking is the partition of an object into source blocks (RFC 5052 §9.1,
// RFC 5740 §5.1.1): the first LargeBlocks blocks have LargeLen symbols, the
// others SmallLen.
type Blocking struct {
	Size    int64 // of the object, in bytes
	Symbol  int   // length of a full symbol, in bytes
	Symbols int64 // of the whole object; the last may be short
	Blocks  int64

	LargeBlocks        int64
	LargeLen, SmallLen int
}

// Partition computes the blocking of an object of size bytes into symbols of
// the given length and blocks of at most k symbols, both positive, as even as
// possible. An object of 0 bytes has no blocks.
func Partition(size int64, symbol, k int) (Blocking, error) {
	if size < 0 || symbol < 1 || k < 1 {
		return Blocking{}, fmt.Errorf("object of %d bytes, symbols of %d, blocks of %d: want a size and two lengths", size, symbol, k)
	}
	b := Blocking{Size: size, Symbol: symbol}
	if size == 0 {
		return b, nil
	}
	b.Symbols = (size-1)/int64(symbol) + 1
	b.Blocks = (b.Symbols-1)/int64(k) + 1
	b.SmallLen = int(b.Symbols / b.Blocks)
	b.LargeLen = int((b.Symbols-1)/b.Blocks + 1)
	b.LargeBlocks = b.Symbols - int64(b.SmallLen)*b.Blocks
	return b, nil
}

// Len is the number of source symbols of a block.
func (b Blocking) Len(block int64) int {
	if block < b.LargeBlocks {
		return b.LargeLen
	}
	return b.SmallLen
}

// First is the index, in the object, of a block's first symbol.
func (b Blocking) First(block int64) int64 {
	if block <= b.LargeBlocks {
		return block * int64(b.LargeLen)
	}
	return b.LargeBlocks*int64(b.LargeLen) + (block-b.LargeBlocks)*int64(b.SmallLen)
}

// Span is where source symbol i of a block lies in the object: its offset and
// its length, which is short for the last one of the object.
func (b Blocking) Span(block int64, i int) (off int64, n int) {
	off = (b.First(block) + int64(i)) * int64(b.Symbol)
	return off, int(min(int64(b.Symbol), b.Size-off))
}
