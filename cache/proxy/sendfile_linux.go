package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Between two parts of a file, a client that reads fast makes room within
// microseconds. To put the goroutine to sleep for that and wake it costs half as
// much again as sending does; so the thread itself waits a moment, as an event
// loop would. It does so for few clients at a time: many are cheaper to wait for
// together.
const (
	moment    = 20 * time.Millisecond
	sendChunk = 4 << 20 // bytes of one sendfile
)

// patience is a place for each client that is waited for in this way.
type patience chan struct{}

func newPatience() patience { return make(patience, 2*runtime.GOMAXPROCS(0)) }

// ReadFrom implements io.ReaderFrom: a part of a file is copied by the kernel.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	part, ok := r.(*io.LimitedReader)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	file, ok := part.R.(*os.File)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	from, err := file.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("send file: %w", err)
	}
	to, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("send file: %w", err)
	}
	s := sender{from: from, part: part, wait: true, turns: c.turns}
	before := part.N
	err = to.Write(s.send)
	return before - part.N, errors.Join(err, s.err)
}

// sender sends a part of a file.
type sender struct {
	from  syscall.RawConn
	part  *io.LimitedReader
	turns patience
	wait  bool // the client has been fast so far
	err   error
}

// send sends until all is sent, or the socket is full; false means that the
// poller has to wait for it.
func (s *sender) send(to uintptr) bool {
	for s.part.N > 0 {
		want := int(min(s.part.N, sendChunk))
		n, err := s.chunk(int(to), want)
		s.part.N -= int64(max(n, 0))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if !s.wait {
				return false
			}
			s.moment(int32(to))
		case err != nil:
			s.err = fmt.Errorf("send file: %w", err)
			return true
		case n == 0: // the file is shorter than it was
			return true
		case n < want && s.wait:
			s.moment(int32(to))
		}
	}
	return true
}

func (s *sender) chunk(to, want int) (n int, err error) {
	cerr := s.from.Control(func(from uintptr) { n, err = unix.Sendfile(to, int(from), nil, want) })
	return n, errors.Join(cerr, err)
}

// moment waits for room in the socket. If there is none within a moment, or too
// many are waiting already, the rest is left to the poller.
func (s *sender) moment(to int32) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	default:
		s.wait = false
		return
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: to, Events: unix.POLLOUT}}, int(moment.Milliseconds()))
	s.wait = n > 0 || errors.Is(err, unix.EINTR)
}
