package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sender sends datagrams in somebody else's name. It is a raw socket: one that
// is bound to the name would collide with the box's own on the same port, such as
// that of BitTorrent, and would get the answer, which is not for the box.
// Safe for concurrent use.
type sender struct {
	file *os.File
	raw  syscall.RawConn
}

// openSender opens one of a family. What it sends carries a mark unless that is 0.
func openSender(is4 bool, mark uint32) (*sender, error) {
	family := unix.AF_INET6
	if is4 {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open a socket to send in others' names: %w", err)
	}
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return nil, fmt.Errorf("mark what is sent in others' names: %w", errors.Join(err, unix.Close(fd)))
		}
	}
	file := os.NewFile(uintptr(fd), "raw")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open a socket to send in others' names: %w", errors.Join(err, file.Close()))
	}
	return &sender{file, raw}, nil
}

func (s *sender) send(from, to netip.AddrPort, b []byte) error {
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		addr = &unix.SockaddrInet4{Addr: to.Addr().As4()}
	}
	var sent error
	err := s.raw.Control(func(fd uintptr) { sent = unix.Sendto(int(fd), forge(from, to, b), 0, addr) })
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("send in the name of %v: %w", from, err)
	}
	return nil
}

func (s *sender) close() error {
	if s == nil {
		return nil
	}
	return s.file.Close()
}
