package evict

// grain is the unit of Node.stamp, in bytes: stamps can be compared while less
// than 128 TiB pass through a list.
const grain = 1 << 16

// fifo is a queue of nodes, linked through them.
type fifo struct {
	oldest, youngest *Node
	bytes            int64
	len              int
	taken            int64 // bytes pushed since the beginning
}

func (l *fifo) pushYoungest(n *Node) {
	n.stamp = uint32(l.taken / grain)
	n.older, n.younger = l.youngest, nil
	if n.older != nil {
		n.older.younger = n
	} else {
		l.oldest = n
	}
	l.youngest = n
	l.taken += n.size
	l.bytes += n.size
	l.len++
}

func (l *fifo) pushOldest(n *Node) {
	l.taken += n.size // as if it had been there: what the others have ahead grows
	l.bytes += n.size
	l.len++
	n.stamp = uint32((l.taken - l.bytes) / grain)
	n.older, n.younger = nil, l.oldest
	if n.younger != nil {
		n.younger.older = n
	} else {
		l.youngest = n
	}
	l.oldest = n
}

func (l *fifo) remove(n *Node) {
	if n.older != nil {
		n.older.younger = n.younger
	} else {
		l.oldest = n.younger
	}
	if n.younger != nil {
		n.younger.older = n.older
	} else {
		l.youngest = n.older
	}
	n.older, n.younger = nil, nil
	l.bytes -= n.size
	l.len--
}

// resize counts growth as taken in: what grows is young, so nearly every
// other node is older and has no more ahead than before.
func (l *fifo) resize(n *Node, size int64) {
	l.taken += size - n.size
	l.bytes += size - n.size
	n.size = size
}

// ahead estimates the bytes older than n: what the list holds less what it
// took in from n on. Younger nodes that left out of turn make it too small.
func (l *fifo) ahead(n *Node) int64 {
	since := int64(int32(uint32(l.taken/grain)-n.stamp)) * grain
	return min(max(l.bytes-max(since, n.size), 0), l.bytes-n.size)
}
