package fec

import "fmt"

// MaxDepth is the most blocks whose symbols are interleaved.
const MaxDepth = 4096

// Interleaving is an order of transmission in which neighbours are symbols of
// different blocks, so that a burst of losses takes few symbols from each of
// many blocks rather than most of one. The blocks of an object form groups of
// at most the depth, as even as possible; a group is sent symbol by symbol of
// all its blocks, and one group after the other. With depth 1 that is the
// plain order. RFC 5740 knows nothing of it: the receivers must be told.
type Interleaving struct {
	blocks                  int64
	largeGroups             int64 // the first groups have one block more
	largeLen, smallLen, cut int64 // cut is the first block of the small groups
}

// Interleave gives the order for the blocks of an object, 0 for none, and a
// depth of 1 to MaxDepth.
func Interleave(blocks int64, depth int) (Interleaving, error) {
	if blocks < 0 || depth < 1 || depth > MaxDepth {
		return Interleaving{}, fmt.Errorf("%d blocks interleaved by %d: want a depth of 1 to %d", blocks, depth, MaxDepth)
	}
	if blocks == 0 {
		return Interleaving{}, nil
	}
	groups := (blocks-1)/int64(depth) + 1
	i := Interleaving{blocks: blocks, smallLen: blocks / groups, largeGroups: blocks % groups}
	i.largeLen = i.smallLen + 1
	i.cut = i.largeGroups * i.largeLen
	return i, nil
}

// Group gives the first block of the group that a block is in, and the first
// block behind it.
func (i Interleaving) Group(block int64) (first, end int64) {
	if block < i.cut {
		first = block - block%i.largeLen
		return first, first + i.largeLen
	}
	first = block - (block-i.cut)%i.smallLen
	return first, first + i.smallLen
}
