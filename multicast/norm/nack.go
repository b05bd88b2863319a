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
	upTo  Position // the NACK was about blocks before this one
	epoch uint64   // counts NACKs: what others asked before is forgotten
	out   [][]byte // requests to be sent
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

// trigger starts the procedure if something is missing before s.limit.
func (s *source) trigger(now time.Time) {
	n := &s.nack
	if n.phase == nackHoldoff && !now.Before(n.until) && len(n.out) == 0 {
		n.phase = nackIdle
	}
	if s.r.cfg.Silent || n.phase != nackIdle || !s.pending() {
		return
	}
	n.phase = nackBackoff
	n.until = now.Add(s.randomBackoff(s.backoff))
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

// checked is the first block of an object that a check for losses up to s.limit
// does not reach.
func (s *source) checked(o *rxObject) int64 {
	if o.id.Before(s.limit.Object) {
		return o.part.Blocks
	}
	return min(int64(s.limit.Block), o.part.Blocks)
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
		case o.state == objectHeard, o.hasInfo && o.info == nil, int64(o.low) < s.checked(o):
			return true
		}
	}
	return false
}

// pollNack sends what the procedure has ready.
func (s *source) pollNack(now time.Time, b []byte) []byte {
	n := &s.nack
	if n.phase == nackBackoff && !now.Before(n.until) {
		n.phase = nackIdle
		var suppressed bool
		n.out, suppressed = s.buildNacks()
		if suppressed && len(n.out) == 0 {
			s.r.stats.Suppressed++
		}
		if suppressed || len(n.out) > 0 {
			n.phase, n.upTo = nackHoldoff, s.limit
			n.until = now.Add(time.Duration(s.backoff+2)*s.grtt + time.Millisecond)
			n.epoch++
		}
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
