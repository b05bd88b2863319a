package proxy

import "golang.org/x/sys/unix"

// cork sets tcp(7)'s TCP_CORK. Without it more packets are sent, no more.
func (c *conn) cork(on int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on)
	})
}
