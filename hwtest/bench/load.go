//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// load asks for small objects over many connections, each of which has one
// request under way at a time. One thread drives them all, so that it leaves the
// other processors to the server.
type load struct {
	epoll int
	conns []*client
	buf   []byte
}

// client is one connection of a load.
type client struct {
	fd      int
	request []byte
	head    []byte // of the answer, as far as it has come
	body    int64  // bytes of the body that are still to come; -1: the head is not whole
	served  int64
}

// dialLoad connects n clients to addr. request gives what client i sends, over
// and over.
func dialLoad(addr string, n int, request func(i int) []byte) (*load, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	l := &load{epoll: epoll, buf: make([]byte, 64<<10)}
	to, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	for i := range n {
		if err := l.dial(to, i, request(i)); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to %s: %w", addr, err), l.close())
		}
	}
	return l, nil
}

func (l *load) dial(to *net.TCPAddr, i int, request []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	l.conns = append(l.conns, &client{fd: fd, request: request, body: -1})
	return errors.Join(
		unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
		unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}),
	)
}

func (l *load) close() error {
	errs := []error{unix.Close(l.epoll)}
	for _, c := range l.conns {
		errs = append(errs, unix.Close(c.fd))
	}
	return errors.Join(errs...)
}

// run lets every client ask until the time is up and its last answer has come,
// at least once, and says how many answers came.
func (l *load) run(ctx context.Context, d time.Duration) (served int64, err error) {
	end := time.Now().Add(d)
	for _, c := range l.conns {
		served -= c.served
		if err := c.send(); err != nil {
			return 0, err
		}
	}
	events := make([]unix.EpollEvent, len(l.conns))
	for open := len(l.conns); open > 0; {
		n, err := unix.EpollWait(l.epoll, events, 1000)
		if err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for answers: %w", err)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		over := time.Now().After(end)
		if n == 0 && time.Now().After(end.Add(20*time.Second)) {
			return 0, errors.New("an answer did not come")
		}
		for _, ev := range events[:max(n, 0)] {
			c := l.conns[ev.Fd]
			done, err := c.receive(l.buf)
			switch {
			case err != nil:
				return 0, err
			case done && over:
				open--
			case done:
				err = c.send()
			}
			if err != nil {
				return 0, err
			}
		}
	}
	for _, c := range l.conns {
		served += c.served
	}
	return served, nil
}

func (c *client) send() error {
	if n, err := unix.Write(c.fd, c.request); err != nil || n < len(c.request) {
		return fmt.Errorf("send a request: %d bytes: %w", n, err)
	}
	return nil
}

// receive takes what has come, and reports whether that was the end of an
// answer.
func (c *client) receive(buf []byte) (done bool, err error) {
	n, err := unix.Read(c.fd, buf)
	if err == unix.EAGAIN {
		return false, nil
	}
	if err != nil || n == 0 {
		return false, fmt.Errorf("the server hung up after %d answers: %w", c.served, err)
	}
	got := buf[:n]
	if c.body < 0 {
		c.head = append(c.head, got...)
		end := bytes.Index(c.head, []byte("\r\n\r\n"))
		if end < 0 {
			return false, nil
		}
		if c.body, err = bodyOf(c.head[:end+2]); err != nil {
			return false, err
		}
		got = c.head[end+4:]
		c.head = c.head[:0]
	}
	if c.body -= int64(len(got)); c.body > 0 {
		return false, nil
	}
	if c.body < 0 {
		return false, errors.New("more came than was asked for")
	}
	c.body = -1
	c.served++
	return true, nil
}

// bodyOf reads the length of a body from the head of its answer.
func bodyOf(head []byte) (int64, error) {
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("the answer is %.60q", head)
	}
	for name := range lengthNames {
		if _, after, ok := bytes.Cut(head, []byte(lengthNames[name])); ok {
			text, _, _ := bytes.Cut(after, []byte("\r\n"))
			return strconv.ParseInt(string(text), 10, 64)
		}
	}
	return 0, fmt.Errorf("the answer has no length: %q", head)
}

// lengthNames are how servers spell it.
var lengthNames = []string{"\r\nContent-Length: ", "\r\ncontent-length: "}
