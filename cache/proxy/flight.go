package proxy

import (
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// flight is a request that is under way upstream. Everybody who asks for the
// same meanwhile waits for its head. What follows done is written before done is
// closed, and not after; offer is the leader's alone.
type flight struct {
	done chan struct{}

	status int            // of upstream's answer, 0 if none came
	found  *found         // the answer, if it can be shared
	own    http.Header    // fields of the answer that are for the leader alone
	stored bool           // it came with a body that is being stored
	offer  *content.Offer // the answer, if it cannot
	why    string         // it cannot
	whole  bool           // the whole of it might be
	err    error          // no answer came
}

// abandon closes an answer that its leader does not want.
func (fl *flight) abandon() {
	if fl.offer != nil && fl.offer.Body != nil {
		fl.offer.Body.Close()
	}
}

// passFor is how long after an answer that could not be stored requests for the
// same URL no longer wait for each other; denyFor how long a URL whose bytes were
// taken down is not asked for again.
const (
	passFor    = 30 * time.Second
	denyFor    = 2 * time.Minute
	maxPassing = 10000
)

// join finds the flight for what q asks, or starts one; whoever starts it leads
// it. A flight that alone is set for is nobody else's.
func (s *Server) join(q *query, f *found, v httpcache.Verdict, alone bool) (fl *flight, lead bool) {
	h := q.req.Header
	passing, _ := s.isPassing(q.key)
	alone = alone || passing || q.req.Method != http.MethodGet || h.Get("Authorization") != "" ||
		v.Fwd == httpcache.FwdRequest || !storableAsk(q.req)
	key := q.key
	if f != nil {
		key += "\n" + httpcache.VaryKey(httpcache.VaryFields(f.head.Header), h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !alone {
		if fl := s.flights[key]; fl != nil {
			return fl, false
		}
	}
	fl = &flight{done: make(chan struct{})}
	if !alone {
		s.flights[key] = fl
	}
	mine := &query{req: q.req.Clone(s.life), key: q.key, hear: q.hear, part: q.part} // the client may leave
	mine.req.Body = nil
	fly := func() {
		s.fetch(mine, f, v, fl)
		s.land(mine, key, fl, alone)
	}
	if s.life.Err() != nil {
		fl.err = errEnding
		delete(s.flights, key)
		close(fl.done)
		return fl, true
	}
	s.tasks.Go(fly)
	return fl, true
}

// errEnding says that the Server is being shut.
var errEnding = errors.New("the proxy is ending")

// spawn runs f in a goroutine that the end of the Server waits for; once it has
// ended f runs at once.
func (s *Server) spawn(f func()) {
	s.mu.Lock()
	ended := s.life.Err() != nil
	if !ended {
		s.tasks.Go(f)
	}
	s.mu.Unlock()
	if ended {
		f()
	}
}

// storableAsk reports whether the request itself lets an answer be stored.
func storableAsk(r *http.Request) bool {
	ok, _ := httpcache.Storable(r, httpcache.NewResponse(r, http.StatusOK, http.Header{"Cache-Control": {"public, max-age=1"}}, time.Time{}, time.Time{}))
	return ok
}

// land ends a flight.
func (s *Server) land(q *query, key string, fl *flight, alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case fl.found != nil && s.passing[q.key].denied == nil:
		delete(s.passing, q.key)
	case !alone && fl.offer != nil:
		s.passFrom(q.key, mark{parts: fl.whole})
	}
	if !alone {
		delete(s.flights, key)
	}
	close(fl.done)
}

// mark notes that the answer for a key could not be stored.
type mark struct {
	until  time.Time
	full   bool  // for want of room, which showed in the middle: do not try again
	parts  bool  // only parts of it cannot
	denied error // its bytes were taken down
}

// passFrom marks a key; s.mu is held.
func (s *Server) passFrom(key string, m mark) {
	now := time.Now()
	if len(s.passing) >= maxPassing {
		maps.DeleteFunc(s.passing, func(_ string, m mark) bool { return now.After(m.until) })
	}
	if len(s.passing) < maxPassing {
		m.until = now.Add(passFor)
		if m.denied != nil {
			m.until = now.Add(denyFor)
		}
		s.passing[key] = m
	}
}

// isPassing reports whether the last answer for a key could not be stored, and
// whether for want of room.
func (s *Server) isPassing(key string) (passing, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.passing[key]
	if ok && time.Now().After(m.until) {
		delete(s.passing, key)
		return false, false
	}
	return ok && !m.parts, m.full
}

// isPassingParts reports whether q is for a part of what cannot be kept in parts.
func (s *Server) isPassingParts(q *query) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.passing[q.key]
	return ok && m.parts && q.part != "" && time.Now().Before(m.until)
}

// brokeOff looks at why a stored answer could not be sent to its end.
func (s *Server) brokeOff(f *found, err error) {
	if !errors.Is(err, content.ErrFull) {
		return
	}
	key, _, _ := strings.Cut(f.name, "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passFrom(key, mark{full: true})
}

// renew revalidates a stored response behind the client's back
// (stale-while-revalidate).
func (s *Server) renew(q *query, f *found, v httpcache.Verdict) {
	v.Action, v.Fwd = httpcache.Revalidate, httpcache.FwdStale
	if v.Conditional == nil {
		v.Action = httpcache.Fetch
	}
	get := &query{req: q.req.Clone(s.life), key: q.key}
	get.req.Method = http.MethodGet
	if fl, lead := s.join(get, f, v, false); lead {
		s.spawn(func() { <-fl.done; fl.abandon() })
	}
}

// overtaken finds what another flight has brought since f was looked up, if that
// answers q: whoever looked before it landed, and joined after, needs no other.
func (s *Server) overtaken(q *query, f *found) *found {
	now := s.lookup(q)
	switch {
	case now == nil || now.other || !now.usable():
		return nil
	case f != nil && f.info.Num == now.info.Num && f.head.Received.Equal(now.head.Received):
		return nil
	case httpcache.Decide(q.req, now.head, time.Now()).Action != httpcache.Serve:
		return nil
	}
	return now
}

// fetch brings the answer to q from upstream.
func (s *Server) fetch(q *query, f *found, v httpcache.Verdict, fl *flight) {
	if fl.found = s.overtaken(q, f); fl.found != nil {
		return
	}
	if f != nil && !f.other && !f.usable() && q.req.Method == http.MethodGet {
		switch s.resume(q, f, fl) {
		case resumed:
			return
		case dropped:
			v = httpcache.Verdict{Fwd: v.Fwd}
		case validate:
			v.Action = httpcache.Revalidate
		}
	}
	var conditional http.Header
	if v.Action == httpcache.Revalidate || v.Background {
		conditional = v.Conditional
	}
	offer, err := s.ask(q, conditional)
	if err != nil {
		fl.err = err
		return
	}
	if conditional == nil {
		s.take(q, offer, fl)
		return
	}
	if offer.Status == http.StatusNotModified || q.req.Method == http.MethodHead && offer.Status == http.StatusOK {
		if s.freshen(q, f, offer, fl) {
			return
		}
		if offer.Status == http.StatusNotModified { // of something else
			if offer, err = s.ask(q, nil); err != nil {
				fl.err = err
				return
			}
		}
	}
	s.take(q, offer, fl)
}

// ask sends q upstream for the whole answer, or its part of it, made conditional
// by fields.
func (s *Server) ask(q *query, conditional http.Header) (*content.Offer, error) {
	s.count.upstream.Add(1)
	req := s.whole(q, conditional)
	if q.part != "" {
		req.Header.Set("Range", q.part)
		if lines := q.req.Header["If-Range"]; len(lines) > 0 {
			req.Header["If-Range"] = lines
		}
	}
	return s.up.Open(q.hear.context(s.life), req)
}

// whole is the request for the whole answer to q.
func (s *Server) whole(q *query, conditional http.Header) *http.Request {
	h := q.req.Header.Clone()
	httpcache.StripConditional(h)
	maps.DeleteFunc(h, func(name string, _ []string) bool { return misleads(name) })
	for name, lines := range conditional {
		h[name] = lines
	}
	return s.outbound(q.req, h)
}

// take puts an answer into the store if it may, and starts to fill it.
func (s *Server) take(q *query, offer *content.Offer, fl *flight) {
	fl.status, fl.offer = offer.Status, offer
	head := s.headOf(q, offer.Status, offer)
	part := q.part != "" && offer.Status == http.StatusPartialContent
	if part {
		if head, fl.why = wholeOf(head); head == nil {
			fl.whole = true
			return
		}
	}
	ok, why := httpcache.Storable(q.req, head)
	if !ok || len(offer.Sources) == 0 {
		fl.why = why
		return
	}
	fl.own = ownFields(offer)
	f := &found{name: q.key, head: head}
	if len(httpcache.VaryFields(head.Header)) > 0 {
		f.epoch = time.Now().UnixNano()
		if old := s.named(q.key); old != nil && old.epoch != 0 {
			f.epoch = old.epoch
		}
		f.name = variantName(q.key, f.epoch, head.Variant)
	}
	meta, err := encodeStored(head, f.epoch)
	if err != nil {
		fl.why = err.Error()
		return
	}
	if s.twin(q, offer, f, meta) {
		fl.offer, fl.found, fl.stored = nil, f, true
		return
	}
	spec := cache.Spec{Object: offer.Object, Title: q.key, Part: part, Public: head.Status == http.StatusOK && httpcache.Public(head)}
	if !offer.Object.ID.IsZero() {
		spec.Vouched = s.cfg.Vouched
	}
	f.fill, err = s.store.Create(spec, f.name, meta)
	if errors.Is(err, cache.ErrDenied) {
		closeBody(offer)
		fl.offer, fl.err = nil, err
		return
	}
	if err != nil {
		if !errors.Is(err, content.ErrFull) {
			s.log.Error("failed to store an answer", "title", q.key, "err", err)
		}
		fl.why = err.Error()
		return
	}
	if part {
		f.fill.OnDemand()
	}
	if !f.fill.Start(offer.Sources...) {
		fl.why = "the store is ending"
		return
	}
	fl.offer = nil
	s.watch(q.key, f.fill)
	if f.name != q.key {
		if err := s.name(q, f); err != nil {
			s.log.Error("failed to name an answer", "title", q.key, "err", err)
		}
	}
	fl.found, fl.stored = f, true
}

// freshen renews f by a 304, or by a 200 to HEAD, whose answer goes to the
// client all the same. It reports whether that is the end of it.
func (s *Server) freshen(q *query, f *found, offer *content.Offer, fl *flight) bool {
	fresh := s.headOf(q, offer.Status, offer)
	head, ok := httpcache.Freshen(f.head, fresh)
	if offer.Status == http.StatusNotModified && offer.Body != nil {
		offer.Body.Close()
	}
	if !ok || head.Variant != f.head.Variant {
		s.drop(f.name)
		return false
	}
	u := *f
	u.head = head
	if f.info.Public && !httpcache.Public(head) {
		if err := s.store.Unpublish(f.num()); err != nil {
			s.log.Error("failed to take back an object that became private", "title", q.key, "err", err)
		}
	}
	get := *q.req
	get.Method = http.MethodGet
	if keep, _ := httpcache.Storable(&get, head); keep {
		if err := s.name(q, &u); err != nil {
			s.log.Error("failed to renew an answer", "title", q.key, "err", err)
		}
	} else {
		s.drop(f.name)
	}
	fl.status = offer.Status
	if offer.Status != http.StatusNotModified {
		return false
	}
	fl.found, fl.own = &u, ownFields(offer)
	return true
}

// drop takes a name away.
func (s *Server) drop(name string) {
	if err := s.store.DropName(name); err != nil && !errors.Is(err, cache.ErrNotFound) {
		s.log.Error("failed to drop a name", "title", name, "err", err)
	}
}

func closeBody(o *content.Offer) {
	if o.Body != nil {
		o.Body.Close()
	}
}
