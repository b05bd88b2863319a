package evict

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

const mib = 1 << 20

// check walks the lists: each node is in exactly one, linked both ways, and
// the sums add up to what the nodes say.
func check(t testing.TB, q *Queue, nodes []Node) {
	t.Helper()
	seen := map[*Node]bool{}
	for _, l := range []*fifo{&q.small, &q.main, &q.aside} {
		var bytes int64
		count := 0
		var older *Node
		for n := l.oldest; n != nil; older, n = n, n.younger {
			if seen[n] || n.older != older || n.seg == none || q.list(n) != l || n.freq > maxFreq || n.size < 0 {
				t.Fatalf("node %d stands wrong: %+v", n.Num, *n)
			}
			seen[n] = true
			bytes += n.size
			count++
			if p := q.Place(n); p.Ahead < 0 || p.Ahead > l.bytes-n.size || p.Queue == "" {
				t.Fatalf("node %d has an impossible place: %+v", n.Num, p)
			}
		}
		if l.youngest != older || bytes != l.bytes || count != l.len {
			t.Fatalf("a list of %d nodes, %d bytes says %d and %d", count, bytes, l.len, l.bytes)
		}
	}
	var bytes int64
	count := 0
	for i := range nodes {
		n := &nodes[i]
		if seen[n] != (n.seg != none) {
			t.Fatalf("node %d: in a list: %v, says %d", n.Num, seen[n], n.seg)
		}
		if n.seg == none && (n.size != 0 || n.freq != 0 || n.aside || n.older != nil || n.younger != nil) {
			t.Fatalf("node %d kept something of the queue: %+v", n.Num, *n)
		}
		if n.seg != none {
			bytes += n.size
			count++
		}
	}
	if bytes != q.Bytes() || count != q.Len() {
		t.Fatalf("%d nodes of %d bytes; Len %d, Bytes %d", count, bytes, q.Len(), q.Bytes())
	}
	if q.share < minShare || q.share > maxShare {
		t.Fatalf("share of %f", q.share)
	}
}

// FuzzQueue runs any operations on a few nodes. Two bytes are one of them.
func FuzzQueue(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		ops := make([]byte, 200)
		for i := range ops {
			ops[i] = byte(rng.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(operate)
}

func operate(t *testing.T, ops []byte) {
	nodes := make([]Node, 16)
	for i := range nodes {
		nodes[i].Num, nodes[i].Ghost = uint64(i), uint64(i/2) // two may share a name
	}
	q, skipped := New(8*mib), uint16(0)
	skip := func(n *Node) bool { return skipped>>n.Num&1 == 1 }
	for ; len(ops) >= 2; ops = ops[2:] {
		n, size := &nodes[ops[0]>>4], int64(ops[1])<<13
		switch ops[0] & 15 {
		case 0, 1, 2, 3:
			q.Add(n, size)
		case 4:
			q.Restore(n, size, State{Main: ops[1]&1 == 1, Freq: ops[1] >> 4})
		case 5, 6, 7:
			q.Hit(n)
		case 8:
			q.Resize(n, size-mib/2)
		case 9:
			q.Remove(n)
		case 10:
			skipped ^= 1 << n.Num
		case 11:
			q.Wake(n)
		case 12:
			q.SetCapacity(int64(ops[1])<<17 - mib)
		case 13:
			coin := uint16(ops[1])
			q.Victim(func(*Node) bool { coin = coin*25173 + 13849; return coin>>8&1 == 1 })
		default:
			victim(t, q, nodes, skip)
		}
		check(t, q, nodes)
	}
}

// victim evicts one and checks that it was one that may go; with so few nodes
// there must be one if any may.
func victim(t *testing.T, q *Queue, nodes []Node, skip func(*Node) bool) {
	t.Helper()
	may := 0
	for i := range nodes {
		if nodes[i].seg != none && !skip(&nodes[i]) {
			may++
		}
	}
	n := q.Victim(skip)
	switch {
	case n == nil && may > 0:
		t.Fatalf("no victim among %d that may go", may)
	case n != nil && (skip(n) || n.seg == none):
		t.Fatalf("victim %+v is skipped or not here", *n)
	case n != nil && q.aside.len == 0 && q.Victim(skip) != n:
		t.Fatal("asked again, Victim changed its mind")
	case n != nil:
		q.Evict(n)
	}
}

// TestOperations is the fuzz target over longer runs than its seeds.
func TestOperations(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		ops := make([]byte, 4000)
		for i := range ops {
			ops[i] = byte(rng.Uint32())
		}
		operate(t, ops)
	}
}

// TestRestart: saved and restored oldest first, a queue goes on where it was.
func TestRestart(t *testing.T) {
	before := filled(200, 100*mib)
	after := New(100 * mib)
	nodes := make([]Node, 0, 200)
	for _, l := range []*fifo{&before.main, &before.small} {
		for n := l.oldest; n != nil; n = n.younger {
			nodes = append(nodes, Node{Num: n.Num, Ghost: n.Ghost})
			after.Restore(&nodes[len(nodes)-1], n.size, n.State())
		}
	}
	check(t, after, nodes)
	if before.main.len == 0 || before.small.len == 0 {
		t.Fatal("one of the queues is empty: nothing is shown")
	}
	for before.Len() > 0 {
		a, b := before.Victim(nil), after.Victim(nil)
		if b == nil || a.Num != b.Num {
			t.Fatalf("left: %d before, %+v after", a.Num, b)
		}
		before.Evict(a)
		after.Evict(b)
	}
	if after.Len() != 0 {
		t.Fatalf("%d are left", after.Len())
	}
}

// filled is a queue of n nodes of about a MiB in mixed states.
func filled(n int, capacity int64) *Queue {
	rng := rand.New(rand.NewPCG(4, 5))
	q := New(capacity)
	for i := range n {
		node := &Node{Num: uint64(i), Ghost: rng.Uint64()}
		q.Restore(node, rng.Int64N(2*mib), State{Main: rng.IntN(4) > 0, Freq: uint8(rng.IntN(4))})
	}
	return q
}

// TestNode: what an object costs in memory.
func TestNode(t *testing.T) {
	if got, most := unsafe.Sizeof(Node{}), uintptr(48); got > most {
		t.Errorf("a node takes %d bytes, want %d at most", got, most)
	}
	q, n := New(mib), &Node{Num: 1, Ghost: 2}
	if allocs := testing.AllocsPerRun(100, func() {
		q.Add(n, 4096)
		q.Hit(n)
		q.Hit(n)
		q.Evict(q.Victim(nil))
	}); allocs > 0 {
		t.Errorf("%f allocations in the life of a node", allocs)
	}
}
