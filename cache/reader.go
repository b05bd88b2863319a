package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// Reader reads one object, while it is being filled or after. It has a
// descriptor of its own, so what it has been given stays readable when the
// object is evicted. It serves one goroutine at a time; ReadAt may be called by
// several.
type Reader struct {
	store *Store
	num   uint64
	size  int64
	mem   []byte // the whole body of a small object
	fill  *Fill  // nil if the object was complete
	view  view
	// blob checks what was not checked yet when the reader was opened, also when
	// the object has been evicted since; nil if all was.
	blob *disk.Blob

	// mu guards what follows.
	mu     sync.Mutex
	file   *os.File       // nil while the bytes are in memory
	proved content.Ranges // by blob, since the object is gone
}

// Read opens a reader on an object that is complete or being filled. The error
// wraps ErrNotFound or ErrIncomplete. It counts as a request.
func (s *Store) Read(num uint64) (*Reader, error) {
	s.mu.Lock()
	e, ok := s.objects[num]
	if !ok {
		s.mu.Unlock()
		return nil, fmt.Errorf("read object %d: %w", num, ErrNotFound)
	}
	f := s.active[num]
	s.use(e, time.Now())
	seen := *e
	s.mu.Unlock()
	switch {
	case f != nil:
		return f.reader()
	case !seen.is(isComplete):
		return nil, fmt.Errorf("read object %d: %w", num, ErrIncomplete)
	}
	return s.newReader(&seen)
}

// newReader opens a reader on a complete object. One whose body is gone or cut
// short is forgotten, to be fetched again.
func (s *Store) newReader(e *entry) (*Reader, error) {
	r := &Reader{store: s, num: e.num(), size: e.size}
	var err error
	if e.is(isSmall) {
		if r.mem, err = s.smallBody(e); err == nil {
			return r, nil
		}
		if f := s.mending(e.num()); f != nil {
			return f.reader()
		}
		if now, ok := s.look(e.num()); ok && now.is(isComplete) && now.place != e.place { // repaired by now
			return s.newReader(&now)
		}
		return nil, fmt.Errorf("read object %d: %w", e.num(), err)
	}
	v := s.volumeOf(e)
	if r.file, err = v.OpenBody(e.num()); err == nil {
		err = wantSize(r.file, e.size)
	}
	if err == nil && !e.is(isChecked) {
		if r.blob, err = v.Open(e.num()); err != nil {
			err = errors.Join(err, r.file.Close())
		}
	}
	if err == nil {
		return r, nil
	}
	err = fmt.Errorf("read object %d: %w", e.num(), err)
	v.suspect(err)
	if !isLost(err) {
		return nil, err
	}
	s.log.Warn("dropped an object whose body is gone", "object", e.num(), "err", err)
	s.editing.Lock()
	defer s.editing.Unlock()
	if now, ok := s.look(e.num()); ok && now.is(isComplete) && !now.is(isSmall) {
		s.miss(e.num())
	}
	return nil, errors.Join(ErrNotFound, err)
}

// wantSize makes sure that a body is as long as it was, and closes it if not.
func wantSize(file *os.File, size int64) error {
	st, err := file.Stat()
	if err == nil && st.Size() == size {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("body has %d bytes, not %d: %w", st.Size(), size, fs.ErrNotExist)
	}
	return errors.Join(err, file.Close())
}

// Reader opens a reader on the fill, whatever comes of it.
func (f *Fill) Reader() (*Reader, error) {
	num := f.Num()
	e, ok := f.store.look(num)
	if final := f.Num(); !ok && final != num { // equal bytes were here
		num = final
		e, ok = f.store.look(num)
	}
	if !ok {
		return nil, fmt.Errorf("read %s: %w", f.title, ErrNotFound)
	}
	if num == f.num && !e.is(isComplete) {
		return f.reader()
	}
	return f.store.newReader(&e)
}

// reader opens a reader on a running fill.
func (f *Fill) reader() (*Reader, error) {
	r := &Reader{store: f.store, num: f.num, size: content.UnknownSize, fill: f, view: view{ahead: minAhead}}
	if _, err := r.open(); err != nil {
		return nil, err
	}
	f.enter(&r.view)
	return r, nil
}

// Close lets go of the object.
func (r *Reader) Close() error {
	if r.fill != nil {
		r.fill.leave(&r.view)
	}
	var errs [2]error
	if r.file != nil {
		errs[0] = r.file.Close()
	}
	if r.blob != nil {
		errs[1] = r.blob.Close()
	}
	return errors.Join(errs[:]...)
}

// Bytes gives the whole body if the object is small and complete: it must not be
// changed. Otherwise it is nil.
func (r *Reader) Bytes() []byte { return r.mem }

// Size waits until the size is known.
func (r *Reader) Size(ctx context.Context) (int64, error) {
	if r.fill == nil {
		return r.size, nil
	}
	for off := int64(0); ; {
		if size := r.fill.Size(); size >= 0 {
			return size, nil
		}
		end, err := r.Wait(ctx, off)
		if err != nil && err != io.EOF {
			return 0, err
		}
		off = end
	}
}

// Wait blocks until the byte at off is readable and returns how far the object
// is readable from there without a gap. At or beyond the end it returns io.EOF.
// It fails if ctx is done, the fill ended before the byte came or the object was
// taken down.
func (r *Reader) Wait(ctx context.Context, off int64) (end int64, err error) {
	if err := r.takenDown(); err != nil {
		return off, err
	}
	if r.fill != nil {
		return r.fill.wait(ctx, &r.view, off)
	}
	if off >= r.size {
		return off, io.EOF
	}
	if r.mem != nil || r.store.isChecked(r.num, content.Range{Off: 0, End: r.size}) {
		return r.size, nil
	}
	block := content.Block(off/content.BlockSize, r.size)
	fill, err := r.check(block)
	if err != nil {
		return off, err
	}
	if fill == nil {
		return block.End, nil
	}
	r.fill = fill // the block was damaged and is being fetched again
	r.view = view{pos: off, ahead: content.BlockSize}
	fill.enter(&r.view)
	return r.fill.wait(ctx, &r.view, off)
}

// check makes sure that a block is what came in, or gives the fill that brings it
// again. Of an object that is gone it can be checked still, but not mended.
func (r *Reader) check(block content.Range) (*Fill, error) {
	fill, err := r.store.checkBlock(r.num, block)
	if errors.Is(err, ErrNotFound) && r.proves(block) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read object %d: %w", r.num, err)
	}
	return fill, nil
}

// proves checks a block by what the reader has itself.
func (r *Reader) proves(block content.Range) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blob == nil || r.proved.Covers(block) {
		return true
	}
	if r.blob.Check(block.Off/content.BlockSize, r.size) != nil {
		return false
	}
	r.proved.Add(block)
	return true
}

// WriteRange sends the bytes of rng to w as they become readable, and returns
// how many it sent. If w is a connection (or the unwrapped ResponseWriter of
// one), the kernel copies them (sendfile).
func (r *Reader) WriteRange(ctx context.Context, w io.Writer, rng content.Range) (sent int64, err error) {
	for off := rng.Off; off < rng.End; {
		end, err := r.Wait(ctx, off)
		if err == io.EOF {
			return sent, io.ErrUnexpectedEOF
		}
		if err != nil {
			return sent, err
		}
		n, err := r.send(w, content.Range{Off: off, End: min(end, rng.End)})
		sent += n
		off += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// takenDown says why nothing more of the object is given out.
func (r *Reader) takenDown() error {
	err := r.store.denied.removed(r.num)
	if err == nil && r.fill != nil {
		err = r.store.denied.removed(r.fill.Num())
	}
	if err != nil {
		return fmt.Errorf("read object %d: %w", r.num, err)
	}
	return nil
}

// send sends bytes that are readable.
func (r *Reader) send(w io.Writer, rng content.Range) (int64, error) {
	if r.mem != nil {
		n, err := w.Write(r.mem[rng.Off:rng.End])
		return int64(n), err
	}
	file, err := r.open()
	if err != nil {
		return 0, err
	}
	if file == nil { // still in memory
		return io.Copy(w, io.NewSectionReader(r.fill.body, rng.Off, rng.Len()))
	}
	if _, err := file.Seek(rng.Off, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	n, err := io.CopyN(w, file, rng.Len())
	if err == io.EOF { // the body is shorter than it was
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// open gives the reader's descriptor; nil as long as a fill is in memory.
func (r *Reader) open() (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil || r.fill == nil || r.fill.body.inMemory() {
		return r.file, nil
	}
	f := r.fill
	file, err := f.volume().OpenBody(f.num)
	if final := f.Num(); isLost(err) && final != f.num { // equal bytes were here, and the spare ones are gone
		if e, ok := r.store.look(final); ok {
			file, err = r.store.volumeOf(&e).OpenBody(final)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.title, err)
	}
	r.file = file
	return file, nil
}

// ReadAt reads bytes that are readable now; it does not wait for a fill. It
// implements io.ReaderAt for outlets that only have complete objects.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.takenDown(); err != nil {
		return 0, err
	}
	if r.mem != nil {
		return (&body{mem: r.mem}).ReadAt(p, off)
	}
	if r.fill != nil {
		want := content.Range{Off: off, End: min(off+int64(len(p)), blockEnd(r.fill.Size()))}
		if err := r.fill.vetAll(want); err != nil {
			return 0, err
		}
		if !r.fill.hasReadable(want) {
			return 0, fmt.Errorf("read %s of %s: %w", want, r.fill.title, ErrIncomplete)
		}
		file, err := r.open()
		switch {
		case err != nil:
			return 0, err
		case file == nil:
			return r.fill.body.ReadAt(p, off)
		}
		return file.ReadAt(p, off)
	}
	want := content.Range{Off: off, End: min(off+int64(len(p)), r.size)}
	for i := want.Off / content.BlockSize; i*content.BlockSize < want.End; i++ {
		fill, err := r.check(content.Block(i, r.size))
		if err != nil {
			return 0, err
		}
		if fill != nil {
			return 0, fmt.Errorf("read object %d: %w", r.num, ErrIncomplete)
		}
	}
	return r.file.ReadAt(p, off)
}
