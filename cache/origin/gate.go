package origin

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// BusyError says that a request was not sent: too many were under way, and the
// line was too long or did not move.
type BusyError struct {
	// Host is whom the request was for.
	Host string
	// Why names the bound.
	Why string
	// RetryAfter is when to ask again.
	RetryAfter time.Duration
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("too many requests are under way for %s: %s", e.Host, e.Why)
}

// gate bounds how many requests are under way, in all and to one host. Whoever
// finds it shut waits in the line of the host; hosts take turns, so that one that
// is slow and wanted by many holds nobody else up.
type gate struct {
	most, perHost, line int
	patience            time.Duration

	// mu guards what follows.
	mu      sync.Mutex
	open    int
	waiting int
	turned  int64
	hosts   map[string]*queue
	turns   []*queue // those with somebody waiting, in order
}

// queue is what a gate knows of a host.
type queue struct {
	open int
	line []*ticket
}

// ticket is somebody who waits; ready is closed when the place is theirs.
type ticket struct{ ready chan struct{} }

// enter waits for a place, which leave gives back.
func (g *gate) enter(ctx context.Context, host string) error {
	g.mu.Lock()
	q := g.hosts[host]
	if q == nil {
		q = &queue{}
		g.hosts[host] = q
	}
	if len(q.line) == 0 && q.open < g.perHost && g.open < g.most {
		q.open++
		g.open++
		g.mu.Unlock()
		return nil
	}
	if g.waiting >= g.line {
		g.turned++
		g.tidy(host, q)
		g.mu.Unlock()
		return &BusyError{Host: host, Why: fmt.Sprintf("%d wait already", g.line), RetryAfter: g.patience}
	}
	t := &ticket{make(chan struct{})}
	if q.line = append(q.line, t); len(q.line) == 1 {
		g.turns = append(g.turns, q)
	}
	g.waiting++
	g.mu.Unlock()
	late := time.NewTimer(g.patience)
	defer late.Stop()
	var err error
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = &BusyError{Host: host, Why: fmt.Sprintf("waited for %s", g.patience), RetryAfter: g.patience}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t.ready: // at the last moment
		return nil
	default:
	}
	g.turned++
	g.waiting--
	for i, other := range q.line {
		if other == t {
			q.line = append(q.line[:i], q.line[i+1:]...)
			break
		}
	}
	g.tidy(host, q)
	return err
}

// leave gives a place back.
func (g *gate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.hosts[host]
	q.open--
	g.open--
	g.admit()
	g.tidy(host, q)
}

// admit lets those in who may, a host at a time; g.mu is held.
func (g *gate) admit() {
	for passed := 0; passed < len(g.turns) && g.open < g.most; {
		q := g.turns[0]
		g.turns = g.turns[1:]
		switch {
		case len(q.line) == 0:
			continue
		case q.open >= g.perHost:
			passed++
		default:
			passed = 0
			close(q.line[0].ready)
			q.line = q.line[1:]
			q.open++
			g.open++
			g.waiting--
		}
		if len(q.line) > 0 {
			g.turns = append(g.turns, q)
		}
	}
}

// tidy forgets a host that nobody asks; g.mu is held.
func (g *gate) tidy(host string, q *queue) {
	if q.open == 0 && len(q.line) == 0 {
		delete(g.hosts, host)
	}
}

// figures are those for Stats.
func (g *gate) figures() (open, waiting int, turned int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.waiting, g.turned
}

// A place is given back early to whom the origin waits: when nobody has read for
// slack in all, and idly times as long as it took to read. A place is for
// fetching, not for a client that takes an hour.
const (
	slack = 2 * time.Second
	idly  = 9
)

// placed is a body that gives its place back when it has ended or its reader is
// slow. One goroutine reads it.
type placed struct {
	io.ReadCloser
	leave      func() // the gate; once
	end        func() // the request
	busy, idle time.Duration
	since      time.Time   // when the last Read ended
	late       *time.Timer // nil before that
}

func (p *placed) Read(b []byte) (int, error) {
	began := time.Now()
	if p.late != nil {
		p.late.Stop()
		p.idle += began.Sub(p.since)
	}
	n, err := p.ReadCloser.Read(b)
	p.since = time.Now()
	p.busy += p.since.Sub(began)
	if err == io.EOF {
		p.leave()
		p.end()
		return n, err
	}
	wait := max(slack, idly*p.busy) - p.idle
	if p.late == nil {
		p.late = time.AfterFunc(wait, p.leave)
	} else {
		p.late.Reset(wait)
	}
	return n, err
}

func (p *placed) Close() error {
	defer p.end()
	defer p.leave()
	return p.ReadCloser.Close()
}
