package proxy

import (
	"cmp"
	"context"
	"net/http"
	"path/filepath"
	"time"

	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/journal"
)

// Past gives how the last requests were answered, newest first.
func (s *Server) Past(q journal.Query) []journal.Entry { return s.past.Find(q) }

// account notes what decided about a request, for the journal. a is nil if there
// is no answer.
func account(r *http.Request, q *query, a *answer) {
	l := accessOf(r)
	l.key, l.why, l.answer = q.key, q.why, a
}

// remember takes a request that has been answered down in the journal.
func (s *Server) remember(now time.Time, l *access) {
	e := journal.Entry{
		At: l.began, Client: l.from, Method: l.method, URL: cmp.Or(l.key, l.target), Status: l.status, Bytes: l.bytes,
		Why: l.why, Detail: l.detail, Fwd: string(l.fwd), Hit: l.hit, Took: now.Sub(l.began),
	}
	if !l.first.IsZero() {
		e.First = l.first.Sub(l.began)
	}
	if a := l.answer; a != nil {
		st := &a.status
		e.Hit, e.Fwd, e.FwdStatus, e.Stored, e.Collapsed = st.Hit, string(st.Fwd), st.FwdStatus, st.Stored, st.Collapsed
		e.Detail = cmp.Or(l.detail, st.Detail)
		if a.found != nil {
			e.Object = a.found.num()
		}
		if st.Fwd == httpcache.FwdPartial {
			e.Why += ", but only a part is here (RFC 9111 §3.3)"
		}
		asked, answered := a.times()
		e.Asked, e.Answered = since(l.began, asked), since(l.began, answered)
	}
	s.past.Add(&e)
}

// times are when upstream was asked and when the head of its answer came; zero if
// it was not asked for this answer.
func (a *answer) times() (asked, answered time.Time) {
	switch {
	case a.status.Hit:
		return asked, answered
	case a.offer != nil:
		return a.offer.Requested, a.offer.Received
	case a.found != nil && a.found.head != nil:
		return a.found.head.Requested, a.found.head.Received
	}
	return asked, answered
}

// since is how long after a request came something was, 0 if it was before.
func since(began, at time.Time) time.Duration { return max(0, at.Sub(began)) }

// rememberHit is remember for a request that never came to net/http. It is for
// each of very many: it makes nothing that lives.
func (s *Server) rememberHit(now time.Time, q *quick, r *ready, num uint64, size int64) {
	s.past.Add(&journal.Entry{
		At: now, Client: q.from, Method: http.MethodGet, URL: r.key, Status: http.StatusOK, Hit: true, Why: r.why, Object: num, Bytes: size,
	})
}

// savePastEvery is how often what was slow is saved.
const savePastEvery = time.Minute

// keepPast loads what was slow before the last start, and saves what is.
func (s *Server) keepPast(ctx context.Context) {
	if s.cfg.Dir == "" {
		return
	}
	path := filepath.Join(s.cfg.Dir, "requests.jsonl")
	if err := s.past.Load(path); err != nil {
		s.log.Warn("failed to load past requests", "err", err)
	}
	tick := time.NewTicker(savePastEvery)
	defer tick.Stop()
	var saved uint64
	var failed bool
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		var err error
		saved, err = s.past.Save(path, saved)
		if err != nil && !failed {
			s.log.Warn("failed to save past requests", "err", err)
		}
		failed = err != nil
	}
}
