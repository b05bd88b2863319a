package qualify

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a disk may take for one answer: a drive that recovers a
// sector needs half a minute.
const patience = time.Minute

// errHangs says that a disk did not answer in time.
var errHangs = errors.New("it hangs: no answer within " + patience.String())

// patient is a disk that is given up once it hangs: nothing can end a call that
// the kernel does not return from. What such a call holds, its goroutine and its
// memory, is left to it, and nothing more is asked. It is safe for concurrent use.
type patient struct {
	disk *os.File
	hung atomic.Bool
}

// ReadAt implements media.
func (p *patient) ReadAt(b []byte, off int64) (int, error) {
	return p.within(func() (int, error) { return p.disk.ReadAt(b, off) })
}

// WriteAt implements media.
func (p *patient) WriteAt(b []byte, off int64) (int, error) {
	return p.within(func() (int, error) { return p.disk.WriteAt(b, off) })
}

// Sync implements media.
func (p *patient) Sync() error {
	_, err := p.within(func() (int, error) { return 0, p.disk.Sync() })
	return err
}

// syncData makes what was written safe, and of the metadata only what that needs.
func (p *patient) syncData() error {
	_, err := p.within(func() (int, error) { return 0, unix.Fdatasync(int(p.disk.Fd())) })
	return err
}

// reserve has a file system set n bytes apart.
func (p *patient) reserve(n int64) error {
	_, err := p.within(func() (int, error) { return 0, unix.Fallocate(int(p.disk.Fd()), 0, 0, n) })
	return err
}

func (p *patient) within(do func() (int, error)) (int, error) {
	if p.hung.Load() {
		return 0, errHangs
	}
	type answer struct {
		n   int
		err error
	}
	done := make(chan answer, 1)
	go func() {
		n, err := do()
		done <- answer{n, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.n, a.err
	case <-timer.C:
		p.hung.Store(true)
		return 0, errHangs
	}
}
