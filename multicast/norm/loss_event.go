package norm

import (
	"math"
	"time"
)

// lossEvents is the loss event rate of RFC 4654 §4.1, RFC 5348 §5: losses within
// one round trip time count once, and the intervals between such events are
// averaged with less weight for those long ago.
type lossEvents struct {
	// intervals in packets: the one that goes on, then those over, newest first.
	intervals [9]float64
	events    int       // so far, at least one if any was lost
	at        time.Time // the beginning of the last one
}

// eventWeights is the weight of each interval that is over.
var eventWeights = [8]float64{5, 5, 5, 5, 4, 3, 2, 1}

// hear takes a packet that came, and the number of those that were lost before
// it; rtt separates events.
func (e *lossEvents) hear(now time.Time, lost int, rtt time.Duration) {
	e.intervals[0]++
	if lost <= 0 || (e.events > 0 && now.Sub(e.at) < rtt) {
		return
	}
	copy(e.intervals[1:], e.intervals[:])
	e.intervals[0] = 0
	e.events++
	e.at = now
}

// first replaces the interval before the first loss, which is as long as the
// sender was slow, by the one that fits a rate (RFC 5348 §6.3.1).
func (e *lossEvents) first(size float64, rtt time.Duration, rate float64) {
	e.intervals[1] = 1 / fairLoss(size, rtt, rate)
}

// fraction is the loss event rate, 0 before the first loss.
func (e *lossEvents) fraction() float64 {
	var over, on, weights float64
	for i, w := range eventWeights[:min(e.events, len(eventWeights))] {
		over += w * e.intervals[i+1]
		on += w * e.intervals[i]
		weights += w
	}
	if weights == 0 {
		return 0
	}
	return 1 / max(over/weights, on/weights, 1)
}

// fairRate is what a TCP connection would reach, in bytes per second: the
// equation of RFC 5740 §5.5.2 for packets of size bytes, a round trip time and
// a loss event rate p above 0.
func fairRate(size float64, rtt time.Duration, p float64) float64 {
	return size / (rtt.Seconds() * (math.Sqrt(2*p/3) + 12*p*math.Sqrt(3*p/8)*(1+32*p*p)))
}

// fairLoss is the loss event rate at which fairRate gives a rate.
func fairLoss(size float64, rtt time.Duration, rate float64) float64 {
	low, high := 1e-8, 1.0
	for range 40 {
		mid := math.Sqrt(low * high)
		if fairRate(size, rtt, mid) > rate {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
