package cache

import (
	"slices"
	"time"
)

// A crowd of more than crowd readers that follow a fill is woken every stride at
// most: woken for each few kilobytes that come, hundreds of them would take more
// of the processor for waking than for sending. Nobody waits so for a first byte,
// nor for the last.
const (
	crowd  = 8
	stride = 25 * time.Millisecond
)

// wake lets go of the waiters whose byte is readable or beyond the end, or sees to
// it that somebody soon will; f.mu is held.
func (f *Fill) wake() {
	now := time.Now()
	due := len(f.waiters) <= crowd || f.isWhole() || now.Sub(f.woken) >= stride
	held := false
	f.waiters = slices.DeleteFunc(f.waiters, func(w *waiter) bool {
		if f.readable.From(w.off) == w.off && w.off < blockEnd(f.size) {
			return false
		}
		if !due && w.view.fed {
			held = true
			return false
		}
		close(w.ready)
		return true
	})
	if due {
		f.woken = now
	}
	if held && f.waker == nil {
		f.waker = time.AfterFunc(stride-now.Sub(f.woken), f.rouse)
	}
}

// rouse wakes whom wake has put off.
func (f *Fill) rouse() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waker, f.woken = nil, time.Time{}
	f.wake()
}
