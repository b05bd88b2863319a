package peering

import (
	"context"
	"net/http"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// tap is a mirror as a content.Source of one file: it lends the mirror the sink
// as long as the file's fill runs.
type tap struct {
	name  string
	file  *file
	begun chan struct{}
	sink  content.Sink
}

// tap joins the fill of a file.
func (m *mirror) tap(ctx context.Context, file int) (*tap, error) {
	m.mu.Lock()
	t := m.taps[file]
	m.mu.Unlock()
	if t != nil {
		return t, nil
	}
	f := m.share.pieces.files[file]
	t = &tap{name: m.name, file: f, begun: make(chan struct{})}
	if !f.fill.Join(t) {
		return nil, errLeft
	}
	select {
	case <-t.begun:
	case <-f.fill.Done():
		return nil, errLeft
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taps[file] = t
	return t, nil
}

// Name implements content.Source.
func (t *tap) Name() string { return t.name }

// Fill implements content.Source.
func (t *tap) Fill(ctx context.Context, sink content.Sink) error {
	t.sink = sink
	close(t.begun)
	select {
	case <-t.file.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait waits for d, or for ctx.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// newHTTP makes the client that mirrors are asked with, through the one way out.
func newHTTP(web http.RoundTripper, dial Dial) *http.Client {
	if web != nil {
		return &http.Client{Transport: web}
	}
	return &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: mirrorIdle, ForceAttemptHTTP2: true,
		ReadBufferSize: 64 << 10, MaxResponseHeaderBytes: 64 << 10,
	}}
}
