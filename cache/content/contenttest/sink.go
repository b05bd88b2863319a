package contenttest

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/cistern-edge/cistern/cache/content"
)

// limit is how long an object of unknown size may become, in bytes.
const limit = 64 << 20

// Sink is a content.Sink in memory that notes every broken promise. It is safe
// for concurrent use.
type Sink struct {
	layer    *content.Layer
	wanted   chan struct{}
	onAccept func(accepted int64) // called without mu, as the next
	onRefuse func(refused int)

	// mu guards what follows.
	mu       sync.Mutex
	size     int64
	data     []byte
	written  content.Ranges
	accepted content.Ranges
	claims   content.Ranges
	refuse   map[int64]bool // blocks that are refuted once, whatever is in them
	refused  int
	again    int64 // bytes written over accepted ones
	closed   bool
	faults   []string
}

var _ content.Sink = (*Sink)(nil)

// NewSink makes an empty sink for an object of size bytes, or of
// content.UnknownSize. layer refutes what is wrong; it may be nil.
func NewSink(size int64, layer *content.Layer) *Sink {
	return &Sink{
		layer: layer, wanted: make(chan struct{}, 1), size: size, data: make([]byte, max(size, 0)), refuse: map[int64]bool{},
	}
}

// Have puts bytes into the sink as if they had been accepted before.
func (s *Sink) Have(p []byte, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := content.Range{Off: off, End: off + int64(len(p))}
	copy(s.data[r.Off:r.End], p)
	s.written.Add(r)
	s.accepted.Add(r)
}

// Refuse makes the sink refute block i the next time it is whole, whatever is
// in it.
func (s *Sink) Refuse(i int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[i] = true
}

// Refused is how many blocks were refuted.
func (s *Sink) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// Close says that the Source has returned: whatever it does from now on is a
// fault, and so are claims that it still holds.
func (s *Sink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if len(s.claims) > 0 {
		s.fault("claims %v were not released", s.claims)
	}
}

// Faults lists the broken promises.
func (s *Sink) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.faults...)
}

// Again is how many bytes were written where bytes had been accepted.
func (s *Sink) Again() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again
}

// Accepted is how many bytes have been accepted.
func (s *Sink) Accepted() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted.Len()
}

// Diff says how the accepted bytes differ from data; "" if they do not and
// nothing is missing.
func (s *Sink) Diff(data []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.size != int64(len(data)):
		return fmt.Sprintf("size is %d, want %d", s.size, len(data))
	case !s.accepted.Covers(content.Range{End: s.size}):
		return fmt.Sprintf("%v is missing", s.accepted.Without(content.Range{End: s.size}))
	case !bytes.Equal(s.data[:s.size], data):
		return "accepted bytes are wrong"
	}
	return ""
}

// fault notes a broken promise; s.mu is held.
func (s *Sink) fault(format string, args ...any) {
	if len(s.faults) < 20 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// end is where the object ends, as far as that is known; s.mu is held.
func (s *Sink) end() int64 {
	if s.size < 0 {
		return math.MaxInt64
	}
	return s.size
}

// Size implements content.Sink.
func (s *Sink) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// SetSize implements content.Sink.
func (s *Sink) SetSize(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var beyond bool
	if n := len(s.accepted); n > 0 {
		beyond = s.accepted[n-1].End > size
	}
	switch {
	case s.closed:
		s.fault("size was set after Fill returned")
	case size < 0 || size > limit || beyond || s.size >= 0 && s.size != size:
		s.fault("size was said to be %d, was %d", size, s.size)
	default:
		s.size = size
		s.data = append(s.data, make([]byte, max(0, size-int64(len(s.data))))...)
		return nil
	}
	return fmt.Errorf("size cannot be %d", size)
}

// Missing implements content.Sink.
func (s *Sink) Missing() []content.Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted.Without(content.Range{End: s.end()})
}

// Claim implements content.Sink.
func (s *Sink) Claim(at, most int64) (content.Range, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.fault("a range was claimed after Fill returned")
		return content.Range{}, false
	}
	if most <= 0 {
		return content.Range{}, false
	}
	for _, gap := range s.accepted.Without(content.Range{Off: max(at, 0), End: s.end()}) {
		unclaimed := s.claims.Without(gap)
		if len(unclaimed) == 0 {
			continue
		}
		free := unclaimed[0]
		if at >= 0 && free.Off != at {
			return content.Range{}, false
		}
		if free.End-most > free.Off {
			free.End = free.Off + most
		}
		s.claims.Add(free)
		return free, true
	}
	return content.Range{}, false
}

// Release implements content.Sink.
func (s *Sink) Release(r content.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.claims.Covers(r) {
		s.fault("%s was released, claimed is %v", r, s.claims)
	}
	s.claims.Remove(r)
}

// Wanted implements content.Sink. No reader ever waits here.
func (s *Sink) Wanted() <-chan struct{} { return s.wanted }

// WriteAt implements content.Sink.
func (s *Sink) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := content.Range{Off: off, End: off + int64(len(p))}
	switch {
	case s.closed:
		s.fault("%s was written after Fill returned", r)
	case off < 0 || r.End < off || r.End > min(s.end(), limit):
		s.fault("%s was written, the object ends at %d", r, s.size)
	default:
		s.data = append(s.data, make([]byte, max(0, r.End-int64(len(s.data))))...)
		for _, gap := range s.accepted.Without(r) {
			copy(s.data[gap.Off:gap.End], p[gap.Off-off:])
			s.written.Add(gap)
		}
		for _, had := range s.accepted.Within(r) {
			s.again += had.Len()
		}
		return len(p), nil
	}
	return 0, fmt.Errorf("write %s: refused", r)
}

// ReadAt implements content.Sink.
func (s *Sink) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := content.Range{Off: off, End: off + int64(len(p))}
	if off < 0 || r.End < off || r.Off >= int64(len(s.data)) {
		return 0, io.EOF
	}
	if !s.written.Covers(r.Clip(content.Range{End: int64(len(s.data))})) {
		s.fault("%s was read back, written is %v", r, s.written)
	}
	n := copy(p, s.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Accept implements content.Sink.
func (s *Sink) Accept(r content.Range) error {
	total, err := s.accept(r)
	switch {
	case err == nil && s.onAccept != nil:
		s.onAccept(total)
	case err != nil && s.onRefuse != nil:
		s.onRefuse(s.Refused())
	}
	return err
}

func (s *Sink) accept(r content.Range) (total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		s.fault("%s was accepted after Fill returned", r)
		return 0, fmt.Errorf("accept %s: refused", r)
	case r.Off < 0 || r.End > s.end() || !s.written.Covers(r):
		s.fault("%s was accepted, written is %v of %d", r, s.written, s.size)
		return 0, fmt.Errorf("accept %s: refused", r)
	}
	s.accepted.Add(r)
	for i := r.Off / content.BlockSize; r.Len() > 0 && i <= (r.End-1)/content.BlockSize; i++ {
		if b := content.Block(i, s.end()); s.accepted.Covers(b) && s.refutes(i, b) {
			s.refused++
			s.accepted.Remove(b)
			s.written.Remove(b)
			err = fmt.Errorf("block %d: %w", i, content.ErrBadPiece)
		}
	}
	return s.accepted.Len(), err
}

// refutes reports whether block i is bad, or to be taken for bad this once;
// s.mu is held.
func (s *Sink) refutes(i int64, b content.Range) bool {
	if s.refuse[i] {
		delete(s.refuse, i)
		return true
	}
	if s.layer == nil {
		return false
	}
	leaves, err := content.HashLeaves(nil, bytes.NewReader(s.data[b.Off:b.End]))
	return err != nil || content.BlockHash(leaves, s.size) != s.layer.Hashes[i]
}
