package peering

import (
	"slices"
	"sync"
	"time"

	"github.com/anacrolix/torrent"

	"github.com/cistern-edge/cistern/cache/content"
)

// plan says which pieces HTTP mirrors bring, so that no byte comes twice. Peers
// begin at the front of what is missing, mirrors at its back, and both first
// where readers wait. What a mirror has taken the client asks nobody for.
type plan struct {
	// mu guards what follows. It is never taken with the client's lock held.
	mu      sync.Mutex
	begin   func(*mirror) // runs a mirror; nil while nothing can be brought
	mirrors []*mirror     // in the order in which they are begun
	begun   int           // of them
	working int           // of those
	taken   map[int]bool
	urgent  []run     // where readers wait, the latest last
	idle    time.Time // since when there is nothing that nobody has begun
}

// run is consecutive pieces.
type run struct{ first, end int }

const maxUrgent = 16

// What takePieces found.
type found int

const (
	someFree found = iota
	noneFree
	allDone
)

// When there is nothing else to bring, mirrors bring the rest of pieces that peers
// have begun: of those that lack worthHelp bytes at once, of others when patience
// is over.
const (
	patience  = 8 * time.Second
	worthHelp = 128 << 10
	// nudgeAfter is how long nothing may come before requests are looked at.
	nudgeAfter = 2 * time.Second
)

// takePieces gives a mirror consecutive pieces of about most bytes that it has
// and nobody brings.
func (sh *share) takePieces(m *mirror, most int64) (run, found) {
	pl := &sh.plan
	forward := len(sh.t.PeerConns()) == 0 // nobody begins at the front
	pl.mu.Lock()
	r, state := pl.choose(sh.pieces, m, int(max(1, most/sh.pieces.layout.pieceLength)), forward, func(i int) bool { return sh.t.PieceState(i).Partial })
	for i := r.first; i < r.end; i++ {
		pl.taken[i] = true
	}
	pl.mu.Unlock()
	for i := r.first; i < r.end; i++ {
		sh.t.Piece(i).SetPriority(torrent.PiecePriorityNone)
	}
	return r, state
}

// choose is takePieces; pl.mu is held.
func (pl *plan) choose(p *pieces, m *mirror, most int, forward bool, begun func(int) bool) (run, found) {
	missing := p.missing()
	if len(missing) == 0 {
		return run{}, allDone
	}
	open := func(i int) bool { return !p.isDone(i) && !pl.taken[i] && m.has(i) }
	fresh := func(i int) bool { return open(i) && !begun(i) }
	pl.urgent = slices.DeleteFunc(pl.urgent, func(u run) bool {
		return !slices.ContainsFunc(missing, func(r run) bool { return r.first < u.end && u.first < r.end })
	})
	for _, where := range [][]run{pl.urgent, missing} {
		if r, ok := pick(where, most, forward, fresh); ok {
			pl.idle = time.Time{}
			return r, someFree
		}
	}
	if pl.idle.IsZero() {
		pl.idle = time.Now()
	}
	if r := pl.help(p, missing, open); r.end > 0 {
		return r, someFree
	}
	return run{}, noneFree
}

// help gives the piece of which most is to come still of those that peers have
// begun, so that nobody waits for the slowest; pl.mu is held.
func (pl *plan) help(p *pieces, missing []run, open func(int) bool) (best run) {
	most := int64(worthHelp)
	if time.Since(pl.idle) > patience {
		most = 0
	}
	for _, w := range missing {
		for i := w.first; i < w.end; i++ {
			if !open(i) {
				continue
			}
			if lack := content.Ranges(p.gaps(run{i, i + 1})).Len(); lack > most {
				most, best = lack, run{i, i + 1}
			}
		}
	}
	return best
}

// pick finds consecutive pieces that are free, the last of all or the first.
func pick(where []run, most int, forward bool, free func(int) bool) (run, bool) {
	for n := range where {
		if forward {
			w := where[n]
			for i := w.first; i < w.end; i++ {
				if free(i) {
					end := i + 1
					for end < w.end && end-i < most && free(end) {
						end++
					}
					return run{i, end}, true
				}
			}
			continue
		}
		w := where[len(where)-1-n]
		for i := w.end - 1; i >= w.first; i-- {
			if free(i) {
				first := i
				for first > w.first && i+1-first < most && free(first-1) {
					first--
				}
				return run{first, i + 1}, true
			}
		}
	}
	return run{}, false
}

// nudge has the client look anew at who is asked for what when nothing has come
// for a while: what a peer that stalls was asked for it leaves there for
// stealGrace, and then does not look again by itself.
func (sh *share) nudge(now time.Time) {
	if sh.stateNow() != StateFetching || sh.t.Info() == nil {
		return
	}
	st := sh.t.Stats()
	if got := st.BytesReadUsefulData.Int64(); got != sh.got || sh.since.IsZero() {
		sh.got, sh.since = got, now
	}
	if now.Sub(sh.since) < nudgeAfter {
		return
	}
	sh.plan.mu.Lock()
	defer sh.plan.mu.Unlock()
	for _, r := range sh.pieces.missing() {
		for i := r.first; i < r.end; i++ {
			if sh.plan.taken[i] {
				continue
			}
			p := sh.t.Piece(i)
			if before := p.State().Priority; before != torrent.PiecePriorityNone {
				p.SetPriority(torrent.PiecePriorityNone)
				p.SetPriority(before)
				return
			}
		}
	}
}

// returnPieces gives pieces back; those that did not come are the peers' again.
func (sh *share) returnPieces(r run) {
	pl := &sh.plan
	pl.mu.Lock()
	for i := r.first; i < r.end; i++ {
		delete(pl.taken, i)
	}
	pl.mu.Unlock()
	for i := r.first; i < r.end; i++ {
		if !sh.pieces.isDone(i) {
			sh.t.Piece(i).SetPriority(torrent.PiecePriorityNormal)
		}
	}
}

// hurry makes the function that raises the priority of a range of a file: what
// a reader waits for now, and what it will want next.
func (sh *share) hurry(f *file) func(content.Range) {
	return func(r content.Range) {
		l := sh.pieces.layout
		u := run{int((f.off + r.Off) / l.pieceLength), min(int((f.off+r.End-1)/l.pieceLength)+1, l.pieces)}
		pl := &sh.plan
		pl.mu.Lock()
		pl.urgent = append(pl.urgent, u)
		pl.urgent = pl.urgent[max(0, len(pl.urgent)-maxUrgent):]
		var raised []int
		for i := u.first; i < u.end; i++ {
			if !pl.taken[i] {
				raised = append(raised, i)
			}
		}
		pl.mu.Unlock()
		for _, i := range raised {
			priority := torrent.PiecePriorityReadahead
			if i == u.first {
				priority = torrent.PiecePriorityNow
			}
			sh.t.Piece(i).SetPriority(priority)
		}
	}
}
