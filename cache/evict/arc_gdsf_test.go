package evict

import (
	"container/heap"
	"container/list"
)

// arc (Megiddo and Modha, FAST 2003) with each of its four lists and its target
// p measured in bytes.
type arc struct {
	capacity       int64
	target         int64 // p: bytes that t1 should have
	t1, t2, b1, b2 bytesList
	at             map[uint32]*list.Element
}

func newARC(capacity int64) policy { return &arc{capacity: capacity, at: map[uint32]*list.Element{}} }

func (p *arc) access(key uint32, size int64) bool {
	if size > p.capacity {
		return false
	}
	e, known := p.at[key]
	if !known {
		p.room(size, false)
		p.at[key] = p.t1.push(&item{key: key, size: size})
		p.trim()
		return false
	}
	it := e.Value.(*item)
	from := it.in
	hit := from == &p.t1 || from == &p.t2
	from.take(e)
	switch from {
	case &p.b1:
		p.target = min(p.target+scaled(size, p.b2.bytes, p.b1.bytes+size), p.capacity)
	case &p.b2:
		p.target = max(p.target-scaled(size, p.b1.bytes, p.b2.bytes+size), 0)
	}
	if !hit {
		p.room(size, from == &p.b2)
	}
	p.at[key] = p.t2.push(it)
	p.trim()
	return hit
}

// scaled is the step of the target: size, or more if the other list of ghosts
// is the larger one.
func scaled(size, other, own int64) int64 {
	return int64(float64(size) * max(1, float64(other)/float64(own)))
}

// room is REPLACE until size fits.
func (p *arc) room(size int64, inB2 bool) {
	for p.t1.bytes+p.t2.bytes+size > p.capacity {
		over := p.t1.bytes > p.target || inB2 && p.t1.bytes == p.target
		if p.t1.Len() > 0 && (over || p.t2.Len() == 0) {
			it := p.t1.take(p.t1.Back())
			p.at[it.key] = p.b1.push(it)
		} else {
			it := p.t2.take(p.t2.Back())
			p.at[it.key] = p.b2.push(it)
		}
	}
}

// trim keeps t1 with b1 within the capacity, and all lists within twice of it.
func (p *arc) trim() {
	for p.b1.Len() > 0 && p.t1.bytes+p.b1.bytes > p.capacity {
		delete(p.at, p.b1.take(p.b1.Back()).key)
	}
	for p.b2.Len() > 0 && p.t1.bytes+p.t2.bytes+p.b1.bytes+p.b2.bytes > 2*p.capacity {
		delete(p.at, p.b2.take(p.b2.Back()).key)
	}
}

// gdsf (Cherkasova, 1998): evicts the lowest of clock + hits/size; the clock is
// the priority of what left last.
type gdsf struct {
	capacity, bytes int64
	clock           float64
	heap            gdsfHeap
	at              map[uint32]*gdsfItem
}

type gdsfItem struct {
	key      uint32
	size     int64
	freq     float64
	priority float64
	index    int
}

type gdsfHeap []*gdsfItem

func (h gdsfHeap) Len() int           { return len(h) }
func (h gdsfHeap) Less(i, j int) bool { return h[i].priority < h[j].priority }
func (h gdsfHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *gdsfHeap) Push(x any) {
	it := x.(*gdsfItem)
	it.index = len(*h)
	*h = append(*h, it)
}

func (h *gdsfHeap) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	*h = (*h)[:last]
	return it
}

func newGDSF(capacity int64) policy {
	return &gdsf{capacity: capacity, at: map[uint32]*gdsfItem{}}
}

func (p *gdsf) value(it *gdsfItem) float64 { return p.clock + it.freq/float64(max(it.size, 1)) }

func (p *gdsf) access(key uint32, size int64) bool {
	if it, ok := p.at[key]; ok {
		it.freq++
		it.priority = p.value(it)
		heap.Fix(&p.heap, it.index)
		return true
	}
	if size > p.capacity {
		return false
	}
	for p.bytes+size > p.capacity {
		out := heap.Pop(&p.heap).(*gdsfItem)
		p.clock = out.priority
		p.bytes -= out.size
		delete(p.at, out.key)
	}
	it := &gdsfItem{key: key, size: size, freq: 1}
	it.priority = p.value(it)
	heap.Push(&p.heap, it)
	p.at[key] = it
	p.bytes += size
	return false
}
