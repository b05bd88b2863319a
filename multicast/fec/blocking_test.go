package fec

import "testing"

func TestPartition(t *testing.T) {
	for _, c := range []struct {
		size            int64
		symbol, k       int
		symbols, blocks int64
		large           int64
		largeLen, small int
	}{
		{0, 1400, 64, 0, 0, 0, 0, 0},
		{1, 1400, 64, 1, 1, 0, 1, 1},
		{1400, 1400, 64, 1, 1, 0, 1, 1},
		{1401, 1400, 64, 2, 1, 0, 2, 2},
		{64 * 1400, 1400, 64, 64, 1, 0, 64, 64},
		{64*1400 + 1, 1400, 64, 65, 2, 1, 33, 32},
		{3000007, 1400, 64, 2143, 34, 1, 64, 63},
		{3000007, 1400, 200, 2143, 11, 9, 195, 194},
		{1<<48 - 1, 1400, 64, 201053554794, 3141461794, 3141461772, 64, 63},
	} {
		b, err := Partition(c.size, c.symbol, c.k)
		if err != nil {
			t.Fatal(err)
		}
		large := c.large
		if c.largeLen == c.small {
			large = 0
		}
		if b.Symbols != c.symbols || b.Blocks != c.blocks || b.LargeLen != c.largeLen || b.SmallLen != c.small || b.LargeBlocks != large {
			t.Errorf("Partition(%d, %d, %d) = %+v", c.size, c.symbol, c.k, b)
		}
	}
	for _, bad := range [][3]int{{-1, 1, 1}, {1, 0, 1}, {1, 1, 0}} {
		if _, err := Partition(int64(bad[0]), bad[1], bad[2]); err == nil {
			t.Errorf("Partition(%v) succeeded", bad)
		}
	}
}

// The spans of all symbols of all blocks cover the object once, in order.
func TestSpansCoverTheObject(t *testing.T) {
	for size := int64(1); size < 400; size++ {
		for _, k := range []int{1, 3, 7} {
			b, err := Partition(size, 10, k)
			if err != nil {
				t.Fatal(err)
			}
			next := int64(0)
			for block := range b.Blocks {
				if b.Len(block) > k || b.Len(block) < 1 {
					t.Fatalf("size %d k %d: block %d has %d symbols", size, k, block, b.Len(block))
				}
				for i := range b.Len(block) {
					off, n := b.Span(block, i)
					if off != next || n < 1 {
						t.Fatalf("size %d k %d: block %d symbol %d at %d+%d, want %d", size, k, block, i, off, n, next)
					}
					next = off + int64(n)
				}
			}
			if next != size {
				t.Fatalf("size %d k %d: covered %d", size, k, next)
			}
		}
	}
}
