package norm

import "time"

// handleNack notes what a receiver asks for.
func (s *Sender) handleNack(now time.Time, m *Nack, unicast bool) {
	s.stats.Nacks++
	if s.closing {
		return
	}
	s.repair.nack++
	s.repair.raised, s.repair.budget = false, maxRepairBlocks
	s.repair.seen = s.seen(now, m)
	asked := 0
	for q := range m.Requests.All() {
		asked += s.request(q)
	}
	if r := s.receivers[m.Source]; r != nil {
		r.LastNack = now
		r.Nacks++
		r.Requested += uint64(asked)
	}
	s.watermark.roll.heard(m.Source)
	if !s.repair.raised {
		return
	}
	if s.repair.end.IsZero() {
		s.repair.begun = now
		s.repair.end = now.Add(time.Duration(s.cfg.Backoff+1) * s.grtt())
	}
	if s.allAsked() {
		s.repair.end = now
	}
	s.repair.advert = s.repair.advert || unicast
}

// soloists is how many receivers may be waited for one by one.
const soloists = 8

// allAsked reports whether, with nothing left to send but repairs, there is
// nobody to wait for: each receiver known has asked since aggregation began, and
// another one had its chance to become known in an earlier aggregation.
func (s *Sender) allAsked() bool {
	if s.pass.Object != s.next || !s.repair.collected || len(s.receivers) > soloists {
		return false
	}
	for _, r := range s.receivers {
		if r.LastNack.Before(s.repair.begun) {
			return false
		}
	}
	return true
}

// seen is the time up to which the receiver had what was sent when it made the
// NACK. That is what grtt_response tells, but for what queues add, for which
// half of the round trip time is allowed; without it, it is one GRTT ago.
func (s *Sender) seen(now time.Time, m *Nack) time.Time {
	r := s.receivers[m.Source]
	if m.GRTTResponse.zero() || r == nil || r.RTT == 0 {
		return now.Add(-s.grtt())
	}
	return now.Add(-min(r.RTT*3/2, s.grtt()))
}

// request notes one request and gives the number of symbols it is about.
func (s *Sender) request(q Request) int {
	first, last := q.First, q.Last
	if last.Before(first) && q.Form == FormRanges {
		return 0
	}
	if q.Level&(LevelSegment|LevelBlock) == 0 && q.Level&(LevelObject|LevelInfo) != 0 {
		return s.requestObjects(q)
	}
	o := s.objects[first.Object]
	if o == nil {
		s.askSquelch(first.Object)
		return 0
	}
	if last.Object != first.Object {
		return 0
	}
	if q.Level&LevelInfo != 0 {
		s.requestInfo(o)
	}
	if q.Level&LevelSegment == 0 {
		return s.requestBlocks(o, int64(first.Block), int64(last.Block))
	}
	if last.Block != first.Block {
		return 0
	}
	k := s.block(o, first.Block)
	if k == nil {
		return 0
	}
	return s.requestSymbols(k, q)
}

// requestSymbols notes a request on the segment level, within one block.
func (s *Sender) requestSymbols(k *txBlock, q Request) int {
	if q.Form == FormErasures {
		n := min(int(q.First.Symbol), s.cfg.Parity)
		s.wantParity(k, n)
		return n
	}
	n := k.sourceLen()
	first, end := int(q.First.Symbol), min(int(q.Last.Symbol)+1, n+s.cfg.Parity)
	if first >= end {
		return 0
	}
	s.wantSymbols(k, first, end)
	if end > n {
		s.wantParity(k, end-max(first, n))
	}
	return end - first
}

// requestBlocks notes a request for whole blocks.
func (s *Sender) requestBlocks(o *txObject, first, last int64) int {
	asked := 0
	for number := first; number <= min(last, o.part.Blocks-1) && s.repair.budget > 0; number++ {
		s.repair.budget--
		k := s.block(o, uint32(number))
		if k == nil {
			if !s.passed(o, number) {
				break // nothing beyond has been sent either
			}
			continue
		}
		s.wantSymbols(k, 0, k.sourceLen())
		asked += k.sourceLen()
	}
	return asked
}

// requestObjects notes a request for whole objects or their INFO.
func (s *Sender) requestObjects(q Request) int {
	first, last := q.First.Object, q.Last.Object
	if first.Before(s.oldest) || !first.Before(s.next) {
		s.askSquelch(first)
		first = s.oldest
	}
	asked := 0
	for id := first; id.Before(s.next) && !last.Before(id); id++ {
		o := s.objects[id]
		if o == nil {
			s.askSquelch(id)
			continue
		}
		s.requestInfo(o)
		if q.Level&LevelObject != 0 {
			asked += s.requestBlocks(o, 0, o.part.Blocks-1)
		}
	}
	return asked
}

// requestInfo queues an object's INFO unless it is on its way.
func (s *Sender) requestInfo(o *txObject) {
	if len(o.Info) == 0 || o.infoAsked || !o.infoSent || o.infoAt.After(s.repair.seen) {
		return
	}
	o.infoAsked = true
	s.repair.infos = append(s.repair.infos, o)
}

// advertDue: receivers that did not hear a unicast NACK are told of it at
// once, but no more often than 40 times a GRTT.
func (s *Sender) advertDue(time.Time) (time.Time, bool) {
	return s.repair.advertAt.Add(s.grtt() / 40), s.repair.advert && !s.closing
}

func (s *Sender) runAdvert(now time.Time, b []byte) []byte {
	s.repair.advert, s.repair.advertAt = false, now
	w := requestWriter{limit: s.cfg.SegmentSize - s.authLen()}
	m := RepairAdv{SenderHeader: s.header()}
	for _, k := range s.repair.wanted {
		if w.full() {
			m.Flags |= AdvLimit
			break
		}
		n := k.sourceLen()
		set := k.explicit
		if k.need <= s.cfg.Parity-k.fresh { // any parity serves
			set.clear(n)
			set.addRange(n, n+k.need)
		}
		w.addSet(FECReedSolomon, Position{Object: k.object.id, Block: k.number}, &set, 0)
	}
	if len(w.out) == 0 {
		s.sequence--
		return b
	}
	m.Requests = w.out
	s.stats.Advertised++
	return s.command(b, &m, &m.SenderHeader)
}
