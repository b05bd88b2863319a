//go:build !linux

package multicast

import (
	"net"
	"time"
)

const (
	bindsGroups = false
	segments    = false
	controlSize = 0
)

// prepare leaves a socket as it is; its buffer is at least so large.
func prepare(uintptr, int, bool) (held int, err error) { return 32 << 10, nil }

// unpolled leaves a socket as it is.
func unpolled(udp *net.UDPConn) (net.PacketConn, error) { return udp, nil }

func (kernel) nap(d time.Duration) { time.Sleep(d) }

// segmentation does nothing: bursts are not offloaded here.
type segmentation struct{}

func (segmentation) control(int) []byte { return nil }

// dropCount has nothing to count with here.
func dropCount([]byte) (uint64, bool) { return 0, false }

// segmentSize is never known here: packets come one by one.
func segmentSize([]byte) (int, bool) { return 0, false }
