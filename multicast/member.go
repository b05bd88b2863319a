package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// ErrBypass says that the box does not hand the object to agents: ask its proxy
// as any client does.
var ErrBypass = errors.New("object is not for agents")

// Member is an agent's way in to the objects of its box: it asks the desk and
// answers with an offer. It is safe for concurrent use.
type Member struct {
	line    *Line
	catcher *Catcher
	box     func(content.ID) content.Source
	log     *slog.Logger

	cast, direct, bypassed, failed atomic.Uint64
}

// MemberStats counts what the box answered.
type MemberStats struct {
	// Cast, HTTP and Bypass count answers, Failed questions without one.
	Cast   uint64 `json:"cast"`
	HTTP   uint64 `json:"http"`
	Bypass uint64 `json:"bypass"`
	Failed uint64 `json:"failed"`
}

// NewMember makes a Member. box gives the Source that fetches an object from
// the box over HTTP.
func NewMember(line *Line, catcher *Catcher, box func(content.ID) content.Source, log *slog.Logger) *Member {
	return &Member{line: line, catcher: catcher, box: box, log: log}
}

// Stats gives a snapshot.
func (m *Member) Stats() MemberStats {
	return MemberStats{Cast: m.cast.Load(), HTTP: m.direct.Load(), Bypass: m.bypassed.Load(), Failed: m.failed.Load()}
}

// Open asks the box how to come by what req asks for. It waits as long as the
// box wants it to wait for a cast. Only what may be public is asked for: GET
// without credentials. The error wraps ErrBypass if the request should go
// through the box's proxy; after any other error it may.
func (m *Member) Open(ctx context.Context, req *http.Request) (*content.Offer, error) {
	for _, name := range []string{"Authorization", "Cookie"} {
		if req.Header.Get(name) != "" {
			return nil, fmt.Errorf("%w: the request has %s", ErrBypass, name)
		}
	}
	if req.Method != http.MethodGet && req.Method != "" {
		return nil, fmt.Errorf("%w: the method is %s", ErrBypass, req.Method)
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.Host == "" {
		return nil, fmt.Errorf("%w: %q is not an absolute http or https URL", ErrBypass, req.URL.Redacted())
	}
	return m.offer(ctx, want{URL: req.URL.String(), Header: passedHeader(req.Header)})
}

// OpenName is Open for a name in the box's store, such as
// "btih:<infohash>/<path>".
func (m *Member) OpenName(ctx context.Context, name string) (*content.Offer, error) {
	return m.offer(ctx, want{Name: name})
}

// Resume gives the ways to go on with an object that was promised before.
func (m *Member) Resume(ctx context.Context, id content.ID) (*content.Offer, error) {
	return m.offer(ctx, want{ID: id})
}

// offer asks the desk and makes an offer of its answer.
func (m *Member) offer(ctx context.Context, w want) (*content.Offer, error) {
	a, err := m.line.ask(ctx, w)
	if err != nil {
		m.failed.Add(1)
		return nil, err
	}
	var sources []content.Source
	switch a.State {
	case verdictCast:
		m.cast.Add(1)
		sources = []content.Source{m.catcher.Source(a.ID), m.box(a.ID)}
	case verdictHTTP:
		m.direct.Add(1)
		sources = []content.Source{m.box(a.ID)}
	default:
		m.bypassed.Add(1)
		return nil, fmt.Errorf("%w: %s", ErrBypass, a.Reason)
	}
	layer, err := a.layer()
	if err != nil {
		m.failed.Add(1)
		return nil, fmt.Errorf("answer of the box: %w", err)
	}
	if !w.ID.IsZero() && a.ID != w.ID {
		m.failed.Add(1)
		return nil, fmt.Errorf("answer of the box: %s was asked for, %s was given", w.ID, a.ID)
	}
	now := time.Now()
	return &content.Offer{
		Status: a.Status, Header: a.Header, Requested: now, Received: now,
		Object:  content.Object{ID: a.ID, Size: a.ID.Size, Trust: content.TrustPieces, Layer: layer},
		Sources: sources,
	}, nil
}
