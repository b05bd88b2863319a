package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// maxHandles is how many segments stay open while nobody reads them.
const maxHandles = 64

// handle is an open segment.
type handle struct {
	file *os.File
	salt uint64

	// Guarded by handles.mu.
	users int
	last  uint64 // when it was last asked for
	gone  bool   // closed by its last user
}

// handles keeps segments open, so that a read is one system call.
type handles struct {
	dir string

	mu    sync.Mutex       // guards what follows
	sizes map[uint32]int64 // every segment there is, and its bytes
	open  map[uint32]*handle
	clock uint64
	shut  bool
}

func segmentPath(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x.seg", id))
}

// get opens a segment, or finds it open; put gives it back. The error wraps
// fs.ErrNotExist if there is no such segment.
func (h *handles) get(id uint32) (*handle, error) {
	if x, err := h.find(id); x != nil || err != nil {
		return x, err
	}
	f, err := os.Open(segmentPath(h.dir, id))
	if err != nil {
		return nil, err
	}
	var head [segmentHead]byte
	n, err := f.ReadAt(head[:], 0)
	if err == io.EOF {
		err = nil
	}
	var salt uint64
	if err == nil {
		salt, err = parseSegmentHead(head[:n], id)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return h.enter(id, &handle{file: f, salt: salt})
}

func (h *handles) find(id uint32) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.absent(id); err != nil {
		return nil, err
	}
	x := h.open[id]
	if x != nil {
		h.use(x)
	}
	return x, nil
}

// absent says why there is no such segment; h.mu is held.
func (h *handles) absent(id uint32) error {
	if h.shut {
		return os.ErrClosed
	}
	if _, ok := h.sizes[id]; !ok {
		return fs.ErrNotExist
	}
	return nil
}

func (h *handles) use(x *handle) {
	h.clock++
	x.users++
	x.last = h.clock
}

// enter keeps a segment that was just opened, unless another was quicker or it
// has been removed meanwhile.
func (h *handles) enter(id uint32, x *handle) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.absent(id); err != nil {
		x.file.Close() // read-only: nothing to lose
		return nil, err
	}
	if other := h.open[id]; other != nil {
		x.file.Close()
		x = other
	}
	h.open[id] = x
	h.use(x)
	h.trim()
	return x, nil
}

// begin takes a new segment in.
func (h *handles) begin(id uint32, f *os.File, salt uint64) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := &handle{file: f, salt: salt}
	h.sizes[id] = segmentHead
	h.open[id] = x
	h.use(x)
	h.trim()
	return x
}

// trim closes the segment that was least recently asked for while too many are
// open; h.mu is held. They are few, so looking at all of them is cheap.
func (h *handles) trim() {
	for len(h.open) > maxHandles {
		oldest, id := (*handle)(nil), uint32(0)
		for i, x := range h.open {
			if x.users == 0 && (oldest == nil || x.last < oldest.last) {
				oldest, id = x, i
			}
		}
		if oldest == nil {
			return
		}
		delete(h.open, id)
		oldest.file.Close()
	}
}

func (h *handles) put(x *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x.users--
	if x.gone && x.users == 0 {
		x.file.Close()
		return
	}
	h.trim()
}

// resize notes how many bytes a segment has, if it is still there.
func (h *handles) resize(id uint32, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.sizes[id]; ok {
		h.sizes[id] = size
	}
}

// idle closes a segment that nobody reads: not every system removes open files.
func (h *handles) idle(id uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.open[id]; x != nil && x.users == 0 {
		h.leave(id, x)
	}
}

// drop forgets a segment; those that are reading it read on.
func (h *handles) drop(id uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sizes, id)
	if x := h.open[id]; x != nil {
		h.leave(id, x)
	}
}

// leave takes an open segment out; h.mu is held.
func (h *handles) leave(id uint32, x *handle) {
	delete(h.open, id)
	x.gone = true
	if x.users == 0 {
		x.file.Close()
	}
}

func (h *handles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
	for id, x := range h.open {
		h.leave(id, x)
	}
}
