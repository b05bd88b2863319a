package evict

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the policy written down plainly: slices, oldest first, and ghosts
// that never take one name for another.
type model struct {
	capacity    int64
	share       float64
	small, main []modelNode
	ghosts      map[uint64]modelGhost
	passed      [3]int64
}

type modelNode struct {
	name uint64
	size int64
	freq int
}

type modelGhost struct {
	from segment
	at   int64
}

func sum(nodes []modelNode) (bytes int64) {
	for _, n := range nodes {
		bytes += n.size
	}
	return bytes
}

func (m *model) add(name uint64, size int64) {
	g, ok := m.ghosts[name]
	delete(m.ghosts, name)
	if !ok || m.passed[g.from]/ghostGrain-g.at > m.capacity/ghostGrain {
		m.small = append(m.small, modelNode{name, size, 0})
		return
	}
	if step := float64(size) / float64(m.capacity); g.from == small {
		m.share = min(m.share+step/2, maxShare)
	} else {
		m.share = max(m.share-step, minShare)
	}
	m.main = append(m.main, modelNode{name, size, 0})
}

func (m *model) hit(name uint64) {
	for _, l := range [][]modelNode{m.small, m.main} {
		for i := range l {
			if l[i].name == name {
				l[i].freq = min(l[i].freq+1, 3)
			}
		}
	}
}

// evict returns the name that leaves.
func (m *model) evict() uint64 {
	for {
		from, l := main, &m.main
		if len(m.small) > 0 && (len(m.main) == 0 || sum(m.small) > int64(m.share*float64(m.capacity))) {
			from, l = small, &m.small
		}
		n := (*l)[0]
		*l = slices.Clone((*l)[1:])
		switch {
		case n.freq == 0:
			m.passed[from] += n.size
			m.ghosts[n.name] = modelGhost{from, m.passed[from] / ghostGrain}
			return n.name
		case from == small:
			n.freq = 0
		default:
			n.freq--
		}
		m.main = append(m.main, n)
	}
}

// TestModel: the Queue does what the model does. Eight names, so that a bucket
// has room for all ghosts.
func TestModel(t *testing.T) {
	const names, capacity = ways, 4 * mib
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 6))
		q, nodes := New(capacity), letters(names)
		m := &model{capacity: capacity, share: firstShare, ghosts: map[uint64]modelGhost{}}
		for step := range 2000 {
			n := &nodes[rng.IntN(names)]
			size := rng.Int64N(mib)
			switch {
			case n.seg != none:
				q.Hit(n)
				m.hit(n.Num)
			default:
				q.Add(n, size)
				m.add(n.Num, size)
			}
			for q.Bytes() > capacity*6/10 {
				v, want := q.Victim(nil), m.evict()
				if v == nil || v.Num != want {
					t.Fatalf("seed %d, step %d: %+v leaves, want %c", seed, step, v, rune(want))
				}
				q.Evict(v)
			}
			if q.small.bytes != sum(m.small) || q.main.bytes != sum(m.main) || q.share != m.share {
				t.Fatalf("seed %d, step %d: small %d, main %d, share %f; want %d, %d, %f", seed, step,
					q.small.bytes, q.main.bytes, q.share, sum(m.small), sum(m.main), m.share)
			}
		}
	}
}
