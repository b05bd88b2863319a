package evict

// Victim returns the node to be evicted next, or nil if there is none. It
// does not take it out: that is Evict's. On the way it moves nodes of the
// small queue that were hit to the main one, and gives nodes of the main
// queue another round for each hit.
//
// A node for which skip is true (pinned, being filled, on another volume) is
// never returned. It is set aside, keeps its queue and its hits, and is not
// asked about at each call: a call asks about 16 of those set aside, oldest
// first and in turns, until one may go, and when nothing else is left about
// 1,024 more. So the cost of a call is bounded by these, amortised over Add,
// Hit and Wake, however many are skipped. The price: with more than a thousand
// set aside, one that may go again is found late unless Wake tells of it, and
// nil can mean "none found yet"; calling again goes on with the search. An
// owner that wants victims of a few among very many (one service's quota) is
// better served by a Queue for those.
//
// skip may be nil and must not change the Queue.
func (q *Queue) Victim(skip func(*Node) bool) *Node {
	if skip == nil {
		skip = func(*Node) bool { return false }
	}
	q.recall(skip, asideLooks)
	starved := starvedLooks
	for {
		n := q.oldest()
		switch {
		case n == nil:
			looked, found := q.recall(skip, starved)
			if !found {
				return nil
			}
			starved -= looked
		case skip(n):
			q.setAside(n)
		case n.seg == small && n.freq >= promoteAt:
			q.small.remove(n)
			n.seg, n.freq = main, 0
			q.main.pushYoungest(n)
		case n.seg == main && n.freq > 0:
			q.main.remove(n)
			n.freq--
			q.main.pushYoungest(n)
		default:
			return n
		}
	}
}

// Wake says that skip may now answer otherwise for n (it was unpinned, its
// fill ended): the next Victim looks at it again in its turn.
func (q *Queue) Wake(n *Node) {
	if !n.aside {
		return
	}
	q.aside.remove(n)
	n.aside = false
	q.list(n).pushOldest(n)
}

// oldest returns the node whose turn it is. What is set aside counts neither
// for the small queue nor for the capacity that it has its share of, else
// pinned objects would leave no room in it for new ones.
func (q *Queue) oldest() *Node {
	limit := int64(q.share * float64(max(q.capacity-q.aside.bytes, 0)))
	if q.small.oldest != nil && (q.small.bytes > limit || q.main.oldest == nil) {
		return q.small.oldest
	}
	return q.main.oldest
}

func (q *Queue) setAside(n *Node) {
	q.list(n).remove(n)
	n.aside = true
	q.aside.pushYoungest(n)
}

// recall asks about up to looks nodes set aside, each once, and wakes the first
// that skip no longer holds.
func (q *Queue) recall(skip func(*Node) bool, looks int) (looked int, found bool) {
	looks = min(looks, q.aside.len)
	for looked < looks {
		n := q.aside.oldest
		looked++
		if !skip(n) {
			q.Wake(n)
			return looked, true
		}
		q.aside.remove(n)
		q.aside.pushYoungest(n)
	}
	return looked, false
}

// Place says where a node stands, for those who ask why it would leave.
type Place struct {
	Queue string // "small", "main", or "" if it is in none
	Freq  uint8  // hits since it was last looked at, 0 to 3
	// Skipped: its turn came, and it was pinned or busy.
	Skipped bool
	// Ahead estimates the bytes of its queue that have their turn before it,
	// whether they leave then or move on. It is exact to 64 KiB but for
	// objects that grew or were removed out of turn since.
	Ahead int64
}

// Place returns where n stands, in constant time.
func (q *Queue) Place(n *Node) Place {
	p := Place{Freq: n.freq, Skipped: n.aside}
	switch n.seg {
	case small:
		p.Queue = "small"
	case main:
		p.Queue = "main"
	default:
		return p
	}
	if !n.aside {
		p.Ahead = q.list(n).ahead(n)
	}
	return p
}
