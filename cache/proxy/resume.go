package proxy

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// Repair implements cache.Repairer for objects that came by HTTP: each URL that
// has the object is a way to get again what was damaged.
func (s *Server) Repair(_ context.Context, info cache.Info) ([]content.Source, error) {
	var sources []content.Source
	asked := map[string]bool{}
	for _, name := range info.Names {
		key, _, _ := strings.Cut(name, "\n")
		f := s.named(name)
		if f == nil || f.info.Num != info.Num || f.head.Status != http.StatusOK || f.head.Authorized || asked[key] {
			continue
		}
		u, err := url.Parse(key)
		if err != nil || u.Host == "" {
			continue
		}
		asked[key] = true
		req := &http.Request{Method: http.MethodGet, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}
		sources = append(sources, s.up.Ranges(s.outbound(req, req.Header), f.head))
	}
	return sources, nil
}

// outcome is what became of an object of which a part is here.
type outcome int

const (
	resumed  outcome = iota // the flight has its answer
	dropped                 // the whole is to be fetched
	validate                // what is wanted is here, if the origin says it is still valid
)

// resume goes on with an object of which a part is here.
func (s *Server) resume(q *query, f *found, fl *flight) outcome {
	if httpcache.IfRange(f.head) == "" && f.info.ID.IsZero() {
		s.evict(f)
		return dropped
	}
	want, all := f.wanted(q.req)
	fill, missing := s.partial(f, want, all)
	switch {
	case fill != nil && missing.Len() == 0 && !all:
		s.onDemand(q, f, fill)
		return validate
	case fill != nil && missing.Len() == 0:
		fill.Start() // it only has to be finished
		fl.found = &found{name: f.name, head: f.head, info: f.info, epoch: f.epoch, fill: fill}
		return resumed
	}
	s.count.upstream.Add(1)
	offer, err := s.up.Resume(s.life, s.whole(q, nil), f.head, missing)
	if err != nil || offer.Status >= 500 {
		if fill != nil && fill.Start() { // without a source it ends, and keeps what it has
			<-fill.Done()
		}
		if err == nil {
			fl.status, fl.offer, fl.why = offer.Status, offer, "the origin failed to go on"
		}
		fl.err = err
		return resumed
	}
	if offer.Status == http.StatusPartialContent && fill == nil {
		fill, err = s.store.OpenFill(f.info.Num, offer.Object.Layer)
	}
	if offer.Status != http.StatusPartialContent || err != nil {
		s.evict(f)
		if offer.Status == http.StatusPartialContent {
			closeBody(offer)
			return dropped
		}
		s.take(q, offer, fl)
		return resumed
	}
	if !all && f.info.ID.IsZero() && !s.cfg.CompleteRanges {
		fill.OnDemand()
	}
	if !fill.Start(offer.Sources...) {
		closeBody(offer)
	}
	fl.status = offer.Status
	u := &found{name: f.name, head: f.head, info: f.info, epoch: f.epoch, fill: fill}
	fresh := s.headOf(q, http.StatusNotModified, offer)
	if head, ok := httpcache.Freshen(f.head, fresh); ok && head.Variant == f.head.Variant {
		u.head = head
		if err := s.name(q, u); err != nil {
			s.log.Error("failed to renew an answer", "title", q.key, "err", err)
		}
	}
	fl.found, fl.stored = u, true
	return resumed
}

// partial opens the fill of a partial object and says what it misses first of
// what is wanted: to the end of the gap if that is all. Without a fill nothing is known: the
// upstream has to bring a proof first.
func (s *Server) partial(f *found, want content.Range, all bool) (fill *cache.Fill, missing content.Range) {
	rest := content.Range{End: math.MaxInt64}
	if !f.info.ID.IsZero() && f.info.Trust != content.TrustTransport { // promised from outside, not earned here
		return nil, rest
	}
	fill, err := s.store.OpenFill(f.info.Num, nil)
	if err != nil {
		return nil, rest
	}
	for _, gap := range fill.Missing() {
		if all && gap.End == fill.Size() {
			gap.End = math.MaxInt64
		}
		if !all {
			gap = gap.Clip(want)
		}
		if gap.Len() > 0 {
			return fill, gap
		}
	}
	return fill, content.Range{}
}

// holds opens an object of which a part is here for a request that is for some
// of that alone (RFC 9111 §3.3). What others ask for beyond it comes on demand.
func (s *Server) holds(q *query, f *found) bool {
	if f == nil || f.other || q.req.Method != http.MethodGet || httpcache.IfRange(f.head) == "" {
		return false
	}
	want, all := f.wanted(q.req)
	if all {
		return false
	}
	fill, missing := s.partial(f, want, false)
	if fill == nil || missing.Len() > 0 {
		return false
	}
	s.onDemand(q, f, fill)
	f.fill = fill
	return true
}

// onDemand starts the fill of a part that asks upstream for nothing yet.
func (s *Server) onDemand(q *query, f *found, fill *cache.Fill) {
	fill.OnDemand()
	fill.Start(s.up.Ranges(s.whole(q, nil), f.head))
}

// evict drops a partial object.
func (s *Server) evict(f *found) {
	if err := s.store.Evict(f.info.Num); err != nil && !errors.Is(err, cache.ErrNotFound) {
		s.log.Error("failed to drop a partial object", "object", f.info.Num, "title", f.name, "err", err)
	}
}
