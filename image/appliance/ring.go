package appliance

import (
	"bytes"
	"io"
	"sync"
)

// Ring keeps the last lines that were written to it and passes them on. It is
// safe for concurrent use.
type Ring struct {
	out io.Writer // may be nil

	// mu guards what follows.
	mu   sync.Mutex
	text []byte
	max  int
	tail []chan []byte
}

// NewRing keeps about so many bytes.
func NewRing(bytes int, out io.Writer) *Ring { return &Ring{out: out, max: bytes} }

// Write never fails: a console that is gone is no reason to stop.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, p...)
	if over := len(r.text) - r.max; over > r.max/4 {
		r.text = append(r.text[:0], r.text[over:]...)
	}
	if r.out != nil {
		_, _ = r.out.Write(p)
	}
	for _, t := range r.tail {
		select {
		case t <- append([]byte(nil), p...):
		default: // who reads is too slow
		}
	}
	return len(p), nil
}

// Follow gives what is kept and then all that is written, for as long as the Ring
// lives. A reader that is slow misses some.
func (r *Ring) Follow() <-chan []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := make(chan []byte, 256)
	t <- append([]byte(nil), r.text...)
	r.tail = append(r.tail, t)
	return t
}

// Bytes is a copy of what is kept, oldest first.
func (r *Ring) Bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]byte(nil), r.text...)
}

// longestLine is what a Unit holds back of a line that has no end, in bytes.
const longestLine = 8 << 10

// Unit is a way into the Ring for one program: its lines come whole, never in the
// middle of another's, and say whose they are. It is for one goroutine.
func (r *Ring) Unit(name string) io.Writer {
	return &unit{ring: r, mark: []byte(" unit=" + name + "\n")}
}

type unit struct {
	ring *Ring
	mark []byte // what a line ends with
	rest []byte // of a line whose end has not come
}

// Write never fails.
func (u *unit) Write(p []byte) (int, error) {
	u.rest = append(u.rest, p...)
	for {
		i := bytes.IndexByte(u.rest, '\n')
		if i < 0 && len(u.rest) > longestLine {
			i = longestLine
		}
		if i < 0 {
			return len(p), nil
		}
		line := bytes.TrimRight(u.rest[:i], "\r ")
		if len(line) > 0 {
			_, _ = u.ring.Write(append(bytes.Clone(line), u.mark...))
		}
		u.rest = bytes.TrimPrefix(u.rest[i:], []byte("\n"))
	}
}
