package proxy

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// cork sets tcp(7)'s TCP_CORK. Without it more packets are sent, no more.
func (c *conn) cork(on int) { c.set(unix.TCP_CORK, on) }

// setUnsent sets how much may wait to be sent, in bytes.
func (c *conn) setUnsent(n int64) { c.set(unix.TCP_NOTSENT_LOWAT, int(n)) }

func (c *conn) set(option, value int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
	})
}

// limitUnsent has the connections of a listener begin with the smallest share.
func limitUnsent(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, minShare))
	})
	return errors.Join(err, failed)
}

// unsentBudget is a quarter of the memory at which the kernel begins to restrain
// connections.
func unsentBudget() int64 {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	var low, pressure int64 // in pages
	if err == nil {
		_, err = fmt.Sscan(string(text), &low, &pressure)
	}
	if err != nil {
		return maxUnsent
	}
	return min(pressure*int64(os.Getpagesize())/4, maxUnsent)
}
