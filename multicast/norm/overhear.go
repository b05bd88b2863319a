package norm

import "time"

// overhearBudget bounds the blocks that one NACK of another receiver touches.
const overhearBudget = 4096

// overhearNack notes another receiver's requests. With authentication they
// cannot be checked, so they count for nothing.
func (r *Receiver) overhearNack(now time.Time, m *Nack) {
	if m.Source == r.cfg.Node || r.cfg.Auth != nil {
		return
	}
	if s := r.find(m.Sender, m.Instance); s != nil {
		s.overhear(now, m.Requests)
		s.overhearRate(m.Ext)
	}
}

// overhearAck notes another receiver's report of congestion.
func (r *Receiver) overhearAck(m *Ack) {
	if m.Source == r.cfg.Node || r.cfg.Auth != nil || m.AckType != AckCC {
		return
	}
	if s := r.find(m.Sender, m.Instance); s != nil {
		s.overhearRate(m.Ext)
	}
}

// overhear notes requests that the sender has, so as not to repeat them.
func (s *source) overhear(now time.Time, requests Requests) {
	if !s.synced || s.r.cfg.Silent {
		return
	}
	budget := overhearBudget
	var last *rxBlock
	need := 0
	for q := range requests.All() {
		o := s.objects[q.First.Object]
		if o == nil || o.ended() || q.First.Object != q.Last.Object {
			continue
		}
		if q.Level&(LevelInfo|LevelObject) != 0 {
			o.infoHeard = now
		}
		if o.state != objectOpen || q.Level&(LevelSegment|LevelBlock) == 0 {
			continue
		}
		if q.Level&LevelSegment == 0 {
			budget = s.overhearBlocks(now, o, q, budget)
			continue
		}
		b := o.heardBlock(now, q.First.Block)
		if b == nil || q.First.Block != q.Last.Block {
			continue
		}
		if b != last {
			last, need = b, 0
		}
		need += b.overhear(q, b.n)
		b.need = max(b.need, need)
		s.nack.peak = max(s.nack.peak, float64(min(need, b.n))/float64(b.n))
	}
}

// heardBlock gives the state of a block that others asked for just now.
func (o *rxObject) heardBlock(now time.Time, number uint32) *rxBlock {
	if int64(number) >= o.part.Blocks {
		return nil
	}
	b := o.spareBlock(number)
	if b != nil && !o.src.recent(now, b.heard) {
		b.heard, b.need, b.explicit = now, 0, symbolSet{}
	}
	return b
}

// overhear notes a request for symbols and gives how many parity symbols it asks for.
func (b *rxBlock) overhear(q Request, n int) int {
	first, end := int(q.First.Symbol), min(int(q.Last.Symbol)+1, 255)
	if q.Form == FormErasures {
		return min(first, 255)
	}
	if first >= end {
		return 0
	}
	b.explicit.addRange(first, end)
	return max(end-max(first, n), 0)
}

// overhearBlocks notes a request for whole blocks.
func (s *source) overhearBlocks(now time.Time, o *rxObject, q Request, budget int) int {
	end := min(int64(q.Last.Block)+1, o.end(s.limit))
	for number := max(int64(q.First.Block), int64(o.low)); number < end && budget > 0; number++ {
		budget--
		if b := o.heardBlock(now, uint32(number)); b != nil {
			b.explicit.addRange(0, o.part.Len(number))
		}
	}
	return budget
}
