package fec

import "errors"

// The field is GF(2^8) modulo x^8+x^4+x^3+x^2+1 with generator α = 2.
const polynomial = 0x11d

// field holds the logarithms to base α. It is built for each matrix: that
// takes a microsecond and leaves no package state.
type field struct {
	exp [510]byte
	log [256]int
}

func newField() *field {
	var f field
	x := 1
	for i := range 255 {
		f.exp[i], f.exp[i+255] = byte(x), byte(x)
		f.log[x] = i
		if x <<= 1; x > 255 {
			x ^= polynomial
		}
	}
	return &f
}

func (f *field) mul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return f.exp[f.log[a]+f.log[b]]
}

// div is a/b; b must not be zero.
func (f *field) div(a, b byte) byte {
	if a == 0 {
		return 0
	}
	return f.exp[f.log[a]+255-f.log[b]]
}

// point is the i-th evaluation point as Rizzo's code has them: 0, 1, α, α², …
func (f *field) point(i int) byte {
	if i == 0 {
		return 0
	}
	return f.exp[i-1]
}

// parityMatrix gives the bottom r rows of the systematic Vandermonde matrix
// of k+r points. Row i, column j is the j-th Lagrange basis polynomial on the
// first k points, at point k+i.
func parityMatrix(k, r int) [][]byte {
	f := newField()
	// den[j] = ∏ (x_j - x_t) over t != j; subtraction is exclusive or.
	den := make([]byte, k)
	for j := range den {
		den[j] = 1
		for t := range k {
			if t != j {
				den[j] = f.mul(den[j], f.point(j)^f.point(t))
			}
		}
	}
	m := make([][]byte, r)
	for i := range m {
		x := f.point(k + i)
		all := byte(1) // ∏ (x - x_t) over all t
		for t := range k {
			all = f.mul(all, x^f.point(t))
		}
		m[i] = make([]byte, k)
		for j := range m[i] {
			m[i][j] = f.div(f.div(all, x^f.point(j)), den[j])
		}
	}
	return m
}

var errSingular = errors.New("matrix has no inverse")

// invert gives the inverse of a square matrix, which it destroys.
func invert(m [][]byte) ([][]byte, error) {
	f := newField()
	n := len(m)
	inv := make([][]byte, n)
	for i := range inv {
		inv[i] = make([]byte, n)
		inv[i][i] = 1
	}
	for col := range n {
		pivot := col
		for pivot < n && m[pivot][col] == 0 {
			pivot++
		}
		if pivot == n {
			return nil, errSingular
		}
		m[col], m[pivot] = m[pivot], m[col]
		inv[col], inv[pivot] = inv[pivot], inv[col]
		scale := f.div(1, m[col][col])
		for j := range n {
			m[col][j] = f.mul(m[col][j], scale)
			inv[col][j] = f.mul(inv[col][j], scale)
		}
		for row := range n {
			factor := m[row][col]
			if row == col || factor == 0 {
				continue
			}
			for j := range n {
				m[row][j] ^= f.mul(factor, m[col][j])
				inv[row][j] ^= f.mul(factor, inv[col][j])
			}
		}
	}
	return inv, nil
}
