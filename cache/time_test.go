package cache

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// inBubble runs a test with a store in fake time.
func inBubble(t *testing.T, do func(t *testing.T, s *Store)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { do(t, open(t, Config{Dir: dir})) })
}

// TestStalledSourceGetsCompany: a Source that brings nothing while a reader waits
// is joined by the next one, and not before its time.
func TestStalledSourceGetsCompany(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		data := noise(800, 2*mib)
		f := create(t, s, "a", content.Object{Size: int64(len(data))})
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		start := time.Now()
		var asked time.Duration
		f.Start(source{"stuck", func(ctx context.Context, sink content.Sink) error {
			sink.Claim(0, mib/2) // and no more of it
			<-ctx.Done()
			return ctx.Err()
		}}, source{"second", func(ctx context.Context, sink content.Sink) error {
			asked = time.Since(start)
			if r, ok := sink.Claim(0, mib); ok {
				t.Errorf("the claim %v of another Source was handed out", r)
			}
			return from("second", data, mib).Fill(ctx, sink)
		}}, source{"third", func(ctx context.Context, sink content.Sink) error {
			for _, r := range sink.Missing() { // Claims are a courtesy: what nobody brings may be brought
				if err := bring(sink, data, r); err != nil {
					return err
				}
			}
			return nil
		}})
		wantBytes(t, r, data, content.Range{End: 10})
		if asked < stallAfter || asked > 2*stallAfter {
			t.Errorf("the next Source was asked after %v", asked)
		}
		f.cancel(nil) // the stuck one never ends by itself
		<-f.Done()
	})
}

// TestNobodyWaitsNobodyIsJoined: without a reader that waits, a slow Source is
// left alone.
func TestNobodyWaitsNobodyIsJoined(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		f := create(t, s, "a", content.Object{Size: mib})
		f.Start(source{"slow", func(ctx context.Context, sink content.Sink) error {
			time.Sleep(10 * stallAfter)
			return from("slow", noise(801, mib), mib).Fill(ctx, sink)
		}}, source{"never", func(context.Context, content.Sink) error {
			t.Error("the next Source was asked")
			return nil
		}})
		<-f.Done()
		if f.Err() != nil {
			t.Error(f.Err())
		}
	})
}

// TestAbandonedFills: a fill without readers ends after a while if most is still
// to come, unless it is pinned, kept, nearly done or well begun, or a reader has
// come back.
func TestAbandonedFills(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		data := noise(802, mib)
		large := int64(2 * nearlyDone)
		for name, c := range map[string]struct {
			size, here int64
			before     func(f *Fill)
			ends       bool
		}{
			"hardly begun": {size: large, here: mib, ends: true},
			"unknown size": {size: content.UnknownSize, here: mib, ends: true},
			"nearly done":  {size: nearlyDone, here: 0},
			"well begun":   {size: large, here: large / wellBegun},
			"pinned":       {size: large, here: mib, before: func(f *Fill) { _ = s.Pin(f.num, true) }},
			"kept":         {size: large, here: mib, before: (*Fill).Keep},
			"kept by name": {size: large, here: mib, before: func(f *Fill) { s.Keep(f.num) }},
			"watched again": {size: large, here: mib, before: func(f *Fill) {
				r, _ := f.Reader()
				t.Cleanup(func() { r.Close() })
			}},
		} {
			f := create(t, s, name, content.Object{Size: c.size})
			r, err := f.Reader()
			if err != nil {
				t.Fatal(err)
			}
			g := make(gate)
			f.Start(g.source())
			g.do(func(sink content.Sink) {
				for off := int64(0); off < c.here; off += mib {
					if _, err := sink.WriteAt(data, off); err != nil {
						t.Error(err)
					}
				}
				if err := sink.Accept(content.Range{End: c.here}); c.here > 0 && err != nil {
					t.Error(err)
				}
			})
			if r.Close(); c.before != nil {
				c.before(f)
			}
			time.Sleep(unwantedAfter - time.Second)
			if f.ctx.Err() != nil {
				t.Errorf("%s: it ended at once", name)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if ended := f.ctx.Err() != nil; ended != c.ends {
				t.Errorf("%s: ended is %v", name, ended)
			}
			if c.ends {
				if <-f.Done(); !errors.Is(f.Err(), errUnwanted) {
					t.Errorf("%s: ended with %v", name, f.Err())
				}
			} else {
				f.stop(errUnwanted)
			}
			if err := s.Evict(f.num); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestFillNobodyStarted: one whose maker has gone does not stay for ever.
func TestFillNobodyStarted(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		f := create(t, s, "a", content.Object{Size: 10 * mib})
		r, _ := f.Reader()
		r.Close()
		time.Sleep(unwantedAfter + time.Second)
		<-f.Done()
		if s.Stats().Fills != 0 || f.Start() {
			t.Error("a fill that nobody started is still there")
		}
	})
}

// TestCloseDoesNotWaitForEver: a Source that does not end, and timers of readers
// that leave after the end, keep nobody.
func TestCloseDoesNotWaitForEver(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Dir: dir})
		f := create(t, s, "a", content.Object{Size: 10 * mib})
		r, _ := f.Reader()
		begun, stuck := make(chan struct{}), make(chan struct{})
		f.Start(source{"stuck", func(context.Context, content.Sink) error { close(begun); <-stuck; return nil }})
		<-begun
		start := time.Now()
		if err := s.Close(); err == nil || !strings.Contains(err.Error(), "end the fills") {
			t.Errorf("closed with %v", err)
		}
		if took := time.Since(start); took > 4*closeWithin {
			t.Errorf("took %v", took)
		}
		r.Close()
		close(stuck)
		<-f.Done()
		time.Sleep(2 * unwantedAfter)
	})
}
