package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/origin"
)

// query is a GET or HEAD for an absolute URL, and the key of that URL.
type query struct {
	req  *http.Request
	key  string
	hear *interim // nil: nobody hears interim answers
	part string   // Range to ask upstream with for what is not here; "" for the whole
	why  string   // the rule that decided last
}

// query takes a request whose URL is absolute and was not taken down.
func (s *Server) query(r *http.Request) (*query, error) {
	key, err := httpcache.Key(r.URL)
	if err != nil {
		return nil, &fault{status: http.StatusBadRequest, why: err.Error()}
	}
	if err := s.denied(key); err != nil {
		return nil, err
	}
	q := &query{req: r, key: key}
	if !s.cfg.CompleteRanges {
		q.part = coldRange(r)
	}
	return q, nil
}

// found is a stored response.
type found struct {
	name string
	head *httpcache.Response
	info cache.Info
	fill *cache.Fill // where the caller has it
	// epoch of the URL's variants.
	epoch int64
	// other says that it is another variant than the one asked for.
	other bool
}

// usable reports whether bytes can be read from it: all are here, or on their
// way.
func (f *found) usable() bool { return f.info.Complete || f.info.Filling }

// size of the body as far as it is known.
func (f *found) size() int64 {
	if f.fill != nil {
		return f.fill.Size()
	}
	return f.info.Size
}

// answer is what a client gets: a stored response or an open one to pass on.
type answer struct {
	found  *found
	own    http.Header // fields that only the client that led to found gets
	offer  *content.Offer
	status httpcache.CacheStatus
}

// variantName is the store's name for one variant of a URL.
func variantName(key string, epoch int64, variant string) string {
	return key + "\n" + strconv.FormatInt(epoch, 36) + "-" + variant
}

// lookup finds the stored response for q: the URL's newest one if it matches,
// else the variant that does, else the newest one as another variant. nil if
// the URL has no name.
func (s *Server) lookup(q *query) *found {
	f := s.named(q.key)
	if f == nil || httpcache.MatchesVary(q.req, f.head) {
		return f
	}
	variant := httpcache.VaryKey(httpcache.VaryFields(f.head.Header), q.req.Header)
	if v := s.named(variantName(q.key, f.epoch, variant)); v != nil && httpcache.MatchesVary(q.req, v.head) {
		return v
	}
	f.other = true
	return f
}

// named finds what a name of the store stands for.
func (s *Server) named(name string) *found {
	info, meta, ok := s.store.Lookup(name)
	if !ok {
		return nil
	}
	head, epoch, ok := decodeStored(meta)
	if !ok {
		return nil
	}
	return &found{name: name, head: head, info: info, epoch: epoch}
}

// overloaded is when to ask again for what upstream failed to answer.
const overloaded = 5 * time.Second

// maxRounds is how often a request waits for others' answers before it asks for
// itself.
const maxRounds = 3

// resolve finds the answer to q: in the store, in the answer to somebody's
// request that is under way, or upstream. ctx is the client's.
func (s *Server) resolve(ctx context.Context, q *query) (*answer, error) {
	for round := 0; ; round++ {
		f := s.lookup(q)
		v := httpcache.Decide(q.req, headOf(f), time.Now())
		q.why = v.Why
		switch {
		case v.Action == httpcache.GatewayTimeout:
			return nil, &fault{status: http.StatusGatewayTimeout, why: v.Why, fwd: v.Fwd}
		case v.Action == httpcache.Serve && (f.usable() || q.req.Method == http.MethodHead):
			if v.Background {
				s.renew(q, f, v)
			}
			return &answer{found: f, status: httpcache.CacheStatus{Hit: true, TTL: v.TTL, HasTTL: true, Detail: staleDetail(v)}}, nil
		case v.Action == httpcache.Serve && s.holds(q, f):
			return &answer{found: f, status: httpcache.CacheStatus{Hit: true, TTL: v.TTL, HasTTL: true, Detail: staleDetail(v)}}, nil
		case v.Action == httpcache.Serve && httpcache.OnlyIfCached(q.req):
			return nil, &fault{status: http.StatusGatewayTimeout, why: "only-if-cached, but only a part is here", fwd: httpcache.FwdPartial}
		case v.Action == httpcache.Serve:
			v = httpcache.Verdict{Fwd: httpcache.FwdPartial, Why: "only a part is here"}
		}
		if s.mustPass(q, v) {
			return s.pass(q.hear.context(ctx), q.req, v.Fwd, v.Why)
		}
		fl, lead := s.join(q, f, v, round >= maxRounds)
		a, err := s.await(ctx, q, f, v, fl, lead)
		if a != nil || err != nil {
			return a, err
		}
	}
}

func headOf(f *found) *httpcache.Response {
	if f == nil {
		return nil
	}
	return f.head
}

func staleDetail(v httpcache.Verdict) string {
	if v.Stale {
		return v.Why
	}
	return ""
}

// mustPass reports whether a request goes upstream as it is, by itself: when
// nothing could be kept of the answer, or when only the origin can evaluate it.
func (s *Server) mustPass(q *query, v httpcache.Verdict) bool {
	h := q.req.Header
	switch {
	case h.Get("If-Match") != "" || h.Get("If-Unmodified-Since") != "":
		return true
	case q.req.Method == http.MethodHead:
		return v.Action != httpcache.Revalidate
	case q.req.ContentLength != 0:
		return true
	}
	passing, full := s.isPassing(q.key)
	return full || s.isPassingParts(q) || partialAsk(h) && v.Action != httpcache.Revalidate && (passing && v.Fwd != httpcache.FwdPartial || h.Get("Authorization") != "")
}

// partialAsk reports whether a client wants less than the whole body, so that a
// whole answer that cannot be kept is not what it asked for.
func partialAsk(h http.Header) bool {
	return h.Get("Range") != "" || h.Get("If-None-Match") != "" || h.Get("If-Modified-Since") != ""
}

// await waits for a flight and makes of it what it is to this request; nothing
// if the request has to try again.
func (s *Server) await(ctx context.Context, q *query, f *found, v httpcache.Verdict, fl *flight, lead bool) (*answer, error) {
	select {
	case <-fl.done:
	case <-ctx.Done():
		if lead {
			s.spawn(func() { <-fl.done; fl.abandon() })
		}
		return nil, ctx.Err()
	}
	status := httpcache.CacheStatus{Fwd: v.Fwd, FwdStatus: fl.status, Stored: fl.stored, Collapsed: !lead}
	if fl.err != nil || fl.status >= 500 {
		have := f
		if f != nil && !f.usable() && !s.holds(q, f) {
			have = nil
		}
		ok, why := httpcache.StaleIfErrorAllowed(q.req, headOf(have), fl.status, time.Now())
		if ok {
			if lead {
				fl.abandon()
			}
			return &answer{found: have, status: httpcache.CacheStatus{Fwd: v.Fwd, FwdStatus: fl.status, Detail: withoutUplink("stale, allowed by "+why, fl.err)}}, nil
		}
		if down := offline(fl.err); down != nil {
			return nil, &fault{status: http.StatusGatewayTimeout, why: down.Error() + "; " + why, fwd: v.Fwd, retry: offlineRetry, offline: down}
		}
	}
	switch {
	case fl.err != nil:
		return nil, unreachable(fl.err, v.Fwd)
	case fl.found != nil && httpcache.MatchesVary(q.req, fl.found.head):
		if !lead {
			s.count.collapsed.Add(1)
			return &answer{found: fl.found, status: status}, nil
		}
		return &answer{found: fl.found, own: fl.own, status: status}, nil
	case !lead && (fl.status >= 500 || fl.status == http.StatusTooManyRequests):
		// An answer that only its leader may have still says how upstream is: it
		// would not be better off with one more request for each who waits.
		return nil, &fault{status: http.StatusServiceUnavailable, why: fmt.Sprintf("upstream has just answered another client with status %d", fl.status), fwd: v.Fwd, retry: overloaded}
	case lead && fl.offer != nil:
		if q.req.Method == http.MethodGet && !suit(q.req, fl.offer) {
			fl.abandon()
			return s.pass(q.hear.context(ctx), q.req, v.Fwd, fl.why)
		}
		status.Detail = fl.why
		return &answer{offer: fl.offer, status: status}, nil
	}
	return nil, nil
}

// unreachable is the answer to a request that could not be sent on.
func unreachable(err error, fwd httpcache.Fwd) error {
	var refused *origin.RefusedError
	var timeout interface{ Timeout() bool }
	var busy *origin.BusyError
	down := offline(err)
	switch {
	case errors.Is(err, cache.ErrDenied):
		return err
	case errors.Is(err, errTrickled):
		return &fault{status: http.StatusRequestTimeout, why: err.Error(), fwd: fwd}
	case down != nil:
		return &fault{status: http.StatusGatewayTimeout, why: down.Error(), fwd: fwd, retry: offlineRetry, offline: down}
	case errors.As(err, &busy):
		return &fault{status: http.StatusServiceUnavailable, why: err.Error(), fwd: fwd, retry: busy.RetryAfter}
	case errors.As(err, &refused):
		return &fault{status: http.StatusForbidden, why: err.Error(), fwd: fwd}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &fault{status: http.StatusGatewayTimeout, why: err.Error(), fwd: fwd}
	}
	return &fault{status: http.StatusBadGateway, why: err.Error(), fwd: fwd}
}

// pass sends a request on as it is; nothing is kept of the answer.
func (s *Server) pass(ctx context.Context, r *http.Request, fwd httpcache.Fwd, why string) (*answer, error) {
	s.count.upstream.Add(1)
	offer, err := s.up.Open(ctx, s.outbound(r, r.Header.Clone()))
	if err != nil {
		return nil, unreachable(err, fwd)
	}
	return &answer{offer: offer, status: httpcache.CacheStatus{Fwd: fwd, FwdStatus: offer.Status, Detail: why}}, nil
}

// outbound makes the request to send upstream out of a client's, with h as its
// header.
func (s *Server) outbound(r *http.Request, h http.Header) *http.Request {
	httpcache.StripHopByHop(h)
	h.Del("Expect")
	httpcache.AddVia(h, r.Proto, s.cfg.Name)
	if s.cfg.Surrogate {
		h.Add("Surrogate-Capability", httpcache.SurrogateCapability)
	}
	u := *r.URL
	u.Fragment, u.RawFragment = "", ""
	out := &http.Request{
		Method: r.Method, URL: &u, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: r.Body, ContentLength: r.ContentLength,
	}
	if r.ContentLength == 0 {
		out.Body = nil
	}
	return out.WithContext(r.Context())
}

// misleads reports whether a request field would make an origin believe that it
// was asked for something else, by somebody else or under another name. One
// client's word must not shape the answer that all others get.
func misleads(name string) bool {
	switch name {
	case "X-Host", "X-Rewrite-Url", "X-Url-Scheme", "X-Method-Override", "X-Real-Ip", "X-Client-Ip", "X-Proxyuser-Ip",
		"True-Client-Ip", "Front-End-Https", "Proxy":
		return true
	}
	return slices.ContainsFunc([]string{"Forwarded", "X-Forwarded", "X-Original-", "X-Http-Method"}, func(begin string) bool {
		return strings.HasPrefix(name, begin)
	})
}

// name gives an object the names of a response.
func (s *Server) name(q *query, f *found) error {
	meta, err := encodeStored(f.head, f.epoch)
	if err != nil {
		return err
	}
	names := []string{f.name}
	if primary, _, ok := s.store.Lookup(q.key); f.name != q.key && (f.fill != nil || ok && primary.Num == f.info.Num) {
		names = append(names, q.key)
	}
	for _, name := range names {
		err = s.store.SetName(f.num(), name, meta)
		if errors.Is(err, cache.ErrNotFound) { // merged in between
			err = s.store.SetName(f.num(), name, meta)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ownFields are those of an answer that nobody else may have.
func ownFields(o *content.Offer) http.Header {
	h := o.Header.Clone()
	httpcache.StripHopByHop(h)
	return httpcache.Withheld(h)
}

// num is the object's number now.
func (f *found) num() uint64 {
	if f.fill != nil {
		return f.fill.Num()
	}
	return f.info.Num
}
