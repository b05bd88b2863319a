//go:build linux

package faultfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// body is the data of one file. The backing file is as the process under test
// sees it; undo takes it back to how it was when last synced.
type body struct {
	path  string // of the backing file; made at the first open
	space *space

	mu       sync.Mutex // above everything below
	file     *os.File   // while opens > 0
	opens    int
	size     int64
	modified time.Time
	held     blocks // those that have space on the disk, written or not
	vacated  bool   // their space is given back: nobody can reach the file

	synced int64            // size when last synced
	undo   map[int64][]byte // what blocks changed since then held; nil: zeros
}

func newBody(path string, s *space) *body {
	return &body{path: path, space: s, modified: time.Now(), undo: map[int64][]byte{}}
}

func (b *body) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opens == 0 {
		f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		b.file = f
	}
	b.opens++
	return nil
}

func (b *body) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opens--; b.opens == 0 {
		b.file.Close() // reports nothing that its writes have not
		b.file = nil
	}
}

// letGo closes the file whoever had it open.
func (b *body) letGo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opens > 0 {
		b.file.Close()
		b.file, b.opens = nil, 0
	}
}

func (b *body) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opens > 0
}

// stat returns size in bytes, blocks held and time of the last write.
func (b *body) stat() (size, held int64, modified time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size, b.held.count(), b.modified
}

func (b *body) touch(modified time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.modified = modified
}

func (b *body) read(dst []byte, off int64) (int, error) {
	b.mu.Lock()
	f := b.file
	b.mu.Unlock()
	return readAt(f, dst, off)
}

// readAt reads up to the end of the file without calling that an error.
func readAt(f *os.File, dst []byte, off int64) (int, error) {
	n, err := f.ReadAt(dst, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (b *body) write(data []byte, off int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, past := span(off, off+int64(len(data)))
	if err := b.remember(first, past); err != nil {
		return err
	}
	if err := b.take(first, past); err != nil {
		return err
	}
	if _, err := b.file.WriteAt(data, off); err != nil {
		return err
	}
	b.size = max(b.size, off+int64(len(data)))
	b.modified = time.Now()
	return nil
}

// allocate holds space for the bytes [off, end) and makes the file reach to end,
// unless it is to keep its size.
func (b *body) allocate(off, end int64, keepSize bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(span(off, end)); err != nil {
		return err
	}
	if keepSize || end <= b.size {
		return nil
	}
	if err := b.file.Truncate(end); err != nil {
		return err
	}
	b.size = end
	return nil
}

func (b *body) truncate(size int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, whole := size/blockSize, (size+blockSize-1)/blockSize
	if size < b.size {
		if err := b.rememberHeld(first, b.held.past()); err != nil {
			return err
		}
	}
	if err := b.file.Truncate(size); err != nil {
		return err
	}
	b.release(whole, b.held.past())
	b.size, b.modified = size, time.Now()
	return nil
}

// punch makes zeros of the bytes [off, end) and gives back the blocks wholly
// within them.
func (b *body) punch(off, end int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, past := span(off, end)
	if err := b.rememberHeld(first, past); err != nil {
		return err
	}
	if err := hole(b.file, off, end); err != nil {
		return err
	}
	b.release((off+blockSize-1)/blockSize, end/blockSize)
	b.modified = time.Now()
	return nil
}

func hole(f *os.File, off, end int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, end-off)
}

// sync makes what is written durable. The backing file itself need not be
// synced: this machine is not the one that loses its power.
func (b *body) sync() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.synced, b.undo = b.size, map[int64][]byte{}
}

// take holds space for the blocks [first, past). Caller holds the mutex.
func (b *body) take(first, past int64) error {
	fresh := past - first
	for range b.held.within(first, past) {
		fresh--
	}
	if !b.space.take(fresh) {
		return unix.ENOSPC
	}
	for i := first; i < past; i++ {
		b.held.add(i)
	}
	return nil
}

// release gives the space of the blocks [first, past) back. Caller holds the
// mutex.
func (b *body) release(first, past int64) {
	n := int64(0)
	for i := range b.held.within(first, past) {
		b.held.remove(i)
		n++
	}
	b.space.give(n)
}

// vacate gives all space back, once: nobody can reach the file any more, but a
// power cut may bring it back.
func (b *body) vacate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.vacated {
		b.space.give(b.held.count())
		b.vacated = true
	}
}

// remember keeps what the blocks [first, past) held when last synced. Caller
// holds the mutex.
func (b *body) remember(first, past int64) error {
	var now []byte // all of them, read when the first is needed
	for i := first; i < past; i++ {
		if _, changed := b.undo[i]; changed {
			continue
		}
		b.undo[i] = nil
		if !b.held.has(i) || i*blockSize >= b.synced {
			continue
		}
		if now == nil {
			now = make([]byte, (past-first)*blockSize)
			if _, err := readAt(b.file, now, first*blockSize); err != nil {
				delete(b.undo, i)
				return err
			}
		}
		if old := now[(i-first)*blockSize:][:blockSize]; !zeros(old) {
			b.undo[i] = old
		}
	}
	return nil
}

// rememberHeld is remember for blocks that become zeros: those that hold
// nothing do not change. Caller holds the mutex.
func (b *body) rememberHeld(first, past int64) error {
	for i := range b.held.within(first, past) {
		if err := b.remember(i, i+1); err != nil {
			return err
		}
	}
	return nil
}

func zeros(p []byte) bool {
	var none [blockSize]byte
	return bytes.Equal(p, none[:len(p)])
}
