//go:build !linux

package multicast

import "time"

const (
	bindsGroups = false
	segments    = false
	controlSize = 0
)

func prepare(uintptr, int, bool) error { return nil }

func (kernel) nap(d time.Duration) { time.Sleep(d) }

// segmentControl is nil: bursts are not offloaded here.
func segmentControl(int) []byte { return nil }

// dropCount has nothing to count with here.
func dropCount([]byte) (uint64, bool) { return 0, false }

// segmentSize is never known here: packets come one by one.
func segmentSize([]byte) (int, bool) { return 0, false }
