package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newGate(most, perHost, line int, patience time.Duration) *gate {
	return &gate{most: most, perHost: perHost, line: line, patience: patience, hosts: map[string]*queue{}}
}

// TestGateHoldsItsBoundsAndIsFair: one host that is slow and wanted by many does
// not hold up the others, and everybody gets in in the end.
func TestGateHoldsItsBoundsAndIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4, 3, 1000, time.Hour)
		var open, most, slow, mostSlow, served atomic.Int64
		var wait sync.WaitGroup
		top := func(n, best *atomic.Int64) {
			if now := n.Add(1); now > best.Load() {
				best.Store(now)
			}
		}
		visit := func(host string, takes time.Duration) {
			wait.Go(func() {
				if err := g.enter(t.Context(), host); err != nil {
					t.Error(err)
					return
				}
				defer g.leave(host)
				top(&open, &most)
				defer open.Add(-1)
				if host == "slow" {
					top(&slow, &mostSlow)
					defer slow.Add(-1)
				}
				time.Sleep(takes)
				served.Add(1)
			})
		}
		for range 100 {
			visit("slow", time.Minute)
		}
		synctest.Wait()
		began := time.Now()
		others := make([]time.Duration, 20)
		for i := range others {
			wait.Go(func() {
				host := fmt.Sprint("host ", i%5)
				if err := g.enter(t.Context(), host); err != nil {
					t.Error(err)
					return
				}
				defer g.leave(host)
				time.Sleep(time.Second)
				others[i] = time.Since(began)
			})
		}
		wait.Wait()
		for i, took := range others {
			if took > 21*time.Second {
				t.Errorf("%d waited for %s behind a slow host", i, took)
			}
		}
		if most.Load() > 4 || mostSlow.Load() > 3 || served.Load() != 100 {
			t.Errorf("%d at once, %d at one host, %d served", most.Load(), mostSlow.Load(), served.Load())
		}
		if open, waiting, turned := g.figures(); open != 0 || waiting != 0 || turned != 0 || len(g.hosts) != 0 {
			t.Errorf("%d, %d, %d, %d hosts are left", open, waiting, turned, len(g.hosts))
		}
	})
}

func TestGateTurnsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 1, 1, time.Minute)
		if err := g.enter(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- g.enter(ctx, "a") }()
		synctest.Wait()
		var busy *BusyError
		if err := g.enter(t.Context(), "b"); !errors.As(err, &busy) || busy.RetryAfter != time.Minute {
			t.Errorf("the line was too long: %v", err)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("whoever left was told %v", err)
		}
		if err := g.enter(t.Context(), "b"); !errors.As(err, &busy) {
			t.Errorf("waited for a minute: %v", err)
		}
		g.leave("a")
		if err := g.enter(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		g.leave("b")
		if open, waiting, turned := g.figures(); open != 0 || waiting != 0 || turned != 3 || len(g.hosts) != 0 {
			t.Errorf("%d, %d, %d, %d hosts are left", open, waiting, turned, len(g.hosts))
		}
	})
}

// TestPlacesComeBack: whatever becomes of an answer, its place is free again.
func TestPlacesComeBack(t *testing.T) {
	s := newSite(t, testBody(1000), nil)
	m := newMirrors(t)
	for _, use := range []func(o io.ReadCloser){
		func(o io.ReadCloser) { _, _ = io.Copy(io.Discard, o) },
		func(o io.ReadCloser) { o.Close() },
		func(o io.ReadCloser) { _, _ = io.Copy(io.Discard, o); o.Close(); o.Close() },
	} {
		offer, err := m.Open(t.Context(), get(t, s.URL))
		if err != nil {
			t.Fatal(err)
		}
		if m.Stats().Open != 1 {
			t.Errorf("%d are open", m.Stats().Open)
		}
		use(offer.Body)
		if m.Stats().Open != 0 {
			t.Errorf("%d are open after it", m.Stats().Open)
		}
		offer.Body.Close()
	}
	for _, req := range []*http.Request{get(t, "http://127.0.0.1:1/"), get(t, s.URL)} {
		req.Method = http.MethodHead
		_, _ = m.Open(t.Context(), req)
		if m.Stats().Open != 0 {
			t.Errorf("%d are open after %s", m.Stats().Open, req.URL)
		}
	}
}

// TestPace: the rate follows the hours, a rest earns little, and nobody gets
// more by reading more at once.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		night := Hours{From: 22 * time.Hour, To: 6 * time.Hour}
		p := NewPacer(func(now time.Time) int64 {
			if night.Contains(now) {
				return 0
			}
			return 1 << 20
		})
		for i := range 3 { // the clock starts at midnight
			began := time.Now()
			var wait sync.WaitGroup
			for range 4 {
				wait.Go(func() {
					body := &paced{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 3<<20))), pacer: p, closed: make(chan struct{})}
					if n, err := io.Copy(io.Discard, body); n != 3<<20 || err != nil {
						t.Error(n, err)
					}
				})
			}
			wait.Wait()
			took := time.Since(began)
			if i == 0 && took != 0 || i > 0 && (took < 11800*time.Millisecond || took > 12*time.Second) {
				t.Errorf("round %d took %s", i, took)
			}
			time.Sleep(8 * time.Hour / time.Duration(i+1))
		}
		slow := &paced{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), pacer: NewPacer(func(time.Time) int64 { return 1 }), closed: make(chan struct{})}
		go func() {
			time.Sleep(time.Second)
			slow.Close()
		}()
		began := time.Now()
		_, _ = slow.Read(make([]byte, 1000))
		if took := time.Since(began); took != time.Second {
			t.Errorf("a body that was closed waited for %s", took)
		}
	})
}

func TestHours(t *testing.T) {
	at := func(h, m int) time.Time { return time.Date(2026, 3, 1, h, m, 0, 0, time.UTC) }
	for _, c := range []struct {
		from, to int
		now      time.Time
		want     bool
	}{
		{8, 16, at(8, 0), true},
		{8, 16, at(15, 59), true},
		{8, 16, at(16, 0), false},
		{8, 16, at(7, 59), false},
		{22, 6, at(23, 0), true},
		{22, 6, at(5, 59), true},
		{22, 6, at(6, 0), false},
		{0, 0, at(12, 0), true},
	} {
		h := Hours{time.Duration(c.from) * time.Hour, time.Duration(c.to) * time.Hour}
		if h.Contains(c.now) != c.want {
			t.Errorf("%d to %d at %s: %v", c.from, c.to, c.now.Format("15:04"), !c.want)
		}
	}
}

// slowBody is a body that takes a second for each Read.
type slowBody struct{ left int }

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	b.left--
	time.Sleep(time.Second)
	return len(p), nil
}

func (b *slowBody) Close() error { return nil }

// TestSlowReadersGiveTheirPlaceBack: those that stop, and those that are much
// slower than the origin; not those that the origin keeps waiting.
func TestSlowReadersGiveTheirPlaceBack(t *testing.T) {
	for name, c := range map[string]struct {
		reads int
		pause time.Duration
		early bool
	}{
		"as fast as it comes": {100, 0, false},
		"half as fast":        {100, time.Second, false},
		"stops":               {3, time.Hour, true},
		"a tenth as fast":     {20, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left, ended atomic.Bool
				p := &placed{ReadCloser: &slowBody{c.reads}, leave: func() { left.Store(true) }, end: func() { ended.Store(true) }}
				for range c.reads {
					if _, err := p.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(c.pause)
				}
				if left.Load() != c.early || ended.Load() {
					t.Errorf("the place is free: %v, the request has ended: %v", left.Load(), ended.Load())
				}
				if _, err := p.Read(make([]byte, 1)); err != io.EOF || !left.Load() || !ended.Load() {
					t.Errorf("at the end: %v", err)
				}
			})
		})
	}
}
