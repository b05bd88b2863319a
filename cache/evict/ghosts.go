package evict

const (
	ways       = 8       // ghosts per bucket: one cache line
	maxBuckets = 1 << 17 // 1 Mi ghosts, 8 MiB
	ghostGrain = 1 << 12 // unit of ghost.at in bytes: it wraps after 16 TiB
)

// ghost remembers a name by 32 bits of its hash. Two names in 4,000 pass for
// one another in the largest table, which costs a wrong guess and no more.
type ghost struct {
	mark uint32 // 0: no ghost here
	at   uint32 // how many grains had been evicted with it
}

// ghosts remembers what left the small queue until window more bytes have
// left it, in eight bytes each; the oldest of a bucket gives way when it is
// full. The table follows the number of ghosts until it is at its bound.
type ghosts struct {
	window  int64
	passed  int64 // bytes evicted from the small queue since the beginning
	buckets [][ways]ghost
	used    int // ghosts in the table, those out of the window included
}

func (g *ghosts) mark(name uint64) uint32 {
	// Owners' hashes may be weak in some bits; a product's upper half is not.
	return max(uint32((name*0x9e3779b97f4a7c15)>>32), 1)
}

func (g *ghosts) bucket(mark uint32) *[ways]ghost {
	return &g.buckets[int(mark)&(len(g.buckets)-1)]
}

func (g *ghosts) age(e ghost) uint32 { return uint32(g.passed/ghostGrain) - e.at }

func (g *ghosts) live(e ghost) bool {
	return e.mark != 0 && int64(g.age(e)) <= g.window/ghostGrain
}

// take says whether name is remembered, and forgets it.
func (g *ghosts) take(name uint64) bool {
	if g.used == 0 {
		return false
	}
	mark := g.mark(name)
	b := g.bucket(mark)
	for i := range b {
		if b[i].mark == mark {
			was := g.live(b[i])
			b[i] = ghost{}
			g.used--
			return was
		}
	}
	return false
}

func (g *ghosts) add(name uint64, size int64) {
	if len(g.buckets) < maxBuckets && g.used >= len(g.buckets)*ways*3/4 {
		g.rebuild()
	}
	g.passed += size
	g.insert(ghost{mark: g.mark(name), at: uint32(g.passed / ghostGrain)})
}

// insert puts e over itself, into a free place, or over the oldest of its
// bucket.
func (g *ghosts) insert(e ghost) {
	b, to := g.bucket(e.mark), 0
	for i := range b {
		if b[i].mark == e.mark {
			b[i] = e
			return
		}
		if b[to].mark != 0 && (b[i].mark == 0 || g.age(b[i]) > g.age(b[to])) {
			to = i
		}
	}
	if b[to].mark == 0 {
		g.used++
	}
	b[to] = e
}

// rebuild drops what is out of the window and sizes the table to be half full
// at most, within its bound: so a quarter of it is added until the next time.
func (g *ghosts) rebuild() {
	live := 0
	for i := range g.buckets {
		for _, e := range g.buckets[i] {
			if g.live(e) {
				live++
			}
		}
	}
	size := 1
	for size < maxBuckets && size*ways < 2*(live+1) {
		size *= 2
	}
	old := g.buckets
	g.buckets, g.used = make([][ways]ghost, size), 0
	for i := range old {
		for _, e := range old[i] {
			if g.live(e) {
				g.insert(e)
			}
		}
	}
}
