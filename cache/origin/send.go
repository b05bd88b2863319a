package origin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
)

// send sends one request when there is a place for it, and counts. The place is
// taken until the body has been read or closed.
func (m *Mirrors) send(req *http.Request) (*http.Response, error) {
	req.RequestURI = ""
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "") // or net/http puts its own
	}
	host := req.URL.Host
	if err := m.gate.enter(req.Context(), host); err != nil {
		return nil, err
	}
	leave := sync.OnceFunc(func() { m.gate.leave(host) })
	m.requests.Add(1)
	var near atomic.Bool
	resp, err := m.transport.RoundTrip(req.WithContext(m.watch(req.Context(), &near)))
	if err != nil {
		leave()
		return nil, fmt.Errorf("ask %s: %w", host, err)
	}
	if resp.StatusCode < 200 { // 101 was not asked for, and below 100 there is nothing
		resp.Body.Close()
		leave()
		return nil, fmt.Errorf("ask %s: status %d is not that of an answer", host, resp.StatusCode)
	}
	if resp.Body == http.NoBody {
		leave()
		return resp, nil
	}
	resp.Body = counted{resp.Body, &m.bytes}
	if m.cfg.Pace != nil && !near.Load() {
		resp.Body = &paced{ReadCloser: resp.Body, pacer: m.cfg.Pace, closed: make(chan struct{})}
	}
	resp.Body = &placed{resp.Body, leave}
	return resp, nil
}

// watch notes whether a request goes to the LAN, whose way is not the uplink.
func (m *Mirrors) watch(ctx context.Context, near *atomic.Bool) context.Context {
	if m.cfg.Pace == nil || m.cfg.IsLAN == nil {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		to, err := netip.ParseAddrPort(got.Conn.RemoteAddr().String())
		near.Store(err == nil && m.cfg.IsLAN(to.Addr().Unmap()))
	}})
}
