package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
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

// resume goes on with an object of which a part is here. False: the part is
// dropped, and the whole is to be fetched.
func (s *Server) resume(q *query, f *found, fl *flight) bool {
	if httpcache.IfRange(f.head) == "" && f.info.ID.IsZero() {
		s.evict(f)
		return false
	}
	fill, off, ended := s.partial(f)
	if ended {
		fl.found = &found{name: f.name, head: f.head, info: f.info, epoch: f.epoch, fill: fill}
		return true
	}
	s.count.upstream.Add(1)
	offer, err := s.up.Resume(s.life, s.whole(q, nil), f.head, off)
	if err != nil || offer.Status >= 500 {
		if fill != nil {
			fl.keepPart(s.life, q.req, &found{name: f.name, head: f.head, info: f.info, epoch: f.epoch, fill: fill})
			fill.Start() // without a source it ends, and keeps what it has
		}
		if err == nil {
			fl.status, fl.offer, fl.why = offer.Status, offer, "the origin failed to go on"
		}
		fl.err = err
		return true
	}
	if offer.Status == http.StatusPartialContent && fill == nil {
		fill, err = s.store.OpenFill(f.info.Num, offer.Object.Layer)
	}
	if offer.Status != http.StatusPartialContent || err != nil {
		s.evict(f)
		if offer.Status == http.StatusPartialContent {
			closeBody(offer)
			return false
		}
		s.take(q, offer, fl)
		return true
	}
	if !fill.Start(offer.Sources...) {
		closeBody(offer)
	}
	fl.status = offer.Status
	u := &found{name: f.name, head: f.head, info: f.info, epoch: f.epoch, fill: fill}
	fresh := httpcache.NewResponse(q.req, http.StatusNotModified, offer.Header, offer.Requested, offer.Received)
	if head, ok := httpcache.Freshen(f.head, fresh); ok && head.Variant == f.head.Variant {
		u.head = head
		if err := s.name(q, u); err != nil {
			s.log.Error("failed to renew an answer", "title", q.key, "err", err)
		}
	}
	fl.found, fl.stored = u, true
	return true
}

// partial opens the fill of a partial object and says what it misses first.
// Without a fill nothing is known: the upstream has to bring a proof first.
// ended says that nothing is missing after all.
func (s *Server) partial(f *found) (fill *cache.Fill, off int64, ended bool) {
	if !f.info.ID.IsZero() && f.info.Trust != content.TrustTransport { // promised from outside, not earned here
		return nil, 0, false
	}
	fill, err := s.store.OpenFill(f.info.Num, nil)
	if err != nil {
		return nil, 0, false
	}
	if missing := fill.Missing(); len(missing) > 0 {
		return fill, missing[0].Off, false
	}
	fill.Start() // it only has to be finished
	return fill, 0, true
}

// keepPart notes what is here of an answer that cannot be completed, if what r
// asks for lies within it (RFC 9111 §3.3). It is checked now: a fill that has
// ended checks nothing.
func (fl *flight) keepPart(ctx context.Context, r *http.Request, part *found) {
	asked := part.holds(r)
	if len(asked) == 0 {
		return
	}
	rd, err := part.fill.Reader()
	if err != nil {
		return
	}
	defer rd.Close()
	for _, one := range asked {
		for off, end := one.Start, one.Start+one.Length; off < end; {
			if off, err = rd.Wait(ctx, off); err != nil {
				return
			}
		}
	}
	fl.part = part
}

// holds gives the ranges that a request asks for if all of them are here of an
// answer that is not whole.
func (f *found) holds(r *http.Request) []httpcache.Range {
	asked, err := httpcache.Ranges(r, f.head, f.size())
	missing := content.Ranges(f.fill.Missing())
	if err != nil || slices.ContainsFunc(asked, func(r httpcache.Range) bool { return len(missing.Within(span(r))) > 0 }) {
		return nil
	}
	return asked
}

// evict drops a partial object.
func (s *Server) evict(f *found) {
	if err := s.store.Evict(f.info.Num); err != nil && !errors.Is(err, cache.ErrNotFound) {
		s.log.Error("failed to drop a partial object", "object", f.info.Num, "title", f.name, "err", err)
	}
}
