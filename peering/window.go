package peering

import (
	"sync"
	"sync/atomic"

	"github.com/anacrolix/torrent"
)

// A peer is asked for the next blocks when all that it was asked for have come, so
// the more at a time the less it waits for the way there and back; but each time
// the client weighs four times as many blocks against each other. All peers
// together are asked for maxAsked blocks of 16 KiB, each for minAsked at least: that
// is a second of 1 MB/s.
const (
	maxAsked = 2000
	minAsked = 64
	// usualRequests is how many requests a peer takes that does not say (BEP 10).
	usualRequests = 250
)

// window says how many requests each peer has at a time. The client's own lock
// guards what it changes there.
type window struct {
	each atomic.Int64 // 0: as many as the peer takes

	mu   sync.Mutex
	most map[*torrent.Peer]int // what peers say that they take
}

// divide shares the requests between so many peers.
func (w *window) divide(peers int) {
	w.each.Store(int64(max(minAsked, maxAsked/max(1, peers))))
}

// heard notes how many requests a peer says it takes, if it does.
func (w *window) heard(p *torrent.Peer, most int) {
	if most <= 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most[p] = most
}

func (w *window) forget(p *torrent.Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.most, p)
}

// of is how many requests a peer may have.
func (w *window) of(p *torrent.Peer) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	most, said := w.most[p]
	if !said {
		most = usualRequests
	}
	if each := int(w.each.Load()); each > 0 {
		most = min(most, each)
	}
	return most
}
