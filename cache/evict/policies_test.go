package evict

import "container/list"

// policy is a whole cache of some bytes. access asks for an object, takes it
// in on a miss (unless it is larger than the cache) and says whether it was a
// hit. The size of a key never changes.
type policy interface {
	access(key uint32, size int64) bool
}

// policies are those that ours is measured beside, by the names they have in
// the tables.
var policies = []struct {
	name string
	make func(capacity int64) policy
}{
	{ours, newOurs},
	{"LRU", newLRU},
	{"SIEVE", newSIEVE},
	{"S3-FIFO by count", newS3FIFO},
	{"ARC", newARC},
	{"GDSF", newGDSF},
}

const ours = "Queue"

// queuePolicy is the Queue of this package with an owner that makes room
// before it adds.
type queuePolicy struct {
	q        *Queue
	capacity int64
	nodes    map[uint32]*Node
}

func newOurs(capacity int64) policy {
	return &queuePolicy{New(capacity), capacity, map[uint32]*Node{}}
}

func (p *queuePolicy) access(key uint32, size int64) bool {
	if n, ok := p.nodes[key]; ok {
		p.q.Hit(n)
		return true
	}
	if size > p.capacity {
		return false
	}
	for p.q.Bytes()+size > p.capacity {
		n := p.q.Victim(nil)
		p.q.Evict(n)
		delete(p.nodes, uint32(n.Num))
	}
	n := &Node{Num: uint64(key), Ghost: uint64(key)}
	p.nodes[key] = n
	p.q.Add(n, size)
	return false
}

// item is an element of the lists of the policies below.
type item struct {
	key  uint32
	size int64
	freq int
	in   *bytesList
}

// bytesList is a list of *item that knows its bytes; its front is the
// youngest.
type bytesList struct {
	list.List
	bytes int64
}

func (l *bytesList) push(it *item) *list.Element {
	l.bytes += it.size
	it.in = l
	return l.PushFront(it)
}

func (l *bytesList) take(e *list.Element) *item {
	it := l.Remove(e).(*item)
	l.bytes -= it.size
	return it
}

// lru evicts what was not asked for the longest.
type lru struct {
	capacity int64
	all      bytesList
	at       map[uint32]*list.Element
}

func newLRU(capacity int64) policy { return &lru{capacity: capacity, at: map[uint32]*list.Element{}} }

func (p *lru) access(key uint32, size int64) bool {
	if e, ok := p.at[key]; ok {
		p.all.MoveToFront(e)
		return true
	}
	if size > p.capacity {
		return false
	}
	for p.all.bytes+size > p.capacity {
		delete(p.at, p.all.take(p.all.Back()).key)
	}
	p.at[key] = p.all.push(&item{key: key, size: size})
	return false
}

// sieve (Zhang et al., NSDI 2024): a FIFO with a hand that goes from the oldest
// to the youngest, spares what was visited and evicts what was not.
type sieve struct {
	capacity int64
	all      bytesList
	hand     *list.Element
	at       map[uint32]*list.Element
}

func newSIEVE(capacity int64) policy {
	return &sieve{capacity: capacity, at: map[uint32]*list.Element{}}
}

func (p *sieve) access(key uint32, size int64) bool {
	if e, ok := p.at[key]; ok {
		e.Value.(*item).freq = 1
		return true
	}
	if size > p.capacity {
		return false
	}
	for p.all.bytes+size > p.capacity {
		p.evict()
	}
	p.at[key] = p.all.push(&item{key: key, size: size})
	return false
}

func (p *sieve) evict() {
	e := p.hand
	for {
		if e == nil {
			e = p.all.Back()
		}
		it := e.Value.(*item)
		if it.freq == 0 {
			break
		}
		it.freq = 0
		e = e.Prev()
	}
	p.hand = e.Prev()
	delete(p.at, p.all.take(e).key)
}

// s3fifo is S3-FIFO as published, its queues measured in objects: the small
// one has a tenth of them, there are as many ghosts as objects in main.
type s3fifo struct {
	capacity            int64
	small, main, ghosts bytesList
	at                  map[uint32]*list.Element // ghosts included
}

func newS3FIFO(capacity int64) policy {
	return &s3fifo{capacity: capacity, at: map[uint32]*list.Element{}}
}

func (p *s3fifo) access(key uint32, size int64) bool {
	e, known := p.at[key]
	if known && e.Value.(*item).in != &p.ghosts {
		it := e.Value.(*item)
		it.freq = min(it.freq+1, 3)
		return true
	}
	if size > p.capacity {
		return false
	}
	to := &p.small
	if known {
		to = &p.main
		p.ghosts.take(e)
		delete(p.at, key)
	}
	for p.small.bytes+p.main.bytes+size > p.capacity {
		if p.small.Len() > 0 && p.small.Len() >= (p.small.Len()+p.main.Len())/10 {
			p.evictSmall()
		} else {
			p.evictMain()
		}
	}
	p.at[key] = to.push(&item{key: key, size: size})
	return false
}

func (p *s3fifo) evictSmall() {
	it := p.small.take(p.small.Back())
	if it.freq > 1 {
		it.freq = 0
		p.at[it.key] = p.main.push(it)
		return
	}
	p.at[it.key] = p.ghosts.push(it)
	for p.ghosts.Len() > max(p.main.Len(), 1) {
		delete(p.at, p.ghosts.take(p.ghosts.Back()).key)
	}
}

func (p *s3fifo) evictMain() {
	it := p.main.take(p.main.Back())
	if it.freq > 0 {
		it.freq--
		p.at[it.key] = p.main.push(it)
		return
	}
	delete(p.at, it.key)
}
