package norm

import "time"

// lossMeter estimates loss from the gaps in a sender's sequence numbers, and
// the rate at which its packets come.
type lossMeter struct {
	started        bool
	next           uint16 // sequence number expected next
	received, lost uint64

	// The current bucket of about lossBucket packets.
	bucketReceived, bucketLost int
	smooth                     float64 // over past buckets
	smoothed                   bool

	events lossEvents
	size   float64 // of a packet, on average

	rate      float64 // bytes per second over the last period
	rateFrom  time.Time
	rateBytes int
}

const (
	lossBucket = 256
	// A jump of more than this is a restart or a forgery, not loss.
	lossJump = 4096
)

// hear takes one packet. The rate is measured over a few round trip times.
func (l *lossMeter) hear(now time.Time, sequence uint16, size int, rtt time.Duration) {
	if l.rateFrom.IsZero() {
		l.rateFrom, l.size = now, float64(size)
	}
	l.size += (float64(size) - l.size) / 32
	l.rateBytes += size
	if d := now.Sub(l.rateFrom); d >= min(max(4*rtt, 20*time.Millisecond), 200*time.Millisecond) {
		l.rate = float64(l.rateBytes) / d.Seconds()
		l.rateFrom, l.rateBytes = now, 0
	}
	gap := int(int16(sequence - l.next))
	if !l.started || gap > lossJump || gap < -lossJump {
		l.started, gap = true, 0
		l.next = sequence
	}
	l.received++
	if l.events.hear(now, gap, rtt); l.events.events == 1 && gap > 0 && l.rate > 0 {
		l.events.first(l.size, rtt, l.rate/2)
	}
	if gap < 0 { // late, or a duplicate
		if l.bucketLost > 0 {
			l.bucketLost--
			l.lost--
		}
		return
	}
	l.next = sequence + 1
	l.lost += uint64(gap)
	l.bucketLost += gap
	if l.bucketReceived++; l.bucketReceived+l.bucketLost >= lossBucket {
		l.smooth, l.smoothed = l.fraction(), true
		l.bucketReceived, l.bucketLost = 0, 0
	}
}

// fraction is the recent fraction of packets lost.
func (l *lossMeter) fraction() float64 {
	n := l.bucketReceived + l.bucketLost
	if n == 0 {
		return l.smooth
	}
	bucket := float64(l.bucketLost) / float64(n)
	if !l.smoothed {
		return bucket
	}
	weight := 0.5 * min(float64(n)/lossBucket, 1)
	return (1-weight)*l.smooth + weight*bucket
}
