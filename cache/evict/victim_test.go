package evict

import (
	"fmt"
	"testing"
)

// letters are nodes named a, b, c, …
func letters(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i].Num, nodes[i].Ghost = uint64('a'+i), uint64('a'+i)
	}
	return nodes
}

// TestVictim follows objects of 1 MiB through a cache of 20, so with room for
// two in the small queue.
func TestVictim(t *testing.T) {
	q, n := New(20*mib), letters(26)
	next := func(want string) {
		t.Helper()
		var got string
		for range want {
			v := q.Victim(nil)
			got += string(rune(v.Num))
			q.Evict(v)
		}
		if got != want {
			t.Fatalf("left: %s, want %s", got, want)
		}
	}
	for i := range 6 {
		q.Add(&n[i], mib)
	}
	q.Hit(&n[1])
	next("acd") // b was hit and moved on; e and f are all that small may have
	if n[1].State() != (State{Main: true}) {
		t.Fatalf("b: %+v", n[1].State())
	}
	q.Add(&n[0], mib) // remembered
	if p := q.Place(&n[0]); p.Queue != "main" || p.Ahead > mib {
		t.Fatalf("a came back to %+v", p)
	}
	q.Hit(&n[1])
	next("ab") // small has no more than its share; b went round for its hit
	if q.Place(&n[1]) != (Place{}) {
		t.Fatalf("b is gone and stands at %+v", q.Place(&n[1]))
	}
	q.Remove(&n[4])
	q.Add(&n[4], mib)
	if p := q.Place(&n[4]); p.Queue != "small" {
		t.Fatalf("e was removed, not evicted, and came back to %+v", p)
	}
}

// TestShare: the small queue grows when what left it comes back, and shrinks
// when what left main does.
func TestShare(t *testing.T) {
	q, n := New(100*mib), letters(1)
	turn := func(main bool) float64 {
		q.Restore(&n[0], mib, State{Main: main})
		q.Evict(&n[0])
		q.Add(&n[0], mib)
		q.Remove(&n[0])
		return q.share
	}
	if got := turn(false); got <= firstShare {
		t.Errorf("a return to small: %f", got)
	}
	if turn(true); turn(true) >= firstShare {
		t.Errorf("a return to main: %f", q.share)
	}
	for range 1000 {
		turn(true)
	}
	if q.share != minShare {
		t.Errorf("it shrank to %f", q.share)
	}
}

// TestPinned: what is pinned in the small queue leaves new objects their room
// in it, and keeps its place when it is let go.
func TestPinned(t *testing.T) {
	q := New(1000 * mib)
	pinned, kept, fresh := letters(50), letters(40), letters(5)
	skip := func(n *Node) bool { return n.Ghost == 1 }
	for i := range pinned {
		pinned[i].Ghost = 1
		q.Add(&pinned[i], 10*mib)
	}
	for i := range kept {
		kept[i].Ghost += 1000
		q.Restore(&kept[i], 10*mib, State{Main: true})
	}
	for i := range fresh {
		fresh[i].Ghost += 2000
		q.Add(&fresh[i], 10*mib)
	}
	for range 30 {
		v := q.Victim(skip)
		if v.Ghost >= 2000 || v.Ghost == 1 {
			t.Fatalf("a new object left first: %+v", *v)
		}
		q.Evict(v)
	}
	p := q.Place(&pinned[0])
	if !p.Skipped || p.Queue != "small" {
		t.Fatalf("pinned: %+v", p)
	}
	pinned[0].Ghost = 2
	q.Wake(&pinned[0])
	if p := q.Place(&pinned[0]); p.Skipped || p.Ahead != 0 {
		t.Fatalf("let go: %+v", p)
	}
}

// TestManySkipped counts what Victim asks when nearly everything is pinned.
func TestManySkipped(t *testing.T) {
	const many = 200_000
	q, nodes := New(many*4096), make([]Node, many)
	free, asked := map[uint64]bool{many / 2: true}, 0
	skip := func(n *Node) bool { asked++; return !free[n.Num] }
	for i := range nodes {
		nodes[i].Num, nodes[i].Ghost = uint64(i), uint64(i)
		q.Add(&nodes[i], 4096)
	}
	if v := q.Victim(skip); v != &nodes[many/2] {
		t.Fatalf("the only one that may go was not found: %+v", v)
	}
	within := func(what string, most int, want *Node) {
		t.Helper()
		asked = 0
		if v := q.Victim(skip); v != want {
			t.Fatalf("%s: %+v", what, v)
		}
		if asked > most {
			t.Errorf("%s: asked about %d nodes, want %d at most", what, asked, most)
		}
	}
	for range 100 {
		within("the same again", asideLooks+1, &nodes[many/2])
	}
	q.Evict(&nodes[many/2])
	within("the rest, looked at once", many, nil)
	for range 100 {
		within("none", asideLooks+starvedLooks, nil)
	}
	free[7] = true
	q.Wake(&nodes[7])
	within("woken", asideLooks+1, &nodes[7])
	q.Evict(&nodes[7])

	free[99] = true // and nobody tells
	calls := 1
	for q.Victim(skip) == nil {
		calls++
	}
	if most := many/(asideLooks+starvedLooks) + 1; calls > most {
		t.Errorf("found after %d calls, want %d at most", calls, most)
	}
	check(t, q, nodes)
}

// TestVolumes: victims of one volume and of the other in turns, as both are
// short of room, leave in the order of their age, at a few looks each.
func TestVolumes(t *testing.T) {
	const many = 10_000
	q, nodes, asked := New(many*4096), make([]Node, many), 0
	for i := range nodes {
		nodes[i].Num, nodes[i].Ghost = uint64(i), uint64(i)
		q.Restore(&nodes[i], 4096, State{Main: true})
	}
	for i := range many {
		v := q.Victim(func(n *Node) bool { asked++; return n.Num%2 != uint64(i%2) })
		if v == nil || v.Num != uint64(i) {
			t.Fatalf("turn %d: %+v", i, v)
		}
		q.Evict(v)
	}
	if asked > 4*many {
		t.Errorf("asked %d times for %d victims", asked, many)
	}
}

// TestPlace: what stands ahead adds up to what left, to 64 KiB.
func TestPlace(t *testing.T) {
	q, nodes := New(1000*mib), make([]Node, 300)
	for i := range nodes {
		nodes[i].Num, nodes[i].Ghost = uint64(i), uint64(i)
		q.Restore(&nodes[i], int64(i)*10_000, State{Main: true})
	}
	last, left := &nodes[299], int64(0)
	for i := 295; i < 299; i++ {
		q.Resize(&nodes[i], 0) // fills that broke off
	}
	q.Resize(last, 5*mib)
	want := q.Bytes() - 5*mib
	for q.Len() > 1 {
		if got := q.Place(last).Ahead; got > want-left || got < want-left-grain {
			t.Fatalf("%d bytes ahead, want %d", got, want-left)
		}
		v := q.Victim(nil)
		left += v.size
		q.Evict(v)
	}
}

// TestGhosts: names are remembered while as many bytes as the capacity leave,
// and the table stays small.
func TestGhosts(t *testing.T) {
	g := ghosts{window: 1000 * mib}
	for i := range uint64(3000) {
		g.add(i, mib, small)
	}
	if g.take(1500) != none {
		t.Error("a name outlived its window")
	}
	missing := 0
	for i := range uint64(990) {
		if g.take(2010+i) != small {
			missing++
		}
	}
	if missing > 10 {
		t.Errorf("%d of 990 names were forgotten too early", missing)
	}
	if g.take(2999) != none {
		t.Error("a name was taken twice")
	}
	g.add(5, mib, main)
	if from := g.take(5); from != main {
		t.Errorf("left main, remembered as of %d", from)
	}
}

// TestGhostsBound: the table is bounded in number where objects are tiny, and
// gives memory back to large ones.
func TestGhostsBound(t *testing.T) {
	g := ghosts{window: 1 << 40}
	for i := range uint64(maxBuckets * ways * 5 / 4) {
		g.add(i, 1, small)
	}
	if len(g.buckets) > maxBuckets || g.used > maxBuckets*ways {
		t.Errorf("%d buckets, %d ghosts", len(g.buckets), g.used)
	}
	g = ghosts{window: 100 * mib}
	for i := range uint64(100_000) {
		g.add(i, mib, small)
	}
	if len(g.buckets) > 64 {
		t.Errorf("%d buckets for 100 ghosts", len(g.buckets))
	}
	falsely := 0
	for i := range uint64(10_000) {
		if g.take(1e6+i) != none {
			falsely++
		}
	}
	if falsely > 2 {
		t.Errorf("%d of 10,000 strange names were taken for ghosts", falsely)
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, many := range []int{1_000, 1_000_000} {
		nodes := make([]Node, many)
		q := New(int64(many) * 4096)
		for i := range nodes {
			nodes[i].Num, nodes[i].Ghost = uint64(i), uint64(i)
			q.Add(&nodes[i], 4096)
		}
		b.Run(fmt.Sprintf("hit/%d", many), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				q.Hit(&nodes[i*7919%many])
			}
		})
		b.Run(fmt.Sprintf("victim+evict+add/%d", many), func(b *testing.B) {
			for i := uint64(many); b.Loop(); i++ {
				n := q.Victim(nil)
				q.Evict(n)
				n.Num, n.Ghost = i, i
				q.Add(n, 4096)
			}
		})
		b.Run(fmt.Sprintf("victim, all but one skipped/%d", many), func(b *testing.B) {
			skip := func(n *Node) bool { return n != &nodes[many/2] }
			q.Victim(skip)
			for b.Loop() {
				q.Victim(skip)
			}
		})
	}
}
