package origin

import (
	"io"
	"sync"
	"time"
)

// Pacer caps the rate of what comes in over the uplink, all ways in together. nil
// caps nothing. It is safe for concurrent use.
type Pacer struct {
	rate func(now time.Time) int64

	// mu guards what follows.
	mu   sync.Mutex
	free time.Time // when all that was taken so far is paid for
}

// NewPacer makes a Pacer. rate gives the bytes a second at a time of day; 0 is no
// bound.
func NewPacer(rate func(now time.Time) int64) *Pacer { return &Pacer{rate: rate} }

// burst is what may come at once after a rest.
const burst = 100 * time.Millisecond

// Take notes n bytes that have come, and says how long to wait before the next.
func (p *Pacer) Take(n int) time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	rate := p.rate(now)
	if rate <= 0 {
		p.free = now
		return 0
	}
	if earliest := now.Add(-burst); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return p.free.Sub(now)
}

// Hours is a part of each day, from From up to To after midnight, over midnight
// if To is not later than From.
type Hours struct{ From, To time.Duration }

// Contains reports whether a time of day lies in it.
func (h Hours) Contains(now time.Time) bool {
	year, month, day := now.Date()
	at := now.Sub(time.Date(year, month, day, 0, 0, 0, 0, now.Location()))
	if h.From < h.To {
		return h.From <= at && at < h.To
	}
	return at >= h.From || at < h.To
}

// paced is a body that comes no faster than a Pacer lets it.
type paced struct {
	io.ReadCloser
	pacer  *Pacer
	closed chan struct{}
	once   sync.Once
}

// sip is how much of a paced body is read at a time, in bytes: waits stay short.
const sip = 32 << 10

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b[:min(len(b), sip)])
	if wait := p.pacer.Take(n); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.closed:
		}
	}
	return n, err
}

func (p *paced) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.ReadCloser.Close()
}
