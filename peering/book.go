package peering

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// book remembers peers whose connection failed or ended, to try them again: the
// client itself tries an address once. The client does not say for which
// torrent it dials, so until a handshake has said it, all torrents that were
// looking for peers then are candidates, and take turns.
type book struct {
	after time.Duration

	// mu guards what follows; nothing else is taken under it.
	mu    sync.Mutex
	peers map[netip.AddrPort]*contact
}

type contact struct {
	failures int
	due      time.Time
	of       []*share // candidates; the first has the next turn
}

const (
	maxContacts = 512
	maxFailures = 6
	shortly     = 2 * time.Second
)

func newBook(after time.Duration) *book {
	return &book{after: after, peers: map[netip.AddrPort]*contact{}}
}

// failed notes that a peer could not be reached. It is tried again later and
// later, and then given up.
func (b *book) failed(addr netip.AddrPort, of []*share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.note(addr, of)
	if c == nil {
		return
	}
	c.failures++
	c.due = time.Now().Add(b.after << min(c.failures-1, maxFailures))
	if c.failures > maxFailures {
		delete(b.peers, addr)
	}
}

// later notes that there was no slot for a peer.
func (b *book) later(addr netip.AddrPort, of []*share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.note(addr, of); c != nil {
		c.due = time.Now().Add(min(b.after, shortly))
	}
}

// left notes that the connection to a peer has ended, whose failures before
// that are forgotten. of is nil if it never said for which torrent it was.
func (b *book) left(addr netip.AddrPort, of *share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var candidates []*share
	if of != nil {
		candidates = []*share{of}
	}
	if c := b.note(addr, candidates); c != nil {
		c.due = time.Now().Add(b.after)
		if of != nil {
			c.failures, c.of = 0, candidates
		}
	}
}

// note finds or makes the entry of a peer; b.mu is held. It returns nil if there
// is no room, or no torrent to have the peer.
func (b *book) note(addr netip.AddrPort, of []*share) *contact {
	c := b.peers[addr]
	if c == nil {
		if len(b.peers) >= maxContacts || len(of) == 0 {
			return nil
		}
		c = &contact{of: of}
		b.peers[addr] = c
	}
	return c
}

// due lists who may be tried again now, and for which torrent. Each is listed
// again after its next failure, or for the next torrent if none comes.
func (b *book) due(now time.Time, wants func(*share) bool) map[netip.AddrPort]*share {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[netip.AddrPort]*share{}
	for addr, c := range b.peers {
		if c.due.After(now) {
			continue
		}
		c.of = slices.DeleteFunc(c.of, func(sh *share) bool { return !wants(sh) })
		if len(c.of) == 0 {
			delete(b.peers, addr)
			continue
		}
		all[addr] = c.of[0]
		c.of = append(c.of[1:], c.of[0])
		c.due = now.Add(2 * b.after)
	}
	return all
}
