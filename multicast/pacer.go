package multicast

import "time"

// Bounds of a burst: more packets at once than this overflow small switches.
const (
	burstPackets = 16
	burstTime    = time.Millisecond
)

// pacer is a token bucket over whole Ethernet frames. It holds as much as one
// burst: 16 frames or what the rate gives in a millisecond, whichever is more.
type pacer struct {
	rate  float64 // bytes per second
	frame float64 // the largest
	level float64
	last  time.Time
}

// newPacer starts with an empty bucket. rate is in bits per second, frame in
// bytes.
func newPacer(now time.Time, rate int64, frame int) *pacer {
	return &pacer{rate: float64(rate) / 8, frame: float64(frame), last: now}
}

// setRate changes the rate from now on.
func (p *pacer) setRate(now time.Time, rate int64) {
	p.refill(now)
	p.rate = float64(rate) / 8
}

func (p *pacer) refill(now time.Time) {
	depth := max(burstPackets*p.frame, p.rate*burstTime.Seconds())
	if d := now.Sub(p.last); d > 0 {
		p.level = min(depth, p.level+p.rate*d.Seconds())
		p.last = now
	}
}

// ready reports whether a frame may go now.
func (p *pacer) ready(now time.Time) bool {
	p.refill(now)
	return p.level >= p.frame
}

// spend takes a frame's bytes out of the bucket.
func (p *pacer) spend(bytes int) { p.level -= float64(bytes) }

// next is when there will be enough for half a burst, so that the sender wakes
// seldom and sends several packets at once.
func (p *pacer) next(now time.Time) time.Time {
	p.refill(now)
	want := max(burstPackets/2*p.frame, p.rate*burstTime.Seconds()/2)
	if p.level >= want {
		return now
	}
	return now.Add(time.Duration((want-p.level)/p.rate*float64(time.Second)) + time.Microsecond)
}
