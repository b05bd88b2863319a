package norm

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// pollNodes is how many receivers a probe names so that they answer at once.
const pollNodes = 16

// probeState is the CMD(CC) probes and the GRTT they measure (RFC 5740 §5.5.1).
type probeState struct {
	grtt     time.Duration
	peak     time.Duration // greatest sample since the last probe, 0 if none
	next     time.Time
	interval time.Duration
	sequence uint16
	turn     NodeID // the last receiver named in a probe
}

// grtt is the advertised greatest round trip time.
func (s *Sender) grtt() time.Duration { return s.probe.grtt }

// clampGRTT keeps the estimate in its bounds, and above one packet's time.
func (s *Sender) clampGRTT() {
	packet := time.Duration(float64(s.cfg.SegmentSize+PacketOverhead) / float64(s.Rate()) * float64(time.Second))
	s.probe.grtt = min(max(s.probe.grtt, s.cfg.GRTTMin, packet), s.cfg.GRTTMax)
}

// sample takes a measured round trip time: a greater one counts at once.
func (s *Sender) sample(rtt time.Duration) {
	s.probe.peak = max(s.probe.peak, rtt)
	if rtt > s.probe.grtt {
		s.probe.grtt = s.probe.grtt/4 + rtt*3/4
		s.clampGRTT()
	}
}

func (s *Sender) probeDue(time.Time) (time.Time, bool) { return s.probe.next, !s.closing }

func (s *Sender) runProbe(now time.Time, b []byte) []byte {
	p := &s.probe
	if p.peak > 0 && p.peak < p.grtt {
		// By half, not by the tenth of RFC 5740: there is but one probe a second, and
		// each wait of a group is a multiple of the GRTT.
		p.grtt = max(p.grtt/2, p.peak)
		s.clampGRTT()
	}
	p.peak = 0
	switch {
	case p.interval == 0:
		p.interval = min(5*p.grtt, s.cfg.ProbeMin)
	case p.interval < s.cfg.ProbeMin:
		p.interval = min(p.interval*3/2, s.cfg.ProbeMin)
	case s.cfg.NoRateFeedback:
		p.interval = min(p.interval*3/2, s.cfg.ProbeMax)
	}
	p.next = now.Add(p.interval)
	var items CCItems
	switch {
	case s.cfg.Congestion:
		var period time.Duration
		items, period = s.probeTFMCC(now)
		p.next = now.Add(period)
	case !s.cfg.NoRateFeedback:
		items = s.pollItems()
	}
	m := CC{SenderHeader: s.header(), CCSequence: p.sequence, SendTime: timestamp(now)}
	p.sequence++
	if !s.cfg.NoRateFeedback {
		m.Ext, m.Items = m.Ext.AppendRate(quantizeRate(float64(s.Rate()))), items
	}
	return s.command(b, &m, &m.SenderHeader)
}

// pollItems names receivers in turn: those that are named report without delay.
func (s *Sender) pollItems() CCItems {
	var items CCItems
	ids := slices.Sorted(maps.Keys(s.receivers))
	from, _ := slices.BinarySearch(ids, s.probe.turn+1)
	for i := range min(len(ids), pollNodes) {
		r := s.receivers[ids[(from+i)%len(ids)]]
		items = items.Append(s.ccItem(r.Node, CCFlagPLR, r.Rate))
		s.probe.turn = r.Node
	}
	return items
}

// ccItem is what a probe says of a receiver, its round trip time among it.
func (s *Sender) ccItem(id NodeID, flags uint8, rate float64) CCItem {
	item := CCItem{Node: id, Flags: flags, Rate: quantizeRate(rate)}
	if r := s.receivers[id]; r != nil && r.RTT > 0 {
		item.Flags |= CCFlagRTT
		item.RTT = quantizeRTT(r.RTT)
	}
	return item
}

// Handle takes a packet from the network. unicast says that it was addressed
// to this host alone, so that other receivers have not heard it. What is not
// valid feedback to this sender is counted and otherwise ignored; packets of
// other senders, and the sender's own, may be passed in too.
func (s *Sender) Handle(now time.Time, pkt []byte, unicast bool) {
	f, err := cut(pkt)
	if err != nil {
		s.stats.Rejected++
		return
	}
	switch Type(pkt[0] & 15) {
	case TypeNack:
		var m Nack
		if m.parse(f) == nil && s.admit(now, f, &m.Header, m.Sender, m.Instance) {
			s.measure(now, m.Source, m.GRTTResponse, m.Ext)
			s.handleNack(now, &m, unicast)
			return
		}
	case TypeAck:
		var m Ack
		if m.parse(f) == nil && s.admit(now, f, &m.Header, m.Sender, m.Instance) {
			s.stats.Acks++
			s.measure(now, m.Source, m.GRTTResponse, m.Ext)
			s.handleAck(now, &m)
			return
		}
	default:
		return // what senders say
	}
	s.stats.Rejected++
}

// admit checks that feedback is meant for this sender and is genuine, and
// remembers the receiver.
func (s *Sender) admit(now time.Time, f frame, h *Header, to NodeID, instance uint16) bool {
	if to != s.cfg.Node || instance != s.instance || h.Source == s.cfg.Node {
		return false
	}
	if s.cfg.Auth != nil && open(s.cfg.Auth, h.Source, f) != nil {
		return false
	}
	if s.receivers[h.Source] == nil && len(s.receivers) < s.cfg.MaxReceivers {
		s.receivers[h.Source] = &ReceiverReport{Node: h.Source}
	}
	return true
}

// steady notes a round trip time measured after a probe, and gives what of it
// lasts: the lower one of it and the last one after an earlier probe. A host that
// was busy for once must not slow a group down. r may be nil.
func (r *ReceiverReport) steady(rtt time.Duration, probe uint16) time.Duration {
	if r == nil {
		return rtt
	}
	if r.probe != probe {
		r.probe, r.before = probe, r.RTT
	}
	r.RTT = max(rtt, time.Microsecond)
	if r.before > 0 {
		return min(rtt, r.before)
	}
	return rtt
}

// measure takes the round trip time, loss and rate that feedback tells.
func (s *Sender) measure(now time.Time, from NodeID, response Timestamp, ext Extensions) {
	r := s.receivers[from]
	if !response.zero() {
		if rtt := timestamp(now).sub(response); rtt >= 0 && rtt <= s.cfg.GRTTMax {
			s.sample(r.steady(rtt, s.probe.sequence))
		}
	}
	if cc, ok := ext.CC(); ok && r != nil {
		r.Rate = unquantizeRate(cc.Rate)
		if s.cfg.Congestion {
			s.adapt(now, r, cc)
		}
	}
}

func (s *Sender) handleAck(now time.Time, m *Ack) {
	r := s.receivers[m.Source]
	if r != nil {
		r.LastAck = now
	}
	switch m.AckType {
	case AckCC:
		// Only here: libnorm garbles the loss in the EXT_CC of its NACKs.
		if cc, ok := m.Ext.CC(); ok && r != nil {
			r.Loss, r.HasLoss = float64(cc.Loss)/65535, true
		}
	case AckFlush:
		s.confirm(m)
	default:
		s.reply(m)
	}
}

// Receivers reports on each receiver heard, by node id.
func (s *Sender) Receivers() []ReceiverReport {
	out := make([]ReceiverReport, 0, len(s.receivers))
	for _, r := range s.receivers {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b ReceiverReport) int { return cmp.Compare(a.Node, b.Node) })
	return out
}
