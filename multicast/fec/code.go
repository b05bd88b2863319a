// Package fec is the erasure code of NORM file transfers: Reed-Solomon over
// GF(2^8) (fec_id 5, RFC 5510) with the parity that NRL's libnorm computes,
// and the partition of an object into source blocks (RFC 5052 §9.1).
//
// libnorm's parity is not that of RFC 5510's text: its evaluation points are
// 0, 1, α, α², … instead of 1, α, α², …, and a shortened block keeps the
// matrix of the full one. Parity here is bit-identical to libnorm's; the tests
// prove it on captures.
//
// The package knows nothing of packets, time or files. It refuses fields
// larger than GF(2^8): k + r is at most 255. Start reading at [New].
package fec

import (
	"fmt"
	"sync"

	"github.com/klauspost/reedsolomon"
)

// rowsPerStep is how many parity rows are computed together. One pass over the
// source makes this many; few blocks ever need more.
const rowsPerStep = 8

// Code makes r parity symbols for blocks of up to k source symbols, and source
// symbols back from them. It is immutable and safe for concurrent use.
type Code struct {
	k, r   int
	matrix [][]byte // r rows of k coefficients
	// steps[i] gives the encoder of the rows from i*rowsPerStep. They are made
	// when first used: who only reconstructs needs none.
	steps []func() (reedsolomon.Encoder, error)
}

// New makes the code for blocks of at most k source and r parity symbols,
// k ≥ 1, r ≥ 0, k+r ≤ 255.
func New(k, r int) (*Code, error) {
	if k < 1 || r < 0 || k+r > 255 {
		return nil, fmt.Errorf("k=%d, r=%d: want k >= 1, r >= 0 and k+r <= 255", k, r)
	}
	c := &Code{k: k, r: r, matrix: parityMatrix(k, r)}
	for first := 0; first < r; first += rowsPerStep {
		rows := c.matrix[first:min(first+rowsPerStep, r)]
		c.steps = append(c.steps, sync.OnceValues(func() (reedsolomon.Encoder, error) {
			return reedsolomon.New(k, len(rows),
				reedsolomon.WithCustomMatrix(rows), reedsolomon.WithMaxGoroutines(1))
		}))
	}
	return c, nil
}

// K is the largest number of source symbols of a block.
func (c *Code) K() int { return c.k }

// Parity is the number of parity symbols of a block.
func (c *Code) Parity() int { return c.r }

// Step gives the rows that Encode computes together with row: from first up
// to, not including, end. Row must be below Parity.
func (c *Code) Step(row int) (first, end int) {
	first = row - row%rowsPerStep
	return first, min(first+rowsPerStep, c.r)
}

// Encode computes the parity rows of the Step that starts with row first into
// parity, one buffer a row. source holds the 1 to k symbols of the block; a
// short block stands for one filled up with zero symbols. All buffers have the
// same length, best a [Stride]; a short last segment is padded with zeros.
func (c *Code) Encode(source [][]byte, first int, parity [][]byte) error {
	if len(source) < 1 || len(source) > c.k {
		return fmt.Errorf("%d source symbols: want 1 to %d", len(source), c.k)
	}
	if first < 0 || first >= c.r || first%rowsPerStep != 0 {
		return fmt.Errorf("row %d starts no step of %d rows", first, c.r)
	}
	if _, end := c.Step(first); len(parity) != end-first {
		return fmt.Errorf("%d parity buffers: want %d from row %d", len(parity), end-first, first)
	}
	step, err := c.steps[first/rowsPerStep]()
	if err != nil {
		return fmt.Errorf("make encoder for rows from %d: %w", first, err)
	}
	shards := make([][]byte, c.k, c.k+len(parity))
	copy(shards, source)
	if len(source) < c.k {
		zero := make([]byte, len(source[0]))
		for i := len(source); i < c.k; i++ {
			shards[i] = zero
		}
	}
	if err := step.Encode(append(shards, parity...)); err != nil {
		return fmt.Errorf("encode rows from %d: %w", first, err)
	}
	return nil
}

// Reconstruct computes the missing symbols of source, whose indices are given,
// in place. For each one a different parity row must be given: its number in
// rows and its symbol in parity, in the same order. The parity buffers are
// overwritten. Buffers are as in Encode.
func (c *Code) Reconstruct(source [][]byte, missing []int, rows []int, parity [][]byte) error {
	if err := c.checkReconstruct(source, missing, rows, parity); err != nil {
		return err
	}
	present := make([]bool, len(source))
	for i := range present {
		present[i] = true
	}
	for _, m := range missing {
		present[m] = false
	}
	var gf reedsolomon.LowLevel
	square := make([][]byte, len(missing))
	for i, row := range rows {
		for j, symbol := range source {
			if present[j] {
				gf.GalMulSliceXor(c.matrix[row][j], symbol, parity[i])
			}
		}
		square[i] = make([]byte, len(missing))
		for j, m := range missing {
			square[i][j] = c.matrix[row][m]
		}
	}
	inverse, err := invert(square)
	if err != nil {
		return fmt.Errorf("rows %v for symbols %v: %w", rows, missing, err)
	}
	for i, m := range missing {
		clear(source[m])
		for j := range parity {
			gf.GalMulSliceXor(inverse[i][j], parity[j], source[m])
		}
	}
	return nil
}

// checkReconstruct refuses what Reconstruct cannot work on.
func (c *Code) checkReconstruct(source [][]byte, missing []int, rows []int, parity [][]byte) error {
	if len(source) < 1 || len(source) > c.k {
		return fmt.Errorf("%d source symbols: want 1 to %d", len(source), c.k)
	}
	if len(missing) != len(rows) || len(rows) != len(parity) {
		return fmt.Errorf("%d missing symbols, %d rows, %d parity symbols: want as many of each", len(missing), len(rows), len(parity))
	}
	var seenSymbol, seenRow [256]bool
	for i := range missing {
		m, row := missing[i], rows[i]
		if m < 0 || m >= len(source) || seenSymbol[m] {
			return fmt.Errorf("missing symbol %d: repeated or not below %d", m, len(source))
		}
		if row < 0 || row >= c.r || seenRow[row] {
			return fmt.Errorf("parity row %d: repeated or not below %d", row, c.r)
		}
		seenSymbol[m], seenRow[row] = true, true
		if len(parity[i]) != len(source[0]) {
			return fmt.Errorf("parity row %d has %d bytes, symbols have %d", row, len(parity[i]), len(source[0]))
		}
	}
	for i, symbol := range source {
		if len(symbol) != len(source[0]) {
			return fmt.Errorf("symbol %d has %d bytes, symbol 0 has %d", i, len(symbol), len(source[0]))
		}
	}
	return nil
}

// Stride is the length of a buffer for symbols of the given size: rounded up
// to a multiple of 64, on which the vector code runs about twice as fast. The
// padding is zero in source symbols and comes out zero in parity.
func Stride(symbol int) int { return (symbol + 63) &^ 63 }

// Buffers gives n symbol buffers of the given stride that lie one behind the
// other in one zeroed allocation.
func Buffers(n, stride int) [][]byte {
	all := make([]byte, n*stride)
	out := make([][]byte, n)
	for i := range out {
		out[i] = all[i*stride : (i+1)*stride : (i+1)*stride]
	}
	return out
}
