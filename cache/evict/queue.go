// Package evict decides what leaves a full cache next.
//
// A Queue is S3-FIFO (Yang et al., "FIFO Queues are All You Need for Cache
// Eviction", SOSP 2023) weighed by bytes: new objects pass through a small
// queue, those asked for again move to the main one, and what left is
// remembered for a while as a ghost, so that its return goes to main at once.
// The small queue's share of the capacity learns from those returns, as ARC's
// does (Megiddo and Modha, FAST 2003): release days want more of it, scans
// less. The aim is few missed bytes, not few missed objects.
//
// The package holds no objects, does no I/O, knows no clock and never evicts
// by itself: the owner asks for a Victim while it wants room. Nothing here is
// safe for concurrent use; the owner's lock guards it.
//
// Start reading at Queue.Victim.
package evict

const (
	// maxFreq is where the hit counter of a node saturates.
	maxFreq = 3
	// promoteAt is the number of hits in the small queue that earn a place
	// in the main one.
	promoteAt = 1
	// firstShare, minShare and maxShare are the small queue's part of the
	// capacity at first and its bounds.
	firstShare, minShare, maxShare = 0.10, 0.01, 0.50
	// asideLooks and starvedLooks bound how many skipped nodes one call of
	// Victim asks about again: always, and when nothing else is left.
	asideLooks   = 16
	starvedLooks = 1024
)

// Node is an object's place in a Queue; the owner embeds it, so a Queue
// allocates nothing per object (48 bytes on 64-bit machines). The zero Node
// is in no queue. It must not be copied while it is in one.
type Node struct {
	Num   uint64 // the owner's number of the object; not used here
	Ghost uint64 // hash of the name it is asked for by; set before Add

	size           int64
	older, younger *Node
	stamp          uint32 // how much its list had taken in before it, in grains
	freq           uint8
	seg            segment
	aside          bool
}

// segment says which queue a node belongs to, set aside or not.
type segment uint8

const (
	none segment = iota
	small
	main
)

// State is what to save of a Node so that Restore brings it back after a
// restart.
type State struct {
	Main bool  // it had left the small queue
	Freq uint8 // hits since it was last looked at, 0 to 3
}

// State returns what Restore needs. Of a node in no queue it is zero.
func (n *Node) State() State { return State{Main: n.seg == main, Freq: n.freq} }

// Queue orders nodes for eviction; New makes one.
type Queue struct {
	capacity    int64
	share       float64 // of the capacity; above it the small queue gives way first
	small, main fifo
	aside       fifo // skipped when their turn came; in neither list above
	ghosts      ghosts
}

// New returns an empty Queue for a cache of capacity bytes. Nothing is
// refused or evicted beyond it: it sizes the small queue and the ghosts.
func New(capacity int64) *Queue {
	q := &Queue{share: firstShare}
	q.SetCapacity(capacity)
	return q
}

// SetCapacity takes a new capacity in bytes; below 0 counts as 0.
func (q *Queue) SetCapacity(bytes int64) {
	q.capacity = max(bytes, 0)
	q.ghosts.window = q.capacity
}

// Bytes returns the size of all nodes together, Len their number.
func (q *Queue) Bytes() int64 { return q.small.bytes + q.main.bytes + q.aside.bytes }

// Len returns the number of nodes.
func (q *Queue) Len() int { return q.small.len + q.main.len + q.aside.len }

// Add takes a new node of size bytes (what is expected, if it is known): into
// the main queue if its Ghost is remembered, else into the small one. A node
// that is here already is only resized.
func (q *Queue) Add(n *Node, size int64) {
	st := State{}
	if n.seg == none {
		from := q.ghosts.take(n.Ghost)
		q.learn(from, size)
		st.Main = from != none
	}
	q.Restore(n, size, st)
}

// learn moves the share of the small queue when size bytes come back that had
// left from: a larger small queue would have kept what left it, a smaller one
// what left main. Growth is slower by half, for the first return of an object
// says less than that of one known to be wanted.
func (q *Queue) learn(from segment, size int64) {
	step := float64(max(size, 0)) / float64(max(q.capacity, 1))
	switch from {
	case small:
		q.share = min(q.share+step/2, maxShare)
	case main:
		q.share = max(q.share-step, minShare)
	}
}

// Restore takes a node as it was saved. Called oldest first at load, it
// brings back the order too. A node that is here already is only resized.
func (q *Queue) Restore(n *Node, size int64, st State) {
	if n.seg != none {
		q.Resize(n, size)
		return
	}
	n.size, n.freq, n.seg = max(size, 0), min(st.Freq, maxFreq), small
	if st.Main {
		n.seg = main
	}
	q.list(n).pushYoungest(n)
}

// Hit counts a request that the object answered: once per request, not per
// range or per reader, and not for the request that began its fill. It
// touches nothing but the node.
func (q *Queue) Hit(n *Node) {
	if n.seg != none && n.freq < maxFreq {
		n.freq++
	}
}

// Resize takes the new size of a node, as its fill goes on; its turn stays.
func (q *Queue) Resize(n *Node, size int64) {
	if n.seg != none {
		q.list(n).resize(n, max(size, 0))
	}
}

// Remove takes out a node that is gone for another reason than eviction (a
// purge, a merge, a fault of its volume). It leaves no ghost.
func (q *Queue) Remove(n *Node) {
	if n.seg != none {
		q.list(n).remove(n)
		n.size, n.freq, n.seg, n.aside = 0, 0, none, false
	}
}

// Evict takes out a node, usually the last Victim, and remembers its ghost.
func (q *Queue) Evict(n *Node) {
	if n.seg != none {
		q.ghosts.add(n.Ghost, n.size, n.seg)
		q.Remove(n)
	}
}

// list returns the list that a node of this Queue is linked into.
func (q *Queue) list(n *Node) *fifo {
	switch {
	case n.aside:
		return &q.aside
	case n.seg == main:
		return &q.main
	}
	return &q.small
}
