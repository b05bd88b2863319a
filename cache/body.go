package cache

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// body is where a fill keeps its bytes: in memory as long as the object may turn
// out to be a small one, else in a blob. It moves from one to the other once.
type body struct {
	mem  []byte // SmallObject bytes, or as many as the object has
	blob atomic.Pointer[disk.Blob]
}

func newBody(b *disk.Blob, size int64) *body {
	bd := &body{}
	if b != nil {
		bd.blob.Store(b)
	} else if size < 0 {
		bd.mem = make([]byte, SmallObject)
	} else {
		bd.mem = make([]byte, size)
	}
	return bd
}

// inMemory reports whether no file is behind the body.
func (bd *body) inMemory() bool { return bd.blob.Load() == nil }

// WriteAt implements io.WriterAt; the caller has checked the range.
func (bd *body) WriteAt(p []byte, off int64) (int, error) {
	if b := bd.blob.Load(); b != nil {
		return b.WriteAt(p, off)
	}
	if off+int64(len(p)) > int64(len(bd.mem)) {
		return 0, errors.New("write beyond what memory holds")
	}
	return copy(bd.mem[off:], p), nil
}

// ReadAt implements io.ReaderAt.
func (bd *body) ReadAt(p []byte, off int64) (int, error) {
	if b := bd.blob.Load(); b != nil {
		return b.ReadAt(p, off)
	}
	if off > int64(len(bd.mem)) {
		return 0, io.EOF
	}
	n := copy(p, bd.mem[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// setSize says how large the object is.
func (bd *body) setSize(size int64) error {
	if b := bd.blob.Load(); b != nil {
		return errors.Join(b.SetSize(size), bd.reserve(size))
	}
	return nil
}

// reserve takes the room for all of the object.
func (bd *body) reserve(size int64) error {
	if b := bd.blob.Load(); b != nil && size > 0 {
		return b.Reserve(size)
	}
	return nil
}

// hashBlock hashes the leaves of a range.
func (bd *body) hashBlock(r content.Range) ([]content.Hash, error) {
	if b := bd.blob.Load(); b != nil {
		return b.HashBlock(r)
	}
	return leavesOf(bd.mem[r.Off:r.End]), nil
}

// leavesOf hashes bytes in memory.
func leavesOf(p []byte) []content.Hash {
	leaves, _ := content.HashLeaves(nil, bytes.NewReader(p)) // reading memory does not fail
	return leaves
}

func (bd *body) close() error {
	if b := bd.blob.Load(); b != nil {
		return b.Close()
	}
	return nil
}

// reader reads the whole body of an object of size bytes.
func (bd *body) reader(size int64) io.Reader { return io.NewSectionReader(bd, 0, size) }
