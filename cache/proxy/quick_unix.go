//go:build unix

package proxy

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is what it takes to wait on a connection without a buffer.
type socket struct {
	raw  syscall.RawConn
	read func(fd uintptr) bool
	err  error // of the last read
}

func (q *quick) open() (err error) {
	q.socket.read = q.read
	q.socket.raw, err = q.tcp.SyscallConn()
	return err
}

// next waits for bytes and reads them.
func (q *quick) next() error {
	if err := q.socket.raw.Read(q.socket.read); err != nil || q.socket.err != nil {
		return errors.Join(err, q.socket.err)
	}
	if q.work.used == 0 {
		return io.EOF
	}
	return nil
}

// read reads what is there, without waiting.
func (q *quick) read(fd uintptr) bool {
	d := q.server.scratch.Get().(*scratch)
	var n int
	for {
		if n, q.socket.err = unix.Read(int(fd), d.in[:]); q.socket.err != unix.EINTR {
			break
		}
	}
	if q.socket.err == unix.EAGAIN {
		q.server.scratch.Put(d)
		return false
	}
	d.used = max(n, 0)
	q.work = d
	return true
}
