package cache

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/cistern-edge/cistern/cache/content"
)

// Reader reads one object, while it is being filled or after. It has a
// descriptor of its own, so what it has been given stays readable when the
// object is evicted. It serves one goroutine at a time.
type Reader struct {
	file *os.File
	fill *Fill // nil if the object was complete
	size int64
}

// Close lets go of the object.
func (r *Reader) Close() error { return r.file.Close() }

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
// It fails if ctx is done or the fill ended before the byte came.
func (r *Reader) Wait(ctx context.Context, off int64) (end int64, err error) {
	if r.fill == nil {
		if off >= r.size {
			return off, io.EOF
		}
		return r.size, nil
	}
	return r.fill.wait(ctx, off)
}

func (f *Fill) wait(ctx context.Context, off int64) (int64, error) {
	for {
		f.mu.Lock()
		end := f.readable.From(off)
		size, ended, err := f.size, f.isDone(), f.err
		var w *waiter
		if end == off && !ended && off < blockEnd(size) {
			w = &waiter{off: off, ready: make(chan struct{})}
			f.waiters = append(f.waiters, w)
			f.signalWanted()
		}
		f.mu.Unlock()
		switch {
		case end > off:
			return end, nil
		case size >= 0 && off >= size:
			return off, io.EOF
		case w == nil && err == nil:
			return off, ErrIncomplete
		case w == nil:
			return off, fmt.Errorf("fill of %s ended early: %w", f.title, err)
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			f.forget(w)
			return off, ctx.Err()
		}
	}
}

// isDone reports whether the fill has ended; f.mu is held.
func (f *Fill) isDone() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// forget takes a waiter off the list.
func (f *Fill) forget(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.waiters {
		if other == w {
			f.waiters = append(f.waiters[:i], f.waiters[i+1:]...)
			return
		}
	}
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
		if _, err := r.file.Seek(off, io.SeekStart); err != nil {
			return sent, fmt.Errorf("read: %w", err)
		}
		n, err := io.CopyN(w, r.file, min(end, rng.End)-off)
		sent += n
		off += n
		if err == io.EOF { // the body is shorter than it was
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// ReadAt reads bytes that are readable now; it does not wait. It implements
// io.ReaderAt for outlets that only have complete objects.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if r.fill != nil {
		want := content.Range{Off: off, End: min(off+int64(len(p)), blockEnd(r.fill.Size()))}
		r.fill.mu.Lock()
		ok := r.fill.readable.Covers(want)
		r.fill.mu.Unlock()
		if !ok {
			return 0, fmt.Errorf("read %s of %s: %w", want, r.fill.title, ErrIncomplete)
		}
	}
	return r.file.ReadAt(p, off)
}
