// Package announce is what a box says about its multicast sessions and how an
// agent knows that the box said it: the box's [Key], the signed [Notice] of
// what is on air, and the agent's [Board] of notices heard.
//
// It opens no sockets and takes no key from the network: who may sign is given
// by a fingerprint that a person pinned. It refuses notices that are malformed,
// signed by anybody else, of another epoch of the box, or older than one
// already heard. Start reading at [Key.Seal] and [Board.Post].
package announce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// ErrStale says that a notice is from another epoch of the box, or not newer
// than one already heard.
var ErrStale = errors.New("stale notice")

// maxPosted bounds the notices a Board keeps; a box has at most 64 sessions.
const maxPosted = 256

// Board is an agent's memory of what its box has on air. It is safe for
// concurrent use.
type Board struct {
	pin Fingerprint

	// mu guards what follows.
	mu     sync.Mutex
	epoch  uint64
	last   uint64 // highest sequence heard in this epoch
	posted map[content.ID]Notice
	news   chan struct{} // closed and replaced at each posting
}

// NewBoard makes an empty board that believes the box with the pinned key.
func NewBoard(pin Fingerprint) *Board {
	return &Board{pin: pin, posted: map[content.ID]Notice{}, news: make(chan struct{})}
}

// Tune says which epoch the box is in, as it told over the pinned channel.
// Notices of another epoch are forgotten and from then on refused.
func (b *Board) Tune(epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if epoch == b.epoch {
		return
	}
	b.epoch, b.last = epoch, 0
	clear(b.posted)
}

// Post takes the bytes of a notice from the network. The error wraps
// ErrMalformed, ErrForged or ErrStale.
func (b *Board) Post(raw []byte) (Notice, error) {
	n, err := Open(raw, b.pin)
	if err != nil {
		return Notice{}, err
	}
	n.Heard = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case n.Epoch != b.epoch:
		return Notice{}, fmt.Errorf("%w: epoch %x, the box is in %x", ErrStale, n.Epoch, b.epoch)
	case n.Sequence <= b.last:
		return Notice{}, fmt.Errorf("%w: number %d after %d", ErrStale, n.Sequence, b.last)
	}
	b.last = n.Sequence
	b.prune()
	if _, ok := b.posted[n.ID]; ok || len(b.posted) < maxPosted {
		b.posted[n.ID] = n
	}
	close(b.news)
	b.news = make(chan struct{})
	return n, nil
}

// prune forgets what no longer holds; b.mu is held.
func (b *Board) prune() {
	for id, n := range b.posted {
		if !n.holds() {
			delete(b.posted, id)
		}
	}
}

// holds reports whether a notice that was heard still holds.
func (n *Notice) holds() bool { return time.Since(n.Heard) < n.Lifetime }

// Get gives the notice about an object that holds now, ended or not.
func (b *Board) Get(id content.ID) (Notice, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.posted[id]
	if !ok || !n.holds() {
		return Notice{}, false
	}
	return n, true
}

// Wait waits until the object is due or on air. It fails if ctx is done first.
func (b *Board) Wait(ctx context.Context, id content.ID) (Notice, error) {
	for {
		b.mu.Lock()
		news := b.news
		b.mu.Unlock()
		if n, ok := b.Get(id); ok && n.State != Ended {
			return n, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Notice{}, fmt.Errorf("wait for a notice of %s: %w", id, ctx.Err())
		}
	}
}

// List gives the notices that hold now, in the order they were issued.
func (b *Board) List() []Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prune()
	list := make([]Notice, 0, len(b.posted))
	for _, n := range b.posted {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Notice) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return list
}
