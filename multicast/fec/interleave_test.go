package fec

import "testing"

// Groups follow each other without gaps, none larger than the depth and none
// smaller than another by more than one block.
func TestGroupsCoverTheBlocks(t *testing.T) {
	for blocks := int64(1); blocks < 200; blocks++ {
		for _, depth := range []int{1, 2, 7, 64, MaxDepth} {
			order, err := Interleave(blocks, depth)
			if err != nil {
				t.Fatal(err)
			}
			least, most := blocks, int64(0)
			for next := int64(0); next < blocks; {
				first, end := order.Group(next)
				if first != next || end <= first || end > blocks {
					t.Fatalf("%d blocks, depth %d: group %d to %d at block %d", blocks, depth, first, end, next)
				}
				for b := first; b < end; b++ {
					if f, e := order.Group(b); f != first || e != end {
						t.Fatalf("%d blocks, depth %d: block %d in group %d to %d, not %d to %d", blocks, depth, b, f, e, first, end)
					}
				}
				least, most = min(least, end-first), max(most, end-first)
				next = end
			}
			if most > int64(depth) || most-least > 1 {
				t.Errorf("%d blocks, depth %d: groups of %d to %d blocks", blocks, depth, least, most)
			}
		}
	}
}

func TestInterleaveRefuses(t *testing.T) {
	for _, bad := range [][2]int{{-1, 1}, {1, 0}, {1, MaxDepth + 1}} {
		if _, err := Interleave(int64(bad[0]), bad[1]); err == nil {
			t.Errorf("Interleave(%v) succeeded", bad)
		}
	}
	if _, err := Interleave(0, 1); err != nil {
		t.Errorf("an object without blocks: %v", err)
	}
}
