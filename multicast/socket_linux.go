package multicast

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bindsGroups says that a socket bound to a group gets that group's packets and
// no others.
const bindsGroups = true

// segments says that bursts can be left to the kernel to cut.
const segments = true

// controlSize is room for the control messages that come with a packet.
const controlSize = 64

// prepare sets what has to be set before a socket is bound: several agents may
// share a group and port, the buffer is as large as the system lets it be, and
// packets that do not fit into it are counted. In bulk, packets of a burst come
// together (UDP_GRO), if the kernel can. It gives the size that the buffer has.
func prepare(fd uintptr, buffer int, bulk bool) (held int, err error) {
	s := int(fd)
	err = errors.Join(
		unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1),
	)
	if family, e := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_DOMAIN); e == nil && family == unix.AF_INET {
		// Only what this socket joined itself, not what others on the host did.
		err = errors.Join(err, unix.SetsockoptInt(s, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
	}
	if bulk {
		_ = unix.SetsockoptInt(s, unix.IPPROTO_UDP, unix.UDP_GRO, 1) // else they come one by one
	}
	if buffer > 0 && unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		err = errors.Join(err, unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer))
	}
	held, e := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return held, errors.Join(err, e)
}

// nap sleeps as exactly as the kernel can, some 50 µs. A signal may end it early.
func (kernel) nap(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil)
}

// segmentation is the control message that has a burst cut into packets
// (UDP_SEGMENT), made once for each size in turn.
type segmentation struct {
	size    int
	message []byte
}

// control gives the message for packets of size bytes.
func (c *segmentation) control(size int) []byte {
	if c.size == size {
		return c.message
	}
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(size))
	c.size, c.message = size, b
	return b
}

// dropCount reads how many packets the kernel has dropped so far from the
// control messages of a packet.
func dropCount(control []byte) (uint64, bool) {
	n, ok := controlValue(control, unix.SOL_SOCKET, unix.SO_RXQ_OVFL)
	return uint64(n), ok
}

// segmentSize reads how long the packets of a burst are that came together.
func segmentSize(control []byte) (int, bool) {
	n, ok := controlValue(control, unix.IPPROTO_UDP, unix.UDP_GRO)
	return int(n), ok
}

// controlValue finds a control message of four bytes.
func controlValue(control []byte, level, kind int32) (uint32, bool) {
	for len(control) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0, false
		}
		if h.Level == level && h.Type == kind && len(data) >= 4 {
			return binary.NativeEndian.Uint32(data), true
		}
		control = rest
	}
	return 0, false
}
