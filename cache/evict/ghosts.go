package evict

const (
	ways       = 8       // ghosts per bucket: one cache line
	maxBuckets = 1 << 17 // 1 Mi ghosts, 8 MiB
	ghostGrain = 1 << 12 // unit of ghost.at in bytes: it wraps after 16 TiB
)

// ghost remembers a name by 31 bits of its hash. In the largest table one
// strange name in 2,000 passes for a ghost, which costs a wrong guess and no
// more.
type ghost struct {
	mark uint32 // hash, its lowest bit replaced: set if the ghost left main; 0: no ghost here
	at   uint32 // how many grains had left the same segment, it included
}

func (e ghost) seg() segment { return small + segment(e.mark&1) }

func (e ghost) same(mark uint32) bool { return e.mark|1 == mark|1 }

// ghosts remembers what left a segment until window more bytes have left that
// segment, in eight bytes each; the oldest of a bucket gives way when it is
// full. The table follows the number of ghosts until it is at its bound.
type ghosts struct {
	window  int64
	passed  [main + 1]int64 // bytes that have left each segment since the beginning
	buckets [][ways]ghost
	used    int // ghosts in the table, those out of the window included
}

// markOf leaves the lowest bit clear and is never 0. Owners' hashes may be weak
// in some bits; the upper half of a product is not.
func markOf(name uint64) uint32 { return max(uint32((name*0x9e3779b97f4a7c15)>>32)&^1, 2) }

func (g *ghosts) bucket(mark uint32) *[ways]ghost {
	return &g.buckets[int(mark>>1)&(len(g.buckets)-1)]
}

func (g *ghosts) age(e ghost) uint32 { return uint32(g.passed[e.seg()]/ghostGrain) - e.at }

func (g *ghosts) live(e ghost) bool {
	return e.mark != 0 && int64(g.age(e)) <= g.window/ghostGrain
}

// take forgets name and returns the segment that it left, or none if it is not
// remembered.
func (g *ghosts) take(name uint64) segment {
	if g.used == 0 {
		return none
	}
	mark := markOf(name)
	b := g.bucket(mark)
	for i, e := range b {
		if e.same(mark) {
			b[i] = ghost{}
			g.used--
			if g.live(e) {
				return e.seg()
			}
			return none
		}
	}
	return none
}

// add remembers name, which left segment from (small or main).
func (g *ghosts) add(name uint64, size int64, from segment) {
	if len(g.buckets) < maxBuckets && g.used >= len(g.buckets)*ways*3/4 {
		g.rebuild()
	}
	g.passed[from] += size
	g.insert(ghost{mark: markOf(name) | uint32(from-small), at: uint32(g.passed[from] / ghostGrain)})
}

// insert puts e over itself, into a free place, or over the oldest of its
// bucket.
func (g *ghosts) insert(e ghost) {
	b, to := g.bucket(e.mark), 0
	for i := range b {
		if b[i].same(e.mark) {
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
