package proxy

import (
	"context"
	"net/http"

	"github.com/cistern-edge/cistern/cache/httpcache"
)

// Want makes sure that the object behind a request (GET, with an absolute URL
// and the fields that matter) is here or being filled, as if a client had asked
// for all of it, and says what it is. Range and conditions of the request do not
// count. It waits for the head of the answer, not for its body; whoever leaves,
// the fill goes on to the end. An answer that cannot be shared is given up.
func (s *Server) Want(ctx context.Context, req *http.Request) (Wanted, error) {
	r := req.Clone(ctx)
	r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0
	httpcache.StripConditional(r.Header)
	q, err := s.query(r)
	if err != nil {
		return Wanted{}, err
	}
	s.count.requests.Add(1)
	a, err := s.resolve(ctx, q)
	if err != nil {
		return Wanted{}, err
	}
	if a.offer != nil {
		s.count.misses.Add(1)
		closeBody(a.offer)
		return Wanted{Why: a.status.Detail}, nil
	}
	if a.status.Hit {
		s.count.hits.Add(1)
	} else {
		s.count.misses.Add(1)
	}
	info, ok := s.store.Get(a.found.num())
	switch {
	case !ok:
		return Wanted{Why: "the object was evicted just now"}, nil
	case a.found.head.Status != http.StatusOK || !info.Public || !httpcache.Public(a.found.head):
		return Wanted{Why: "the answer is not for everybody"}, nil
	}
	s.store.Keep(info.Num)
	return Wanted{Head: a.found.head, Info: info, Shared: true, Why: "publicly cacheable"}, nil
}
