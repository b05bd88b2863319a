package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/origin"
	"github.com/cistern-edge/cistern/multicast"
)

// desk is where the box hands objects to agents: multicast.Member. Its errors
// wrap multicast.ErrBypass where the box's proxy is to be asked.
type desk interface {
	Open(ctx context.Context, req *http.Request) (*content.Offer, error)
	OpenName(ctx context.Context, name string) (*content.Offer, error)
	Resume(ctx context.Context, id content.ID) (*content.Offer, error)
}

// box is the agent's upstream: what the box hands to agents comes as an object
// with its proof, everything else through the box's proxy as to any client.
type box struct {
	url    string
	dialer net.Dialer
	client *http.Client // for ranges of objects
	plain  *origin.Mirrors
	member desk
	log    *slog.Logger
}

// newBox makes the upstream of the box at address; member is put in after.
func newBox(address string, log *slog.Logger) (*box, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address of the box: %w", err)
	}
	b := &box{url: address, dialer: net.Dialer{Timeout: 10 * time.Second}, log: log}
	b.client = &http.Client{Transport: &http.Transport{
		DialContext: b.dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		ResponseHeaderTimeout: time.Minute,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the way leads to the box and nowhere else
	b.plain, err = origin.NewMirrors(origin.Config{Dial: b.dialer.DialContext, Proxy: http.ProxyURL(u)}, log)
	return b, err
}

// dial opens the tunnels of CONNECT, which no cache can help, and which lead no
// further than the box's.
func (b *box) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&origin.Dialer{}).DialContext(ctx, network, address)
}

// source fetches an object from the box over HTTP, by ranges.
func (b *box) source(id content.ID) content.Source {
	return origin.Ranges(b.client, b.url+"/o/"+id.String(), "box")
}

// Open implements proxy.Upstream.
func (b *box) Open(ctx context.Context, req *http.Request) (*content.Offer, error) {
	if whole(req) {
		offer, err := b.member.Open(ctx, req)
		if err == nil {
			return offer, nil
		}
		b.noDesk(req, err)
	}
	return b.plain.Open(ctx, req)
}

// noDesk notes why the box's proxy is asked instead of its desk.
func (b *box) noDesk(req *http.Request, err error) {
	if !errors.Is(err, multicast.ErrBypass) {
		b.log.Warn("asked the box's proxy instead of its desk", "title", req.URL.Redacted(), "err", err)
	}
}

// whole reports whether a request is for all of an object, whatever is here.
func whole(req *http.Request) bool {
	for _, field := range []string{"Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"} {
		if req.Header.Get(field) != "" {
			return false
		}
	}
	return req.Method == http.MethodGet
}

// Resume implements proxy.Upstream. An object that the box promised is asked for
// anew: the store compares what is promised then with what is here.
func (b *box) Resume(ctx context.Context, req *http.Request, stored *httpcache.Response, missing content.Range) (*content.Offer, error) {
	offer, err := b.member.Open(ctx, req)
	if err != nil {
		b.noDesk(req, err)
		return b.plain.Resume(ctx, req, stored, missing)
	}
	offer.Status = http.StatusPartialContent
	return offer, nil
}

// Ranges implements proxy.Upstream.
func (b *box) Ranges(req *http.Request, stored *httpcache.Response) content.Source {
	return b.plain.Ranges(req, stored)
}

// repairs brings again what was damaged: from the box's object, else through the
// box's proxy. It implements cache.Repairer.
type repairs struct {
	box    *box
	server cache.Repairer
}

func (r repairs) Repair(ctx context.Context, info cache.Info) ([]content.Source, error) {
	sources, err := r.server.Repair(ctx, info)
	if info.Public && !info.ID.IsZero() {
		sources = append([]content.Source{r.box.source(info.ID)}, sources...)
	}
	return sources, err
}

// openObject finds what is asked for by identity or by the name of a torrent's
// file.
func (b *box) openObject(ctx context.Context, id content.ID, name string) (*content.Offer, error) {
	if name != "" {
		return b.member.OpenName(ctx, name)
	}
	return b.member.Resume(ctx, id)
}
