package norm

import (
	"cmp"
	"slices"
	"time"
)

const (
	// maxPLR is how many potential limiting receivers are named in a probe.
	maxPLR = 5
	// limiterLost is how many probes a limiting receiver may leave unanswered.
	limiterLost = 10
)

// congestion is TFMCC, RFC 5740 §5.5.2 and RFC 4654: the rate follows the
// receiver that can take least, the current limiting receiver (CLR). It answers
// every probe; so do a few that may take its place (PLR).
type congestion struct {
	rate      float64 // bytes per second
	slowStart bool    // nobody has lost anything yet
	clr       limiter
	plr       []limiter // the slowest first
	raised    time.Time // when the rate was raised last
	heard     time.Time // any report
}

// limiter is a receiver with a low rate.
type limiter struct {
	node  NodeID
	rate  float64
	rtt   time.Duration
	heard time.Time
}

// Rate is the rate at which the caller should send, in bytes per second: that
// of the config or SetRate, or with Congestion what the network can take, up to
// that. It changes while feedback comes in.
func (s *Sender) Rate() int64 {
	if !s.cfg.Congestion {
		return s.cfg.Rate
	}
	return int64(min(max(s.tfmcc.rate, s.leastRate()), float64(s.cfg.Rate)))
}

// leastRate is two segments a second.
func (s *Sender) leastRate() float64 { return 2 * float64(s.cfg.SegmentSize) }

// startTFMCC begins with one segment in a round trip time.
func (s *Sender) startTFMCC() {
	s.tfmcc = congestion{slowStart: true, rate: float64(s.cfg.SegmentSize) / s.cfg.GRTT.Seconds()}
}

// adapt takes a receiver's report.
func (s *Sender) adapt(now time.Time, r *ReceiverReport, cc CCFeedback) {
	t := &s.tfmcc
	t.heard = now
	l := limiter{r.Node, unquantizeRate(cc.Rate), r.RTT, now}
	if l.rtt == 0 {
		l.rtt = s.grtt()
	}
	if cc.Flags&CCFlagRTT == 0 && cc.Flags&CCFlagStart == 0 {
		l.rate *= s.grtt().Seconds() / l.rtt.Seconds() // it did not know its round trip time
	}
	switch {
	case cc.Flags&CCFlagLeave != 0:
		if l.node == t.clr.node {
			s.replaceCLR(now)
		}
		t.forget(l.node)
		return
	case t.slowStart && cc.Flags&CCFlagStart != 0:
		s.startUp(now, l)
	case t.slowStart:
		t.slowStart = false
		s.limit(now, l)
	case l.node == t.clr.node, t.clr.node == NodeNone:
		s.limit(now, l)
	case cc.Flags&CCFlagStart != 0:
		return // it has lost nothing, so it does not limit
	case l.rate < t.rate:
		s.limit(now, l)
	default:
		t.remember(l)
	}
}

// startUp raises the rate to twice what the slowest receiver gets. What it gets
// is not a reason to go slower: there may be nothing to send.
func (s *Sender) startUp(now time.Time, l limiter) {
	t := &s.tfmcc
	if t.clr.node != l.node && t.clr.node != NodeNone && l.rate >= t.clr.rate {
		t.remember(l)
		return
	}
	t.remember(t.clr)
	t.clr = l
	t.forget(l.node)
	t.rate = min(max(t.rate, l.rate), float64(s.cfg.Rate))
	t.raised = now
}

// limit makes a receiver the CLR and follows its rate: down at once, up by one
// packet a round trip time in each (RFC 4654 §2.4).
func (s *Sender) limit(now time.Time, l limiter) {
	t := &s.tfmcc
	if t.clr.node != l.node {
		t.remember(t.clr)
		t.forget(l.node)
		t.raised = now
	}
	t.clr = l
	if l.rate <= t.rate {
		t.rate, t.raised = max(l.rate, s.leastRate()), now
		return
	}
	trips := min(now.Sub(t.raised).Seconds()/l.rtt.Seconds(), 1)
	step := trips * float64(s.cfg.SegmentSize) / l.rtt.Seconds()
	t.rate, t.raised = min(l.rate, t.rate+step, float64(s.cfg.Rate)), now
}

// remember notes a receiver that may become the CLR.
func (t *congestion) remember(l limiter) {
	if l.node == NodeNone {
		return
	}
	t.forget(l.node)
	t.plr = append(t.plr, l)
	slices.SortStableFunc(t.plr, func(a, b limiter) int { return cmp.Compare(a.rate, b.rate) })
	t.plr = t.plr[:min(len(t.plr), maxPLR)]
}

func (t *congestion) forget(id NodeID) {
	t.plr = slices.DeleteFunc(t.plr, func(l limiter) bool { return l.node == id })
}

// replaceCLR ends the CLR's part: the slowest of the others is next.
func (s *Sender) replaceCLR(now time.Time) {
	t := &s.tfmcc
	t.clr = limiter{}
	if len(t.plr) > 0 {
		t.clr, t.plr = t.plr[0], slices.Delete(t.plr, 0, 1)
		t.clr.heard, t.raised = now, now
	}
}

// probeTFMCC is done with each probe: limiters that fell silent are let go, and
// with no reports at all the rate is halved. It gives the items of the probe
// and the time to the next one, a round trip time of the CLR.
func (s *Sender) probeTFMCC(now time.Time) (CCItems, time.Duration) {
	t := &s.tfmcc
	period := max(t.clr.rtt, s.cfg.GRTTMin)
	if t.clr.node == NodeNone {
		period = s.grtt()
	}
	patience := max(limiterLost*period, time.Second)
	t.plr = slices.DeleteFunc(t.plr, func(l limiter) bool { return now.Sub(l.heard) > patience })
	if t.clr.node != NodeNone && now.Sub(t.clr.heard) > patience {
		s.replaceCLR(now)
	}
	if !t.heard.IsZero() && now.Sub(t.heard) > patience {
		t.heard = now
		t.rate = max(t.rate/2, s.leastRate())
	}
	var items CCItems
	if t.clr.node != NodeNone {
		items = items.Append(s.ccItem(t.clr.node, CCFlagCLR, t.clr.rate))
	}
	for _, l := range t.plr {
		items = items.Append(s.ccItem(l.node, CCFlagPLR, l.rate))
	}
	return items, period
}
