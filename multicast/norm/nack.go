package norm

import (
	"math"
	"time"
)

// nackPhase is the state of the NACK procedure (RFC 5740 §5.3).
type nackPhase uint8

const (
	nackIdle    nackPhase = iota
	nackBackoff           // waiting a random time, listening to others
	nackHoldoff           // waiting for the repairs
)

// nackState is the NACK procedure towards one sender.
type nackState struct {
	phase nackPhase
	until time.Time
	asked time.Time // when the hold-off began
	upTo  Position  // the NACK was about blocks before this one
	since Position  // what is asked for was missing before this one when the backoff began
	peak  float64   // what others asked for of a block of late, as a fraction of it
	out   [][]byte  // requests to be sent
}

// due is when pollNack has something to do, zero if it has not.
func (n *nackState) due() time.Time {
	switch {
	case len(n.out) > 0:
		return time.Unix(0, 0)
	case n.phase == nackBackoff:
		return n.until
	}
	return time.Time{}
}

// rewind is called when the sender goes back: repairs have begun.
func (n *nackState) rewind(at Position) {
	if n.phase == nackHoldoff && len(n.out) == 0 && at.Before(n.upTo) {
		n.phase = nackIdle
	}
}

// idle is called when the sender says that it has nothing to send. If that is
// later than a round trip time after the NACK, the NACK or its answer was lost.
func (n *nackState) idle(now time.Time, grtt time.Duration) {
	if n.phase == nackHoldoff && len(n.out) == 0 && now.Sub(n.asked) > grtt {
		n.phase = nackIdle
	}
}

// answered is called when NORM_INFO comes that was missing: it may be all that
// was asked for.
func (n *nackState) answered() {
	if n.phase == nackHoldoff && len(n.out) == 0 {
		n.phase = nackIdle
	}
}

// trigger starts the procedure if something is missing before s.limit.
func (s *source) trigger(now time.Time) {
	n := &s.nack
	if n.phase == nackHoldoff && !now.Before(n.until) && len(n.out) == 0 {
		n.phase = nackIdle
	}
	if s.r.cfg.Silent || n.phase != nackIdle || !s.pending() {
		return
	}
	s.backOff(now)
}

// backOff begins the time in which others may ask for what is missing now.
func (s *source) backOff(now time.Time) {
	n := &s.nack
	n.phase, n.since = nackBackoff, s.limit
	n.until = now.Add(s.biased(s.randomBackoff(s.backoff), s.urgency(), s.backoff))
}

// holdOff begins the time in which repairs are waited for.
func (s *source) holdOff(now time.Time) {
	n := &s.nack
	n.phase, n.upTo = nackHoldoff, s.limit
	n.asked, n.until = now, now.Add(s.hold())
	n.peak *= 0.9
}

// hold is how long an answer to a request may take.
func (s *source) hold() time.Duration { return time.Duration(s.backoff+2)*s.grtt + time.Millisecond }

// urgencyBlocks bounds how many blocks are looked at to see how urgent a NACK is.
const urgencyBlocks = 256

// urgency compares what this receiver needs with what the neediest one of the
// group probably does, 0 to 1. It is that of the block for which it is highest.
func (s *source) urgency() float64 {
	most := 0.0
	looked := 0
	for id := s.low; !s.high.Before(id) && !s.limit.Object.Before(id); id++ {
		o := s.objects[id]
		if o == nil || o.state == objectHeard || (o.hasInfo && o.info == nil) {
			return 1
		}
		if o.ended() {
			continue
		}
		for number := int64(o.low); number < o.end(s.limit) && looked < urgencyBlocks; number++ {
			if o.complete.has(uint32(number)) {
				continue
			}
			b := o.blocks[uint32(number)]
			if b == nil {
				return 1
			}
			looked++
			most = max(most, float64(b.n-b.sources-len(b.parity))/s.neediest(float64(b.n)))
		}
	}
	return min(most, 1)
}

// neediest is how many symbols of a block of n the neediest receiver probably
// lacks: what others asked for of late, or if nothing was heard of that, by this
// receiver's own loss and the size of the group.
func (s *source) neediest(n float64) float64 {
	if s.nack.peak > 0 {
		return max(s.nack.peak*n, 1)
	}
	p := s.loss.fraction()
	return max(n*p+math.Sqrt(2*math.Log(float64(s.group))*n*p*(1-p)), 1)
}

// biased moves a time within factor*GRTT so that the receivers who need most
// come first: what they are sent serves the others too.
func (s *source) biased(t time.Duration, urgency float64, factor int) time.Duration {
	const weight = 0.75
	whole := float64(factor) * float64(s.grtt)
	return time.Duration((1-weight)*float64(t) + weight*(1-urgency)*whole)
}

// randomBackoff is a truncated exponential time up to factor*GRTT (RFC 5401 §3.2).
func (s *source) randomBackoff(factor int) time.Duration {
	t := float64(factor) * float64(s.grtt)
	if t == 0 {
		return 0
	}
	lambda := math.Log(float64(s.group)) + 1
	x := s.r.rng.Float64()*lambda/t + lambda/(t*(math.Exp(lambda)-1))
	return time.Duration(min(max(t/lambda*math.Log(x*(math.Exp(lambda)-1)*t/lambda), 0), t))
}

// pending reports whether anything before s.limit is missing.
func (s *source) pending() bool {
	if !s.synced || !s.moved {
		return false
	}
	for id := s.low; !s.high.Before(id) && !s.limit.Object.Before(id); id++ {
		o := s.objects[id]
		switch {
		case o == nil:
			return true
		case o.ended():
		case o.state == objectHeard, o.hasInfo && o.info == nil, int64(o.low) < o.end(s.limit):
			return true
		}
	}
	return false
}

// ask ends the backoff. What became missing during it is asked for too, but is
// no reason to ask: it has a time of its own, or a whole group would ask for a
// block the moment it is over.
func (s *source) ask(now time.Time) {
	n := &s.nack
	n.phase = nackIdle
	switch {
	case !s.pending():
	case s.uncovered(now, n.since):
		n.out = s.buildNacks(now, s.limit)
		s.holdOff(now)
	default:
		s.buildNacks(now, n.since) // counts the rounds
		s.r.stats.Suppressed++
		if s.uncovered(now, s.limit) {
			s.backOff(now)
		} else {
			s.holdOff(now)
		}
	}
}

// pollNack sends what the procedure has ready.
func (s *source) pollNack(now time.Time, b []byte) []byte {
	n := &s.nack
	if n.phase == nackBackoff && !now.Before(n.until) {
		s.ask(now)
	}
	if len(n.out) == 0 {
		return b
	}
	m := Nack{
		Header: Header{Source: s.r.cfg.Node}, Sender: s.id, Instance: s.instance,
		GRTTResponse: s.ack.response(now), Requests: n.out[0],
	}
	n.out = n.out[1:]
	s.r.stats.Nacks++
	if s.ack.rated {
		m.Ext = m.Ext.AppendCC(s.ccFeedback())
	}
	return s.feedback(b, &m, &m.Header)
}

// feedback encodes and seals a receiver's message.
func (s *source) feedback(b []byte, m Message, h *Header) []byte {
	a := s.r.cfg.Auth
	if a == nil {
		return m.Append(b)
	}
	h.Ext = h.Ext.appendAuth(a.Overhead())
	out := m.Append(b)
	seal(a, out[len(b):])
	return out
}
