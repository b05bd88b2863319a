package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// RoundTrip implements http.RoundTripper, for who reads files from servers himself:
// a request waits for its place, is refused while the uplink is down, and its body
// counts and is paced as every other.
func (m *Mirrors) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, _, err := m.send(req.Clone(req.Context()))
	return resp, err
}

// send sends one request when there is a place for it, and counts. The place is
// taken until the body has been read or closed. sent is when the wait for it was
// over: an answer is no older for having been waited for (RFC 9111 §4.2.3).
func (m *Mirrors) send(req *http.Request) (resp *http.Response, sent time.Time, err error) {
	req.RequestURI = ""
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "") // or net/http puts its own
	}
	host := req.URL.Host
	if m.cfg.Uplink.Down() != nil {
		m.transport.CloseIdleConnections() // what was open when it fell leads nowhere
	}
	if err := m.cfg.Uplink.Refuse(address(req.URL)); err != nil {
		return nil, sent, fmt.Errorf("ask %s: %w", host, err)
	}
	if err := m.gate.enter(req.Context(), host); err != nil {
		return nil, sent, err
	}
	sent = time.Now()
	m.requests.Add(1)
	var near atomic.Bool
	ctx, cancel := context.WithCancel(m.watch(req.Context(), &near))
	leave := sync.OnceFunc(func() { m.gate.leave(host) })
	resp, err = m.roundTrip(req.WithContext(ctx))
	if err != nil {
		leave()
		cancel()
		return nil, sent, fmt.Errorf("ask %s: %w", host, err)
	}
	if resp.StatusCode < 200 { // 101 was not asked for, and below 100 there is nothing
		resp.Body.Close()
		leave()
		cancel()
		return nil, sent, fmt.Errorf("ask %s: status %d is not that of an answer", host, resp.StatusCode)
	}
	if resp.Body == http.NoBody {
		leave()
		cancel()
		return resp, sent, nil
	}
	resp.Body = counted{resp.Body, &m.bytes}
	if m.cfg.Pace != nil && !near.Load() {
		resp.Body = &paced{ReadCloser: resp.Body, pacer: m.cfg.Pace, closed: make(chan struct{})}
	}
	resp.Body = &placed{ReadCloser: resp.Body, leave: leave, end: cancel}
	return resp, sent, nil
}

// roundTrip waits for the head of an answer as long as the uplink is not known to
// be down. The request's context ends with the body.
func (m *Mirrors) roundTrip(req *http.Request) (*http.Response, error) {
	u := m.cfg.Uplink
	if u == nil {
		return m.transport.RoundTrip(req)
	}
	ctx, end := u.while(req.Context(), address(req.URL), suspectHead)
	defer end()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if u.isNear(got.Conn.RemoteAddr()) {
			end()
		}
	}})
	resp, err := m.transport.RoundTrip(req.WithContext(ctx))
	var down *OfflineError
	if err != nil && errors.As(context.Cause(ctx), &down) {
		return nil, down
	}
	return resp, err
}

// resumePatience is how long a fill waits for an uplink that is down: what clients
// are loading goes on when it is back.
const resumePatience = 2 * time.Minute

// sendPart is send for whoever does not keep the head of the answer, and would
// rather wait than give up.
func (m *Mirrors) sendPart(req *http.Request) (*http.Response, error) {
	resp, _, err := m.send(req)
	var down *OfflineError
	if errors.As(err, &down) && m.cfg.Uplink.back(req.Context(), resumePatience) {
		resp, _, err = m.send(req)
	}
	return resp, err
}

// address is the host and port of a URL.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
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
