package origin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// send sends one request when there is a place for it, and counts. The place is
// taken until the body has been read or closed. sent is when the wait for it was
// over: an answer is no older for having been waited for (RFC 9111 §4.2.3).
func (m *Mirrors) send(req *http.Request) (resp *http.Response, sent time.Time, err error) {
	req.RequestURI = ""
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "") // or net/http puts its own
	}
	host := req.URL.Host
	if err := m.gate.enter(req.Context(), host); err != nil {
		return nil, sent, err
	}
	sent = time.Now()
	leave := sync.OnceFunc(func() { m.gate.leave(host) })
	m.requests.Add(1)
	var near atomic.Bool
	resp, err = m.transport.RoundTrip(req.WithContext(m.watch(req.Context(), &near)))
	if err != nil {
		leave()
		return nil, sent, fmt.Errorf("ask %s: %w", host, err)
	}
	if resp.StatusCode < 200 { // 101 was not asked for, and below 100 there is nothing
		resp.Body.Close()
		leave()
		return nil, sent, fmt.Errorf("ask %s: status %d is not that of an answer", host, resp.StatusCode)
	}
	if resp.Body == http.NoBody {
		leave()
		return resp, sent, nil
	}
	resp.Body = counted{resp.Body, &m.bytes}
	if m.cfg.Pace != nil && !near.Load() {
		resp.Body = &paced{ReadCloser: resp.Body, pacer: m.cfg.Pace, closed: make(chan struct{})}
	}
	resp.Body = &placed{resp.Body, leave}
	return resp, sent, nil
}

// sendPart is send for whoever does not keep the head of the answer.
func (m *Mirrors) sendPart(req *http.Request) (*http.Response, error) {
	resp, _, err := m.send(req)
	return resp, err
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
