// Package origin brings objects in over HTTP: from the origin that a request
// names, with ranges where readers wait, going on in flight when an answer is
// cut.
//
// It also holds the Dialer, the only way out of the box. It refuses to follow
// redirects (whoever asked does that), to decompress, to decide what may be
// kept, and to splice bytes of two representations: without a strong validator
// nothing is ever resumed. Start reading at [Mirrors.Open], then [Mirrors.Resume].
package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// Config says how Mirrors reaches origins.
type Config struct {
	// Dial makes every connection: Uplink.DialContext in the box.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Uplink says when nothing need be waited for; nil: it is never down.
	Uplink *Uplink
	// Proxy gives the proxy for a request, as http.Transport has it; nil means
	// none. An agent goes through its box.
	Proxy func(*http.Request) (*url.URL, error)
	// HeaderTimeout bounds the wait for an answer's head; 0 means 60 s.
	HeaderTimeout time.Duration
	// IdleTimeout bounds the wait for the next byte of a body; 0 means 60 s.
	IdleTimeout time.Duration
	// MaxConns bounds requests under way, MaxConnsPerHost those to one host; 0
	// means 512 and 64. A place is taken until the body has been read,
	// or its reader is much slower than the host.
	MaxConns, MaxConnsPerHost int
	// MaxWaiting bounds requests that wait for a place, and MaxWait how long one
	// waits; 0 means 10,000 and 30 s. Others are turned away with a *BusyError.
	MaxWaiting int
	MaxWait    time.Duration
	// Pace caps the rate of bodies; nil does not. Those of hosts for which IsLAN
	// is true are not capped.
	Pace  *Pacer
	IsLAN func(netip.Addr) bool
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Dial == nil {
		faults = append(faults, errors.New("origin.dial: no dialer given"))
	}
	if c.HeaderTimeout < 0 {
		faults = append(faults, fmt.Errorf("origin.header_timeout: %s is negative", c.HeaderTimeout))
	}
	if c.IdleTimeout < 0 {
		faults = append(faults, fmt.Errorf("origin.idle_timeout: %s is negative", c.IdleTimeout))
	}
	for key, n := range map[string]int{"max_conns": c.MaxConns, "max_conns_per_host": c.MaxConnsPerHost, "max_waiting": c.MaxWaiting} {
		if n < 0 {
			faults = append(faults, fmt.Errorf("origin.%s: %d is negative", key, n))
		}
	}
	if c.MaxWait < 0 {
		faults = append(faults, fmt.Errorf("origin.max_wait: %s is negative", c.MaxWait))
	}
	return errors.Join(faults...)
}

// ErrChanged says that the origin now has another representation than the one
// of which a part is here.
var ErrChanged = errors.New("the origin has another representation now")

// Mirrors asks origins. All methods are safe for concurrent use.
type Mirrors struct {
	cfg       Config
	log       *slog.Logger
	transport *http.Transport
	gate      *gate

	requests, ranges, resumed, bytes atomic.Int64
}

// NewMirrors builds a Mirrors; it connects to nothing.
func NewMirrors(cfg Config, log *slog.Logger) (*Mirrors, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.HeaderTimeout = cmp.Or(cfg.HeaderTimeout, time.Minute)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, time.Minute)
	g := &gate{
		most: cmp.Or(cfg.MaxConns, 512), perHost: cmp.Or(cfg.MaxConnsPerHost, 64), line: cmp.Or(cfg.MaxWaiting, 10000),
		patience: cmp.Or(cfg.MaxWait, 30*time.Second), hosts: map[string]*queue{},
	}
	return &Mirrors{cfg: cfg, log: log, gate: g, transport: &http.Transport{
		DialContext:            cfg.Dial,
		Proxy:                  cfg.Proxy,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what the client asked for is what is stored
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  cfg.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         64 << 10,
	}}, nil
}

// Close lets go of idle connections.
func (m *Mirrors) Close() { m.transport.CloseIdleConnections() }

// Stats are the figures of a Mirrors since it was made.
type Stats struct {
	// Requests counts requests sent, Ranges those of them for a part, Resumed
	// the bodies that were cut and went on.
	Requests int64 `json:"requests"`
	Ranges   int64 `json:"ranges"`
	Resumed  int64 `json:"resumed"`
	// Bytes counts body bytes received.
	Bytes int64 `json:"bytes"`
	// Open counts requests under way now, Waiting those that wait for a place,
	// Turned those that got none.
	Open    int   `json:"open"`
	Waiting int   `json:"waiting"`
	Turned  int64 `json:"turned"`
}

// Stats gives a snapshot.
func (m *Mirrors) Stats() Stats {
	s := Stats{Requests: m.requests.Load(), Ranges: m.ranges.Load(), Resumed: m.resumed.Load(), Bytes: m.bytes.Load()}
	s.Open, s.Waiting, s.Turned = m.gate.figures()
	return s
}

// Open sends req, any method, and returns the head of the answer. req has an
// absolute URL and no hop-by-hop fields; it is not changed. An answer to GET
// comes with a Source for its body; ctx must live as long as the body is read.
// Redirects are answers. A part that req asks for by Range comes as the part it
// is, with the whole as its Object; its Source brings the rest too, if a strong
// validator holds the parts together. The error wraps *RefusedError when the
// address is closed.
func (m *Mirrors) Open(ctx context.Context, req *http.Request) (*content.Offer, error) {
	resp, requested, err := m.send(req.Clone(ctx))
	if err != nil {
		return nil, err
	}
	head := httpcache.NewResponse(req, resp.StatusCode, resp.Header, requested, time.Now())
	if whole, rng, size, err := httpcache.Whole(head); err == nil && req.Header.Get("Range") != "" {
		m.ranges.Add(1)
		offer := m.offer(req, whole, resp.Header, &part{body: resp.Body, rng: content.Range{Off: rng.Start, End: rng.Start + rng.Length}, size: size})
		offer.Status = resp.StatusCode
		return offer, nil
	}
	return m.offer(req, head, resp.Header, entire(resp)), nil
}

// entire is an answer taken as the whole of something.
func entire(resp *http.Response) *part {
	p := &part{body: resp.Body, rng: content.Range{End: resp.ContentLength}, size: resp.ContentLength}
	if p.size < 0 {
		p.rng.End = math.MaxInt64
	}
	return p
}

// Resume goes on with the answer to req whose head was stored and of which the
// bytes of asked are missing, to the end where that is math.MaxInt64. An Offer
// with status 206 brings them, of that very representation, under the header of
// the whole; any other is a new answer to req, as Open gives it, and what is here
// of the old one is to be dropped.
func (m *Mirrors) Resume(ctx context.Context, req *http.Request, stored *httpcache.Response, asked content.Range) (*content.Offer, error) {
	validator := httpcache.IfRange(stored)
	if validator == "" || asked == (content.Range{End: math.MaxInt64}) {
		return m.Open(ctx, req)
	}
	ask := req.Clone(ctx)
	ask.Header.Set("Range", rangeField(asked))
	ask.Header.Set("If-Range", validator)
	resp, requested, err := m.send(ask)
	if err != nil {
		return nil, err
	}
	head := httpcache.NewResponse(req, resp.StatusCode, resp.Header, requested, time.Now())
	if s := resp.StatusCode; s != http.StatusPartialContent && s != http.StatusRequestedRangeNotSatisfiable {
		return m.offer(req, head, resp.Header, entire(resp)), nil
	}
	p, err := checkPart(head, asked, stored)
	if err != nil {
		resp.Body.Close()
		m.log.Info("origin did not go on", "url", req.URL.Redacted(), "err", err)
		return m.Open(ctx, req)
	}
	p.body = resp.Body
	m.ranges.Add(1)
	whole, _, _, _ := httpcache.Whole(head) // checkPart has seen that it is sound
	whole.Status = http.StatusPartialContent
	return m.offer(req, whole, whole.Header, p), nil
}

// offer makes the Offer for an open answer. head is the header's stored form.
func (m *Mirrors) offer(req *http.Request, head *httpcache.Response, h http.Header, p *part) *content.Offer {
	o := &content.Offer{
		Status: head.Status, Header: h, Requested: head.Requested, Received: head.Received,
		Object: content.Object{Size: p.size, Trust: content.TrustTransport}, Body: p.body,
	}
	if req.Method != http.MethodGet && req.Method != "" {
		return o
	}
	req = req.Clone(req.Context())
	for _, name := range []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since"} { // of this answer, not of the next
		req.Header.Del(name)
	}
	s := &source{
		name: "origin " + req.URL.Hostname(), live: p, size: p.size, idle: m.cfg.IdleTimeout, workers: 1,
		seeks:   head.Status == http.StatusPartialContent || p.rng.Off > 0 || strings.EqualFold(head.Header.Get("Accept-Ranges"), "bytes"),
		resumed: func() { m.resumed.Add(1) },
	}
	if (head.Status == http.StatusOK || head.Status == http.StatusPartialContent) && httpcache.IfRange(head) != "" {
		s.fetch = func(ctx context.Context, rng content.Range) (*part, error) {
			m.ranges.Add(1)
			return askPart(m.sendPart, req.Clone(ctx), rng, head)
		}
	}
	o.Sources = []content.Source{s}
	return o
}
