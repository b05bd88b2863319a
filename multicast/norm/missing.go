package norm

import (
	"maps"
	"slices"
)

// missing gives the byte ranges that are not written. It takes no longer for an
// object that was forged to be huge.
func (o *rxObject) missing() (out []Range) {
	if o.from > 0 {
		out = appendMissing(out, 0, o.start(int64(o.from)))
	}
	if o.left == 0 {
		return out
	}
	next := int64(o.low)
	for _, number := range slices.Sorted(maps.Keys(o.blocks)) {
		out = o.missingBlocks(out, next, int64(number))
		out = o.missingSymbols(out, int64(number), o.blocks[number])
		next = int64(number) + 1
	}
	return o.missingBlocks(out, next, o.part.Blocks)
}

// start is where a block begins, or the object ends.
func (o *rxObject) start(block int64) int64 {
	if block >= o.part.Blocks {
		return o.fti.Size
	}
	off, _ := o.part.Span(block, 0)
	return off
}

// missingBlocks appends blocks from first up to, not including, end, which are
// complete or not heard of.
func (o *rxObject) missingBlocks(out []Range, first, end int64) []Range {
	for first < end {
		stop := min(end, (first>>9+1)<<9)
		if o.complete[uint32(first>>9)] != nil {
			stop = first + 1
		}
		if !o.complete.has(uint32(first)) {
			out = appendMissing(out, o.start(first), o.start(stop))
		}
		first = stop
	}
	return out
}

// missingSymbols appends what a block lacks.
func (o *rxObject) missingSymbols(out []Range, number int64, b *rxBlock) []Range {
	for i := b.have.nextAbsent(0); i < b.n; {
		end := min(b.have.next(i), b.n)
		off, _ := o.part.Span(number, i)
		last, size := o.part.Span(number, end-1)
		out = appendMissing(out, off, last+int64(size))
		i = b.have.nextAbsent(end)
	}
	return out
}

// appendMissing appends a range, in one with that before if they touch.
func appendMissing(out []Range, first, end int64) []Range {
	if n := len(out); n > 0 && out[n-1].End == first {
		out[n-1].End = end
		return out
	}
	return append(out, Range{first, end})
}
