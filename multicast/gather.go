package multicast

import "github.com/cistern-edge/cistern/cache/content"

// gatherSize is how many bytes are gathered before they are written.
const gatherSize = 256 << 10

// gather puts symbols that come in order together into long writes, which begin
// and end at multiples of gatherSize. Those that fill gaps behind are written at
// once.
type gather struct {
	write func(p []byte, r content.Range) error
	read  func(p []byte, off int64) (int, error)

	at   int64 // where the buffer begins
	buf  []byte
	have content.Ranges // in the buffer
}

// put takes the bytes of r.
func (g *gather) put(p []byte, r content.Range) error {
	for r.Len() > 0 {
		if r.Off < g.at {
			return g.write(p, r)
		}
		if r.Off >= g.at+gatherSize {
			if err := g.flush(); err != nil {
				return err
			}
			g.at = r.Off - r.Off%gatherSize
		}
		if g.buf == nil {
			g.buf = make([]byte, gatherSize)
		}
		n := copy(g.buf[r.Off-g.at:], p)
		g.have.Add(content.Range{Off: r.Off, End: r.Off + int64(n)})
		p, r.Off = p[n:], r.Off+int64(n)
	}
	return nil
}

// get fills p with the bytes of r and gives how many of them there are.
func (g *gather) get(p []byte, r content.Range) (int, error) {
	for _, in := range g.have.Within(r) {
		copy(p[in.Off-r.Off:in.End-r.Off], g.buf[in.Off-g.at:])
	}
	for _, out := range g.have.Without(r) {
		if n, err := g.read(p[out.Off-r.Off:out.End-r.Off], out.Off); int64(n) < out.Len() {
			return int(out.Off - r.Off + int64(n)), err
		}
	}
	return len(p), nil
}

// flush writes what has been gathered.
func (g *gather) flush() error {
	for _, r := range g.have {
		if err := g.write(g.buf[r.Off-g.at:r.End-g.at], r); err != nil {
			return err
		}
	}
	g.have = g.have[:0]
	return nil
}
