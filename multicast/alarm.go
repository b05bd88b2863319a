package multicast

import "time"

// napTime is the longest wait in which a goroutine may be deaf: the runtime's
// timers are a millisecond late, which at hundreds of Mbit/s is a burst.
const napTime = 2 * time.Millisecond

// alarm rings at a time: like a time.Timer for long waits, more exactly for
// short ones.
type alarm struct {
	nap   func(time.Duration)
	timer *time.Timer
	rings chan time.Time // closed
}

func newAlarm(nap func(time.Duration)) *alarm {
	a := &alarm{nap: nap, timer: time.NewTimer(0), rings: make(chan time.Time)}
	close(a.rings)
	return a
}

// at gives a channel that can be read when the time has come. It may wait until
// then itself.
func (a *alarm) at(t time.Time) <-chan time.Time {
	wait := time.Until(t)
	if wait >= napTime {
		a.timer.Reset(wait)
		return a.timer.C
	}
	if wait > 0 {
		a.nap(wait)
	}
	return a.rings
}

func (a *alarm) stop() { a.timer.Stop() }
