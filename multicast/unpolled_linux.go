package multicast

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// unpolledConn is a UDP socket that the runtime's poller does not know. The
// poller is told of each packet that comes and of each that has gone, whether
// anybody waits for it or not, and wakes a thread for each; who waits here waits
// in a thread of its own and is woken by what it waits for alone.
type unpolledConn struct {
	*net.UDPConn // closed; it knows its address and is what x/net takes
	raw          *unpolledSocket
}

// SyscallConn is how x/net reaches the socket.
func (c *unpolledConn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

func (c *unpolledConn) Close() error { return c.raw.close() }

// unpolledSocket is the syscall.RawConn of an unpolledConn.
type unpolledSocket struct {
	fd   int
	wake int // an eventfd, readable once close was called

	// using is held for reading by those who use fd. It guards closed.
	using  sync.RWMutex
	closed bool
}

// unpolled takes a socket away from the runtime's poller.
func unpolled(udp *net.UDPConn) (net.PacketConn, error) {
	polled, err := udp.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open socket: %w", err), udp.Close())
	}
	s := &unpolledSocket{fd: -1, wake: -1}
	var failed error
	err = polled.Control(func(fd uintptr) { s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed, udp.Close()); err == nil {
		s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open socket: %w", err), s.release())
	}
	return &unpolledConn{udp, s}, nil
}

// release closes what is open.
func (s *unpolledSocket) release() (err error) {
	for _, fd := range []int{s.fd, s.wake} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}

// close wakes those who wait, and closes the socket when nobody uses it.
func (s *unpolledSocket) close() error {
	if err := s.Control(func(uintptr) { _, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }); err != nil {
		return err
	}
	s.using.Lock()
	defer s.using.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	return s.release()
}

// Control implements syscall.RawConn.
func (s *unpolledSocket) Control(f func(fd uintptr)) error {
	s.using.RLock()
	defer s.using.RUnlock()
	if s.closed {
		return net.ErrClosed
	}
	f(uintptr(s.fd))
	return nil
}

// Read implements syscall.RawConn.
func (s *unpolledSocket) Read(f func(fd uintptr) (done bool)) error { return s.use(f, unix.POLLIN) }

// Write implements syscall.RawConn.
func (s *unpolledSocket) Write(f func(fd uintptr) (done bool)) error { return s.use(f, unix.POLLOUT) }

// use calls f until it has done its work, and before each further time waits
// for an event.
func (s *unpolledSocket) use(f func(fd uintptr) (done bool), event int16) error {
	s.using.RLock()
	defer s.using.RUnlock()
	for !s.closed {
		if f(uintptr(s.fd)) {
			return nil
		}
		waits := []unix.PollFd{{Fd: int32(s.fd), Events: event}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		switch _, err := unix.Poll(waits, -1); {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for a socket: %w", err)
		case waits[1].Revents != 0:
			return net.ErrClosed
		}
	}
	return net.ErrClosed
}
