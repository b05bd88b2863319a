package fec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func randomBlock(rng *rand.Rand, n, symbol int) [][]byte {
	block := Buffers(n, Stride(symbol))
	for _, s := range block {
		for i := range symbol {
			s[i] = byte(rng.Uint32())
		}
	}
	return block
}

func encodeAll(t testing.TB, c *Code, source [][]byte) [][]byte {
	t.Helper()
	parity := Buffers(c.Parity(), len(source[0]))
	for first := 0; first < c.Parity(); {
		_, end := c.Step(first)
		if err := c.Encode(source, first, parity[first:end]); err != nil {
			t.Fatal(err)
		}
		first = end
	}
	return parity
}

func cloneAll(in [][]byte) [][]byte {
	out := make([][]byte, len(in))
	for i := range in {
		out[i] = bytes.Clone(in[i])
	}
	return out
}

// Any numData symbols of a block give the whole block, also a shortened one.
func TestReconstructFromAnySymbols(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, kr := range [][2]int{{1, 1}, {2, 1}, {5, 3}, {20, 10}, {64, 16}, {64, 64}, {200, 40}, {254, 1}} {
		k, r := kr[0], kr[1]
		c, err := New(k, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, (k + 1) / 2, k} {
			source := randomBlock(rng, n, 100)
			parity := encodeAll(t, c, source)
			for range 4 {
				e := 1 + rng.IntN(min(n, r))
				missing, rows := rng.Perm(n)[:e], rng.Perm(r)[:e]
				damaged, with := cloneAll(source), make([][]byte, e)
				for i := range e {
					for j := range damaged[missing[i]] {
						damaged[missing[i]][j] = 0xee
					}
					with[i] = bytes.Clone(parity[rows[i]])
				}
				if err := c.Reconstruct(damaged, missing, rows, with); err != nil {
					t.Fatalf("k=%d r=%d n=%d: %v", k, r, n, err)
				}
				for i := range source {
					if !bytes.Equal(damaged[i], source[i]) {
						t.Fatalf("k=%d r=%d n=%d missing %v rows %v: symbol %d differs", k, r, n, missing, rows, i)
					}
				}
			}
		}
	}
}

// The columns of a symbol are coded independently, so padding stays zero and
// a prefix of the symbols has the prefix of the parity.
func TestPaddingStaysZero(t *testing.T) {
	c, err := New(10, 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range encodeAll(t, c, randomBlock(rand.New(rand.NewPCG(3, 4)), 7, 70)) {
		if len(p) != 128 || !bytes.Equal(p[70:], make([]byte, 58)) {
			t.Fatalf("padding of parity is % x", p[70:])
		}
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	for _, kr := range [][2]int{{0, 1}, {-1, 1}, {1, -1}, {200, 56}, {256, 0}} {
		if _, err := New(kr[0], kr[1]); err == nil {
			t.Errorf("New(%d, %d) succeeded", kr[0], kr[1])
		}
	}
	c, err := New(4, 12)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"too many symbols":  c.Encode(Buffers(5, 64), 0, Buffers(8, 64)),
		"no symbols":        c.Encode(nil, 0, Buffers(8, 64)),
		"not a step":        c.Encode(Buffers(4, 64), 1, Buffers(8, 64)),
		"row too high":      c.Encode(Buffers(4, 64), 16, Buffers(8, 64)),
		"short last step":   c.Encode(Buffers(4, 64), 8, Buffers(8, 64)),
		"parity length":     c.Encode(Buffers(4, 64), 0, Buffers(8, 128)),
		"missing too high":  c.Reconstruct(Buffers(4, 64), []int{4}, []int{0}, Buffers(1, 64)),
		"missing twice":     c.Reconstruct(Buffers(4, 64), []int{1, 1}, []int{0, 1}, Buffers(2, 64)),
		"row twice":         c.Reconstruct(Buffers(4, 64), []int{1, 2}, []int{0, 0}, Buffers(2, 64)),
		"row out of range":  c.Reconstruct(Buffers(4, 64), []int{1}, []int{12}, Buffers(1, 64)),
		"counts differ":     c.Reconstruct(Buffers(4, 64), []int{1, 2}, []int{0}, Buffers(1, 64)),
		"buffers differ":    c.Reconstruct(append(Buffers(3, 64), Buffers(1, 65)...), []int{1}, []int{0}, Buffers(1, 64)),
		"parity too short":  c.Reconstruct(Buffers(4, 64), []int{1}, []int{0}, Buffers(1, 63)),
		"reconstruct short": c.Reconstruct(nil, nil, nil, nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, kr := range [][3]int{{64, 16, 8}, {64, 16, 16}, {200, 40, 8}, {200, 40, 40}} {
		b.Run(fmt.Sprintf("k%d_rows%d", kr[0], kr[2]), func(b *testing.B) {
			c, err := New(kr[0], kr[1])
			if err != nil {
				b.Fatal(err)
			}
			source := randomBlock(rand.New(rand.NewPCG(1, 1)), kr[0], 1400)
			parity := Buffers(kr[1], len(source[0]))
			b.SetBytes(int64(kr[0] * 1400))
			for b.Loop() {
				for first := 0; first < kr[2]; first += rowsPerStep {
					if err := c.Encode(source, first, parity[first:first+rowsPerStep]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkReconstruct(b *testing.B) {
	for _, kre := range [][3]int{{64, 16, 3}, {64, 16, 13}, {200, 40, 10}} {
		b.Run(fmt.Sprintf("k%d_e%d", kre[0], kre[2]), func(b *testing.B) {
			c, err := New(kre[0], kre[1])
			if err != nil {
				b.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 1))
			source := randomBlock(rng, kre[0], 1400)
			parity := encodeAll(b, c, source)[:kre[2]]
			missing, rows := rng.Perm(kre[0])[:kre[2]], make([]int, kre[2])
			for i := range rows {
				rows[i] = i
			}
			b.SetBytes(int64(kre[0] * 1400))
			for b.Loop() {
				if err := c.Reconstruct(source, missing, rows, parity); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
