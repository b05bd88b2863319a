package origin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

const (
	// step is how much a stream claims at a time, in bytes, and how near a
	// stream must be to where readers wait for them to wait for it.
	step = 4 << 20
	// reach is how much of what it asks for a stream claims at the start.
	reach = 16 << 20
	// maxStreams is how many answers one object is read from at once.
	maxStreams = 4
	// maxFailures is how often in a row, without a byte between, a source is
	// asked again.
	maxFailures = 6
)

// source brings the body of one URL: from an answer that is open already, and
// by ranges where it is cut or where readers wait.
type source struct {
	name string
	// live is the answer that is open already; nil for none. The first Fill takes
	// it.
	live *part
	// size of the object, or content.UnknownSize.
	size int64
	// idle bounds the wait for the next byte.
	idle time.Duration
	// fetch asks for a range; nil if the body cannot be had in parts.
	fetch func(ctx context.Context, r content.Range) (*part, error)
	// seeks says that the server is known to take ranges.
	seeks bool
	// workers is how many streams run as long as anything is missing.
	workers int
	// bounded asks for one step at a time, for servers near by: then nothing
	// comes twice when streams meet.
	bounded bool
	// resumed is told that a body that was cut goes on.
	resumed func()
}

// Name implements content.Source.
func (s *source) Name() string { return s.name }

// run is one Fill of a source.
type run struct {
	*source
	ctx  context.Context
	sink content.Sink

	tasks sync.WaitGroup
	ended chan result

	// mu makes looking for a place and claiming it one act. It guards what
	// follows, and the position and claim of every stream.
	mu      sync.Mutex
	streams map[*stream]struct{}

	// Only Fill's own goroutine touches what follows.
	fetch    func(ctx context.Context, r content.Range) (*part, error)
	seeks    bool
	running  int // streams whose end has not been judged
	failures int
	last     error // why bytes could not be had
	cut      bool  // the next stream goes on where one was cut
}

// result is how a stream ended.
type result struct {
	got int64
	err error
}

// Fill implements content.Source.
func (s *source) Fill(ctx context.Context, sink content.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{
		source: s, ctx: ctx, sink: sink, streams: map[*stream]struct{}{}, fetch: s.fetch, seeks: s.seeks,
		ended: make(chan result, maxStreams),
	}
	defer r.tasks.Wait()
	defer cancel()
	live := s.live
	s.live = nil
	if live != nil {
		defer live.body.Close()
	}
	if s.size >= 0 && sink.Size() < 0 {
		if err := sink.SetSize(s.size); err != nil {
			return err
		}
	}
	if live != nil {
		claim, _ := sink.Claim(live.rng.Off, min(step, live.rng.Len())) // before anybody else asks for it
		if claim.Off = live.rng.Off; claim.Len() == 0 {
			claim.End = claim.Off
		}
		r.start(&stream{part: live, pos: claim.Off, claim: claim})
	}
	return r.work()
}

// work keeps streams running until nothing is missing.
func (r *run) work() error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	ready, wanted := false, (<-chan struct{})(nil) // both wait for the pause to end
	for {
		if ready {
			if done, err := r.more(); done {
				return err
			}
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-pause.C:
			ready, wanted = true, r.sink.Wanted()
		case <-wanted:
			r.seek()
		case e := <-r.ended:
			if err := r.judge(e); err != nil {
				return err
			}
			if r.failures > 0 {
				ready, wanted = false, nil
				pause.Reset(min(50*time.Millisecond<<r.failures, 5*time.Second))
			}
		}
	}
}

// judge takes note of how a stream ended; an error ends the whole Fill.
func (r *run) judge(e result) error {
	r.running--
	if e.got >= 64<<10 {
		r.failures = 0
	}
	var again *cutError
	switch {
	case e.err == nil:
	case errors.Is(e.err, errNoRanges):
		r.fetch, r.seeks, r.last = nil, false, e.err
	case errors.As(e.err, &again):
		r.failures++
		r.last, r.cut = e.err, true
		if r.failures > maxFailures {
			return fmt.Errorf("gave up after %d failures: %w", r.failures, e.err)
		}
	default:
		return e.err
	}
	return nil
}

// more starts streams where bytes are missing, if too few run. It reports
// whether the Fill has ended, and how.
func (r *run) more() (done bool, err error) {
	for {
		running := r.running
		switch {
		case running > 0 && (running >= r.workers || r.fetch == nil || r.failures > 0):
			return false, nil
		case len(r.sink.Missing()) == 0:
			return running == 0, nil
		case r.fetch == nil:
			return true, r.why()
		}
		if !r.startAnywhere() {
			if running > 0 {
				return false, nil
			}
			return true, fmt.Errorf("others have claimed what is missing: %w", content.ErrNotHere)
		}
	}
}

// why is the error for bytes that cannot be had.
func (r *run) why() error {
	if r.last != nil {
		return r.last
	}
	return fmt.Errorf("the answer has ended and cannot be had in parts: %w", content.ErrNotHere)
}

// startAnywhere starts a stream where readers wait, else where bytes are
// missing first.
func (r *run) startAnywhere() bool {
	r.mu.Lock()
	st, ok := r.pick()
	r.mu.Unlock()
	if ok {
		r.start(st)
	}
	return ok
}

// pick claims what is wanted most, for a stream that asks for all of it; r.mu is
// held.
func (r *run) pick() (*stream, bool) {
	most := int64(math.MaxInt64)
	if r.bounded {
		most = step
	}
	claim, ok := r.sink.Claim(-1, most)
	if !ok {
		return nil, false
	}
	st := &stream{ask: claim, pos: claim.Off, claim: claim}
	if claim.Len() > reach {
		st.claim.End = claim.Off + reach
		r.sink.Release(content.Range{Off: st.claim.End, End: claim.End})
	}
	return st, true
}

// seek starts a stream where readers wait, unless one will soon be there.
func (r *run) seek() {
	if r.fetch == nil || !r.seeks || r.running >= maxStreams {
		return
	}
	r.mu.Lock()
	st, ok := r.pick()
	if ok && r.near(st.claim) {
		ok = false
	}
	r.mu.Unlock()
	if ok {
		r.start(st)
	}
}

// near lets a running stream have a claim that lies just ahead of it; r.mu is
// held.
func (r *run) near(claim content.Range) bool {
	for st := range r.streams {
		if claim.Off < st.claim.End || claim.Off-st.pos > 2*step || claim.Off >= st.end {
			continue
		}
		if claim.Off > st.claim.End {
			between, ok := r.sink.Claim(st.claim.End, claim.Off-st.claim.End)
			if !ok || between.End != claim.Off {
				r.sink.Release(between)
				continue
			}
		}
		st.claim.End = claim.End
		return true
	}
	return false
}

// start runs a stream.
func (r *run) start(st *stream) {
	st.fetch, st.goesOn, r.cut = r.fetch, r.cut, false
	r.running++
	st.end = math.MaxInt64
	if st.part != nil {
		st.end = st.part.rng.End
	}
	r.mu.Lock()
	r.streams[st] = struct{}{}
	r.mu.Unlock()
	from := st.pos
	r.tasks.Go(func() {
		err := r.stream(st)
		r.mu.Lock()
		delete(r.streams, st)
		r.sink.Release(content.Range{Off: st.pos, End: max(st.pos, st.claim.End)})
		e := result{st.pos - from, err}
		r.mu.Unlock()
		select {
		case r.ended <- e:
		case <-r.ctx.Done():
		}
	})
}

// Ranges is a Source that brings what a sink misses by HTTP ranges from one
// address, four at a time. What it brings is only as good as the sink's proof:
// it is for addresses that name an object by its identity, at the box.
func Ranges(client *http.Client, url, name string) content.Source {
	s := &source{name: name, size: content.UnknownSize, idle: time.Minute, seeks: true, workers: maxStreams, bounded: true}
	s.fetch = func(ctx context.Context, rng content.Range) (*part, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("ask %s for a range: %w", name, err)
		}
		return askPart(client.Do, req, rng, nil)
	}
	return s
}

// Ranges is a Source that brings what a sink misses of the answer to req whose
// head was stored, by ranges and nothing beyond them. A strong validator holds
// the origin to that very representation; without one the bytes are only as good
// as the sink's proof. It is for objects of which a part was damaged.
func (m *Mirrors) Ranges(req *http.Request, stored *httpcache.Response) content.Source {
	if httpcache.IfRange(stored) == "" {
		stored = nil
	}
	return &source{
		name: "origin " + req.URL.Hostname(), size: content.UnknownSize, idle: m.cfg.IdleTimeout, workers: 1, seeks: stored != nil,
		fetch: func(ctx context.Context, rng content.Range) (*part, error) {
			m.ranges.Add(1)
			return askPart(m.sendPart, req.Clone(ctx), rng, stored)
		},
	}
}
