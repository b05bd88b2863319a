package multicast

import "time"

// burstPackets bounds a burst: more packets at once overflow small switches.
const burstPackets = 16

// What a sender that was woken late may make up for, and how fast.
const (
	creditTime = 20 * time.Millisecond
	peakFactor = 2
)

// bucket is a token bucket.
type bucket struct{ rate, depth, level float64 }

func (b *bucket) refill(d time.Duration) { b.level = min(b.depth, b.level+b.rate*d.Seconds()) }

// until is how long it takes to have want tokens.
func (b *bucket) until(want float64) time.Duration {
	if b.level >= want {
		return 0
	}
	return time.Duration((want-b.level)/b.rate*float64(time.Second)) + time.Microsecond
}

// pacer is two token buckets over Ethernet frames. One keeps the rate; it holds
// what is due in 20 ms, so that a late wake-up costs nothing. The other keeps
// bursts short: 16 frames at once, and never more than twice the rate.
type pacer struct {
	frame      float64 // bytes of the largest
	last       time.Time
	mean, peak bucket
}

// newPacer starts with empty buckets. rate is in bits per second, frame in
// bytes.
func newPacer(now time.Time, rate int64, frame int) *pacer {
	p := &pacer{frame: float64(frame), last: now}
	p.setRate(now, rate)
	return p
}

// setRate changes the rate from now on.
func (p *pacer) setRate(now time.Time, rate int64) {
	p.refill(now)
	bytes := float64(rate) / 8
	burst := burstPackets * p.frame
	p.mean.rate, p.mean.depth = bytes, max(burst, bytes*creditTime.Seconds())
	p.peak.rate, p.peak.depth = peakFactor*bytes, burst
}

func (p *pacer) refill(now time.Time) {
	if d := now.Sub(p.last); d > 0 {
		p.mean.refill(d)
		p.peak.refill(d)
		p.last = now
	}
}

// ready reports whether a frame may go now.
func (p *pacer) ready(now time.Time) bool {
	p.refill(now)
	return p.mean.level >= p.frame && p.peak.level >= p.frame
}

// spend takes a frame's bytes out of the buckets.
func (p *pacer) spend(bytes int) {
	p.mean.level -= float64(bytes)
	p.peak.level -= float64(bytes)
}

// next is when there will be enough for a burst, so that the sender wakes as
// seldom as it can.
func (p *pacer) next(now time.Time) time.Time {
	p.refill(now)
	want := p.peak.depth
	return now.Add(max(p.mean.until(want), p.peak.until(want)))
}
