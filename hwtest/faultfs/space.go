//go:build linux

package faultfs

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// Units of what a disk keeps or loses, in bytes.
const (
	blockSize  = 4096
	sectorSize = 512
)

// span returns the blocks [first, past) that the bytes [off, end) touch.
func span(off, end int64) (first, past int64) {
	return off / blockSize, (end + blockSize - 1) / blockSize
}

// blocks is a set of block numbers of one file.
type blocks []uint64

func (s blocks) has(i int64) bool {
	return i/64 < int64(len(s)) && s[i/64]>>(i%64)&1 == 1
}

func (s *blocks) add(i int64) {
	for int64(len(*s)) <= i/64 {
		*s = append(*s, 0)
	}
	(*s)[i/64] |= 1 << (i % 64)
}

func (s blocks) remove(i int64) {
	if i/64 < int64(len(s)) {
		s[i/64] &^= 1 << (i % 64)
	}
}

func (s blocks) count() int64 {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return int64(n)
}

// past is above every member.
func (s blocks) past() int64 { return int64(len(s)) * 64 }

// within gives the members in [first, past); each may be removed when given.
func (s blocks) within(first, past int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for i := first; i < min(past, s.past()); i++ {
			if s.has(i) && !yield(i) {
				return
			}
		}
	}
}

// space counts the blocks in use and says when there are no more. Safe for
// concurrent use.
type space struct {
	used, limit atomic.Int64
}

func (s *space) take(n int64) bool {
	if s.used.Add(n) <= s.limit.Load() || n == 0 {
		return true
	}
	s.used.Add(-n)
	return false
}

func (s *space) give(n int64) { s.used.Add(-n) }

// room is how many more blocks fit.
func (s *space) room() int64 { return max(0, s.limit.Load()-s.used.Load()) }
