package appliance

import (
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
