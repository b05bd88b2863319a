package norm

import (
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// ackState is what a receiver owes a sender apart from NACKs: the answer to
// its probes and the confirmation of its watermarks.
type ackState struct {
	probed   bool
	sent     Timestamp // send_time of the last probe
	at       time.Time // when it came
	sequence uint16
	rated    bool // the sender wants reports of congestion
	limited  bool // and its rate follows them: it names a CLR
	reported bool // it has had one
	flags    uint8
	rtt      time.Duration // as the sender measured it, 0 if it has not

	report time.Time // when to send ACK(CC), zero for not at all
	flush  time.Time // when to send ACK(FLUSH), zero for not at all
	mark   Flush     // what to confirm

	queries []ackQuery // answers to CMD(ACK_REQ), the first due first
}

// ackQuery is an answer that is due.
type ackQuery struct {
	at             time.Time
	ackType, ackID uint8
}

// maxAnswers is how many answers to CMD(ACK_REQ) wait at once.
const maxAnswers = 16

// due is when pollAck has something to do, zero if it has not.
func (a *ackState) due() time.Time {
	at := a.report
	if at.IsZero() || (!a.flush.IsZero() && a.flush.Before(at)) {
		at = a.flush
	}
	if len(a.queries) > 0 && (at.IsZero() || a.queries[0].at.Before(at)) {
		at = a.queries[0].at
	}
	return at
}

// response is the probe's send time plus the time it was held here.
func (a *ackState) response(now time.Time) Timestamp {
	if !a.probed {
		return Timestamp{}
	}
	return a.sent.add(now.Sub(a.at))
}

// handleProbe notes a probe. Receivers that it names report at once. Others do
// so when they never did, or when they fare worse than those named; they wait
// a random time, for another's report may make theirs needless.
func (s *source) handleProbe(now time.Time, m *CC) {
	a := &s.ack
	a.probed, a.sent, a.at, a.sequence = true, m.SendTime, now, m.CCSequence
	var sending uint16
	sending, a.rated = m.Ext.Rate()
	a.flags, a.limited = 0, false
	named := false
	lowest := math.Inf(1)
	for item := range m.Items.All() {
		a.limited = a.limited || item.Flags&CCFlagCLR != 0
		if item.Node != s.r.cfg.Node {
			lowest = min(lowest, unquantizeRate(item.Rate))
			continue
		}
		named = true
		a.flags = item.Flags & (CCFlagCLR | CCFlagPLR)
		if item.Flags&CCFlagRTT != 0 {
			a.rtt = unquantizeRTT(item.RTT)
		}
	}
	if !a.rated || s.r.cfg.Silent {
		a.report = time.Time{}
		return
	}
	switch {
	case named:
		a.report = now
	case !a.report.IsZero():
	case !a.reported, len(m.Items) == 0, s.loss.fraction() > 0 && s.rate() < 0.9*lowest && !math.IsInf(lowest, 1):
		factor := max(s.backoff, 4)
		share := min(s.rate()/max(unquantizeRate(sending), 1), 1)
		a.report = now.Add(s.biased(s.randomBackoff(factor), 1-share, factor))
	}
}

// overhearRate drops a report that another's, of about the same rate or a
// lower one, makes needless.
func (s *source) overhearRate(ext Extensions) {
	cc, ok := ext.CC()
	if ok && s.ack.flags == 0 && s.ack.reported && s.rate() > 0.9*unquantizeRate(cc.Rate) {
		s.ack.report = time.Time{}
	}
}

// rate is what this receiver could take, in bytes per second: by RFC 5740
// §5.5.2 from loss events and round trip time, or twice what comes if nothing
// was lost yet.
func (s *source) rate() float64 {
	p := s.loss.events.fraction()
	if p <= 0 {
		return 2 * s.loss.rate
	}
	return fairRate(s.loss.size, s.rtt(), p)
}

// rtt is the round trip time as the sender measured it, or the greatest of all.
func (s *source) rtt() time.Duration {
	if s.ack.rtt == 0 {
		return s.grtt
	}
	return s.ack.rtt
}

// ccFeedback is EXT_CC as of now. The loss it tells is the fraction of packets,
// or of loss events if the sender's rate follows it (RFC 4654 §4.1).
func (s *source) ccFeedback() CCFeedback {
	p := s.loss.fraction()
	if s.ack.limited {
		p = s.loss.events.fraction()
	}
	c := CCFeedback{Sequence: s.ack.sequence, Flags: s.ack.flags, RTT: quantizeRTT(s.grtt), Loss: quantizeLoss(p), Rate: quantizeRate(s.rate())}
	if s.ack.rtt > 0 {
		c.Flags |= CCFlagRTT
		c.RTT = quantizeRTT(s.ack.rtt)
	}
	if s.loss.events.events == 0 {
		c.Flags |= CCFlagStart
	}
	return c
}

// confirm schedules the ACK of a watermark if everything up to it is here.
func (s *source) confirm(now time.Time, m *Flush) {
	if s.r.cfg.Silent || !s.confirmed(m.Position) || !s.ack.flush.IsZero() {
		return
	}
	s.ack.mark = Flush{FEC: m.FEC, Position: m.Position, BlockLen: m.BlockLen}
	s.ack.flush = s.spread(now)
}

// handleAckReq schedules the answer to a CMD(ACK_REQ) that names this node: a
// report of congestion, or what the application says.
func (s *source) handleAckReq(now time.Time, m *AckReq) {
	a := &s.ack
	named := false
	for id := range m.Nodes.All() {
		named = named || id == s.r.cfg.Node
	}
	if !named || s.r.cfg.Silent {
		return
	}
	if m.AckType == AckCC {
		a.report = now
	}
	if m.AckType < firstAppAck || len(a.queries) >= maxAnswers {
		return
	}
	for _, q := range a.queries {
		if q.ackType == m.AckType && q.ackID == m.AckID {
			return
		}
	}
	a.queries = append(a.queries, ackQuery{s.spread(now), m.AckType, m.AckID})
	slices.SortStableFunc(a.queries, func(x, y ackQuery) int { return x.at.Compare(y.at) })
}

// spread is a random time within one GRTT, so that not all nodes named answer at once.
func (s *source) spread(now time.Time) time.Time {
	return now.Add(time.Duration(s.r.rng.Float64() * float64(s.grtt)))
}

// confirmed reports whether the object at a position is complete up to it, and
// nothing before it is open.
func (s *source) confirmed(at Position) bool {
	o := s.objects[at.Object]
	if o == nil || s.low.Before(at.Object) {
		return false
	}
	switch o.state {
	case objectComplete:
		return true
	case objectOpen:
		return at.Block < o.low
	}
	return false
}

// pollAck sends the ACK that is due.
func (s *source) pollAck(now time.Time, b []byte) []byte {
	a := &s.ack
	m := Ack{Header: Header{Source: s.r.cfg.Node}, Sender: s.id, Instance: s.instance, GRTTResponse: a.response(now)}
	switch {
	case !a.flush.IsZero() && !now.Before(a.flush):
		a.flush = time.Time{}
		m.AckType = AckFlush
		m.Payload = binary.BigEndian.AppendUint16([]byte{byte(a.mark.FEC), 0}, uint16(a.mark.Object))
		m.Payload = appendPayloadID(m.Payload, a.mark.FEC, a.mark.Block, a.mark.Symbol, a.mark.BlockLen)
	case !a.report.IsZero() && !now.Before(a.report):
		a.report, a.reported = time.Time{}, true
		m.AckType = AckCC
	case len(a.queries) > 0 && !now.Before(a.queries[0].at):
		q := a.queries[0]
		a.queries = a.queries[1:]
		m.AckType, m.AckID = q.ackType, q.ackID
		if s.r.cfg.Answer != nil {
			var ok bool
			if m.Payload, ok = s.r.cfg.Answer(AckQuery{s.id, s.instance, q.ackType, q.ackID}); !ok {
				return b
			}
		}
	default:
		return b
	}
	if a.rated {
		m.Ext = m.Ext.AppendCC(s.ccFeedback())
	}
	s.r.stats.Acks++
	return s.feedback(b, &m, &m.Header)
}
