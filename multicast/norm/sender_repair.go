package norm

import (
	"container/heap"
	"slices"
	"time"
)

// maxRepairBlocks bounds how many blocks a sender keeps the repair history of.
// Forgetting one costs at most some parity that a receiver has already.
const maxRepairBlocks = 1 << 16

// repairState is what receivers asked for: first collected over the
// aggregation time, then queued ahead of new data.
type repairState struct {
	wanted []*txBlock // asked for since aggregation began
	begun  time.Time  // the aggregation
	end    time.Time  // of the aggregation, zero if there is none
	// collected says that requests were collected for the whole time once.
	collected bool
	queue     blockHeap
	group     []*txBlock  // taken from the queue: a symbol of each is sent in turn
	turn      int         // in the group
	infos     []*txObject // whose INFO was asked for
	pending   int         // symbols in the queue
	history   []*txBlock  // all blocks with state, oldest first
	nack      uint64      // counts NACKs, to tell requests of one from the next's
	raised    bool        // the NACK being read asked for something new
	budget    int         // blocks that the NACK being read may still touch
	seen      time.Time   // what was sent later had not arrived when the NACK was made

	advert   bool      // a request came by unicast: others should hear of it
	advertAt time.Time // when REPAIR_ADV was sent last
}

// txBlock is a block that was asked for.
type txBlock struct {
	object *txObject
	number uint32
	fresh  int // parity rows from here on have not been sent yet
	rounds int // of repair that were queued
	sentAt time.Time

	// Asked for since aggregation began: parity symbols, as the greatest number
	// in one NACK, and symbols by their id.
	need     int
	explicit symbolSet
	isWanted bool
	nack     uint64 // that asked counts for
	asked    int

	queue  symbolSet // to be sent
	queued bool      // in the heap
}

// sourceLen is the number of source symbols.
func (k *txBlock) sourceLen() int { return k.object.part.Len(int64(k.number)) }

// block gives the state of a block that may be repaired now, or nil.
func (s *Sender) block(o *txObject, number uint32) *txBlock {
	if int64(number) >= o.part.Blocks || !s.passed(o, int64(number)) {
		return nil // not there, or its first pass is not over
	}
	k := s.track(o, number, s.cfg.AutoParity)
	if k == nil {
		return nil
	}
	// A request that crossed with a repair cannot have known of it.
	if !k.sentAt.IsZero() && k.sentAt.After(s.repair.seen) {
		return nil
	}
	return k
}

// track gives the state of a block, made if need be for one of which so many
// parity symbols have been sent; nil if there is no room.
func (s *Sender) track(o *txObject, number uint32, parity int) *txBlock {
	k := o.blocks[number]
	if k == nil && s.makeRoom() {
		k = &txBlock{object: o, number: number, fresh: parity}
		o.blocks[number] = k
		s.repair.history = append(s.repair.history, k)
	}
	return k
}

// makeRoom bounds the history: it forgets an old block that is not being worked
// on, and reports whether there is room for one more.
func (s *Sender) makeRoom() bool {
	for range 16 {
		h := s.repair.history
		if len(h) < maxRepairBlocks {
			return true
		}
		if k := h[0]; k.isWanted || k.queued {
			s.repair.history = append(h[1:], k)
		} else {
			delete(k.object.blocks, k.number)
			s.repair.history = h[1:]
		}
	}
	return false
}

// wantParity notes that the NACK being read asks for n more parity symbols.
func (s *Sender) wantParity(k *txBlock, n int) {
	if k.nack != s.repair.nack {
		k.nack, k.asked = s.repair.nack, 0
	}
	k.asked = min(k.asked+n, s.cfg.Parity)
	if k.asked > k.need {
		k.need = k.asked
		s.want(k)
	}
}

// wantSymbols notes that symbols were asked for by their ids.
func (s *Sender) wantSymbols(k *txBlock, first, end int) {
	before := k.explicit
	k.explicit.addRange(first, end)
	if k.explicit != before {
		s.want(k)
	}
}

func (s *Sender) want(k *txBlock) {
	s.repair.raised = true
	if !k.isWanted {
		k.isWanted = true
		s.repair.wanted = append(s.repair.wanted, k)
	}
}

// aggregationDue: requests have been collected for (K+1)*GRTT.
func (s *Sender) aggregationDue(time.Time) (time.Time, bool) {
	return s.repair.end, !s.closing && !s.repair.end.IsZero()
}

func (s *Sender) runAggregation(_ time.Time, b []byte) []byte {
	s.repair.end, s.repair.collected = time.Time{}, true
	wanted := s.repair.wanted
	s.repair.wanted = nil
	for _, k := range wanted {
		if !k.object.dropped {
			s.enqueue(k)
		}
		k.isWanted, k.need, k.explicit = false, 0, symbolSet{}
	}
	return b
}

// enqueue turns what was asked for of a block into symbols to send: parity
// that nobody has yet, and only if there is too little of it what was asked by
// its id. Requests of several receivers do not add up.
func (s *Sender) enqueue(k *txBlock) {
	o := k.object
	if o.spent {
		return
	}
	if s.cfg.RepairRounds > 0 && k.rounds >= s.cfg.RepairRounds {
		s.spend(o, false)
		return
	}
	n := k.sourceLen()
	add := symbolSet{}
	for i := k.explicit.next(0); i < n; i = k.explicit.next(i + 1) {
		add.add(i)
	}
	need := k.need - k.queue.count(n, 256)
	if need > 0 {
		fresh := min(need, s.cfg.Parity-k.fresh)
		add.addRange(n+k.fresh, n+k.fresh+fresh)
		k.fresh += fresh
		if fresh < need {
			for i := k.explicit.next(n); i < n+s.cfg.Parity; i = k.explicit.next(i + 1) {
				add.add(i)
			}
		}
	}
	before := k.queue.count(0, 256)
	k.queue.union(&add)
	s.repair.pending += k.queue.count(0, 256) - before
	if !k.queued && !k.queue.empty() {
		k.rounds++
		k.queued = true
		heap.Push(&s.repair.queue, k)
	}
}

// spend says that an object's repair limit is reached; all says that nothing
// of it is repaired any more, rather than one block.
func (s *Sender) spend(o *txObject, all bool) {
	if !o.spentSaid {
		o.spentSaid = true
		s.event(SenderEvent{Kind: RepairsSpent, Object: o.id})
	}
	if all {
		o.spent = true
		s.dropRepairs(o)
	}
}

// dropRepairs forgets what is asked and queued of an object.
func (s *Sender) dropRepairs(o *txObject) {
	of := func(k *txBlock) bool {
		if k.object == o {
			s.repair.pending -= k.queue.count(0, 256)
			k.queue, k.queued = symbolSet{}, false
		}
		return k.object == o
	}
	s.repair.queue = slices.DeleteFunc(s.repair.queue, of)
	s.repair.group = slices.DeleteFunc(s.repair.group, of)
	heap.Init(&s.repair.queue)
	if !o.dropped {
		return
	}
	s.repair.history = slices.DeleteFunc(s.repair.history, func(k *txBlock) bool { return k.object == o })
}

// nextRepair takes the next symbol to be repaired out of the queue, nil if
// there is none. The blocks of a group are interleaved as in the first pass.
func (s *Sender) nextRepair() (k *txBlock, symbol int) {
	r := &s.repair
	for len(r.queue) > 0 && (len(r.group) == 0 || sameGroup(r.group[0], r.queue[0])) {
		r.group = append(r.group, heap.Pop(&r.queue).(*txBlock))
	}
	if len(r.group) == 0 {
		return nil, 0
	}
	if r.turn >= len(r.group) {
		r.turn = 0
	}
	k = r.group[r.turn]
	symbol = k.queue.next(0)
	k.queue.remove(symbol)
	r.pending--
	r.turn++
	if k.queue.empty() {
		k.queued = false
		r.turn--
		r.group = slices.Delete(r.group, r.turn, r.turn+1)
	}
	return k, symbol
}

// sameGroup reports whether two blocks are sent interleaved.
func sameGroup(a, b *txBlock) bool {
	first, end := a.object.order.Group(int64(a.number))
	return a.object == b.object && int64(b.number) >= first && int64(b.number) < end
}

// sendRepair appends the first queued repair, if there is one.
func (s *Sender) sendRepair(now time.Time, b []byte) []byte {
	for k, i := s.nextRepair(); k != nil; k, i = s.nextRepair() {
		flags := uint8(FlagRepair)
		if i < k.sourceLen() {
			flags |= FlagExplicit
		}
		out, err := s.appendSymbol(b, k.object, k.number, i, flags)
		if err != nil {
			s.failObject(k.object, err)
			continue
		}
		k.sentAt = now
		s.flush.restart()
		s.stats.RepairPackets++
		s.stats.RepairBytes += uint64(len(out) - len(b))
		k.object.repairBytes += int64(len(out) - len(b))
		if s.cfg.RepairBytes > 0 && k.object.repairBytes >= s.cfg.RepairBytes {
			s.spend(k.object, true)
		}
		return out
	}
	return b
}

// blockHeap has the block that was transmitted first at its top.
type blockHeap []*txBlock

func (h blockHeap) Len() int { return len(h) }

func (h blockHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return Position{Object: a.object.id, Block: a.number}.Before(Position{Object: b.object.id, Block: b.number})
}

func (h blockHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *blockHeap) Push(x any) { *h = append(*h, x.(*txBlock)) }

func (h *blockHeap) Pop() any {
	old := *h
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return k
}
