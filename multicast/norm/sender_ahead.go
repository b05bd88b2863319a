package norm

import "time"

// anticipation is the parity that goes out with the first pass because earlier
// blocks needed it. It follows the least need of the last few blocks: what
// nobody would have asked for is a loss on the wire, what somebody asks for all
// the same costs a request.
type anticipation struct {
	parity  int            // goes out with the group in the pass
	waiting []blockOnTrial // requests for them may still come, oldest first
	needs   [8]int         // of the last blocks, in turn
	learned int            // blocks so far
	quiet   int            // blocks on end that nobody asked more for
}

// blockOnTrial is a block whose first pass is over.
type blockOnTrial struct {
	block *txBlock
	ahead int // parity sent with the first pass
	at    time.Time
}

// passed notes that the first pass over a block is over; there may be no state
// of it.
func (a *anticipation) passed(now time.Time, k *txBlock, ahead int) {
	if k != nil {
		a.waiting = append(a.waiting, blockOnTrial{k, ahead, now})
	}
}

// settle gives the parity for the next group, least to most, from the blocks
// whose first pass ended before a time.
func (a *anticipation) settle(before time.Time, least, most int) int {
	n := 0
	for n < len(a.waiting) && a.waiting[n].at.Before(before) {
		a.learn(a.waiting[n])
		n++
	}
	a.waiting = append(a.waiting[:0], a.waiting[n:]...)
	if a.learned < len(a.needs)/2 {
		return least
	}
	need := most
	for _, n := range a.needs[:min(a.learned, len(a.needs))] {
		need = min(need, n)
	}
	return max(need, least)
}

// learn takes what a block needed. If nobody asked for more than was sent
// ahead, less may have done: the next groups try with less.
func (a *anticipation) learn(b blockOnTrial) {
	need := b.block.fresh
	if a.quiet++; need > b.ahead {
		a.quiet = 0
	}
	a.needs[a.learned%len(a.needs)] = max(need-a.quiet, 0)
	a.learned++
}

// requestTime is how long after the first pass over a block the first requests
// for it have been collected.
func (s *Sender) requestTime() time.Duration { return time.Duration(2*s.cfg.Backoff+2) * s.grtt() }
