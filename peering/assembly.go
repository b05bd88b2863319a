package peering

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/cistern-edge/cistern/cache/content"
)

// maxAssembled is how many bytes of pieces that are still coming all torrents
// together hold in memory; what is beyond goes to the store as it comes.
const maxAssembled = 32 << 20

// assemblies are the pieces of one torrent that come into memory: they are hashed
// there and written in one go once they are right, instead of being written in
// blocks of 16 KiB and read back. A piece is either there or in the store, never
// in both; one that a mirror has a part in is always in the store.
type assemblies struct {
	used *atomic.Int64 // bytes of all torrents

	// mu guards what follows, and the bytes until a piece is whole.
	mu    sync.Mutex
	of    map[int]*assembly
	spare []byte // of a piece that has ended, for the next one
}

// assembly is a piece on its way.
type assembly struct {
	bytes []byte
	have  content.Ranges // of the piece
}

func (a *assembly) whole() bool {
	return len(a.have) == 1 && a.have[0].Len() == int64(len(a.bytes))
}

// begin makes room for piece i of so many bytes, if there is any.
func (as *assemblies) begin(i int, size int64) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.of[i] != nil {
		return
	}
	if as.used.Add(size) > maxAssembled {
		as.used.Add(-size)
		return
	}
	bytes := as.spare
	if as.spare = nil; int64(cap(bytes)) < size {
		bytes = make([]byte, size)
	}
	as.of[i] = &assembly{bytes: bytes[:size]}
}

// write takes bytes of piece i, if that is coming into memory.
func (as *assemblies) write(i int, b []byte, off int64) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.of[i]
	if a == nil {
		return false
	}
	copy(a.bytes[off:], b)
	a.have.Add(content.Range{Off: off, End: off + int64(len(b))})
	return true
}

// whole gives the bytes of piece i if all of them are in memory. They stay as they
// are until the piece is taken.
func (as *assemblies) whole(i int) ([]byte, bool) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a := as.of[i]; a != nil && a.whole() {
		return a.bytes, true
	}
	return nil, false
}

// take ends the assembly of piece i; nil if there is none.
func (as *assemblies) take(i int) *assembly {
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.of[i]
	if a != nil {
		delete(as.of, i)
		as.used.Add(-int64(len(a.bytes)))
	}
	return a
}

// reuse lets the next piece have the memory of one that nobody reads any more, if
// there was one.
func (as *assemblies) reuse(a *assembly) {
	if a == nil {
		return
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	as.spare = a.bytes
}

// clear forgets every piece.
func (as *assemblies) clear() {
	as.mu.Lock()
	defer as.mu.Unlock()
	for i, a := range as.of {
		delete(as.of, i)
		as.used.Add(-int64(len(a.bytes)))
	}
	as.spare = nil
}

// keep writes to the store what had come of the piece into memory, if anything had.
func (p *piece) keep(a *assembly) error {
	if a == nil {
		return nil
	}
	for _, r := range a.have {
		if _, err := p.store(a.bytes[r.Off:r.End], r.Off); err != nil {
			return err
		}
	}
	return nil
}

// WriteTo gives the piece to be hashed; it implements io.WriterTo.
func (p *piece) WriteTo(w io.Writer) (int64, error) {
	if b, ok := p.coming.whole(p.index); ok {
		n, err := w.Write(b)
		return int64(n), err
	}
	return io.CopyBuffer(w, io.NewSectionReader(p, 0, p.size), make([]byte, 64<<10))
}
