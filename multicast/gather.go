package multicast

import (
	"cmp"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// A gather holds up to gatherWindows windows of gatherSize bytes: the blocks
// that are sent side by side by default, and somewhat more.
const (
	gatherSize    = 256 << 10
	gatherWindows = 12
)

// gather puts symbols together into long writes. A window is written when it is
// full or, of too many, when it is the first one; what comes for it after that
// fills gaps and is written at once.
type gather struct {
	write func(p []byte, r content.Range) error
	read  func(p []byte, off int64) (int, error)

	pool    *gatherPool
	windows []*gatherWindow // in order
	low     int64           // windows before it have been written
}

// gatherPool is the windows that the gathers of one receiver share.
type gatherPool struct {
	spare []*gatherWindow
	left  int // that may yet be made
}

// newGatherPool makes room for several gathers, however many there are: with
// one transfer at a time, and a few on their last windows, none is short.
func newGatherPool() *gatherPool { return &gatherPool{left: 3 * gatherWindows} }

func (p *gatherPool) empty() bool { return p.left == 0 && len(p.spare) == 0 }

// gatherWindow is bytes from a multiple of gatherSize on.
type gatherWindow struct {
	at   int64
	buf  []byte
	have content.Ranges
}

// full reports whether nothing is missing.
func (w *gatherWindow) full() bool { return len(w.have) == 1 && w.have[0].Len() == gatherSize }

// chunks calls f for the parts of p, the bytes of r, that lie in one window each.
func chunks(p []byte, r content.Range, f func(base int64, p []byte, r content.Range) error) error {
	for r.Len() > 0 {
		base := r.Off - r.Off%gatherSize
		part := content.Range{Off: r.Off, End: min(r.End, base+gatherSize)}
		if err := f(base, p[:part.Len()], part); err != nil {
			return err
		}
		p, r.Off = p[part.Len():], part.End
	}
	return nil
}

// find gives the place of a window, and whether it is there.
func (g *gather) find(base int64) (int, bool) {
	return slices.BinarySearchFunc(g.windows, base, func(w *gatherWindow, base int64) int { return cmp.Compare(w.at, base) })
}

// put takes the bytes of r.
func (g *gather) put(p []byte, r content.Range) error {
	return chunks(p, r, func(base int64, p []byte, r content.Range) error {
		i, ok := g.find(base)
		crowded := len(g.windows) == gatherWindows || g.pool.empty()
		switch {
		case ok:
		case base < g.low, crowded && i == 0:
			return g.write(p, r)
		case crowded:
			if err := g.settle(0); err != nil {
				return err
			}
			i--
			fallthrough
		default:
			g.windows = slices.Insert(g.windows, i, g.open(base))
		}
		w := g.windows[i]
		copy(w.buf[r.Off-base:], p)
		if w.have.Add(r); w.full() {
			return g.settle(i)
		}
		return nil
	})
}

// open gives an empty window; the pool is not empty.
func (g *gather) open(base int64) *gatherWindow {
	n := len(g.pool.spare) - 1
	if n < 0 {
		g.pool.left--
		return &gatherWindow{at: base, buf: make([]byte, gatherSize)}
	}
	w := g.pool.spare[n]
	g.pool.spare = g.pool.spare[:n]
	w.at, w.have = base, w.have[:0]
	return w
}

// settle writes the window at a place and forgets it.
func (g *gather) settle(i int) error {
	w := g.windows[i]
	g.windows = slices.Delete(g.windows, i, i+1)
	defer func() { g.pool.spare = append(g.pool.spare, w) }()
	if i == 0 {
		g.low = w.at + gatherSize
	}
	for _, r := range w.have {
		if err := g.write(w.buf[r.Off-w.at:r.End-w.at], r); err != nil {
			return err
		}
	}
	return nil
}

// get fills p with the bytes of r and gives how many of them there are.
func (g *gather) get(p []byte, r content.Range) (n int, err error) {
	err = chunks(p, r, func(base int64, p []byte, r content.Range) error {
		gaps := content.Ranges{r}
		if i, ok := g.find(base); ok {
			w := g.windows[i]
			for _, in := range w.have.Within(r) {
				copy(p[in.Off-r.Off:], w.buf[in.Off-base:in.End-base])
			}
			gaps = w.have.Without(r)
		}
		for _, gap := range gaps {
			if got, err := g.read(p[gap.Off-r.Off:gap.End-r.Off], gap.Off); int64(got) < gap.Len() {
				n += int(gap.Off-r.Off) + got
				return err
			}
		}
		n += int(r.Len())
		return nil
	})
	return n, err
}

// drop forgets what has been gathered.
func (g *gather) drop() {
	g.pool.spare = append(g.pool.spare, g.windows...)
	g.windows = nil
}

// flush writes what has been gathered.
func (g *gather) flush() error {
	for len(g.windows) > 0 {
		if err := g.settle(0); err != nil {
			return err
		}
	}
	return nil
}
