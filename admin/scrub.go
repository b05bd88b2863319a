package admin

import (
	"context"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
)

type askScrub struct{ Body client.ScrubOrder }

// scrub is the pass over the store that somebody has asked for, if any.
type scrub struct {
	task sync.WaitGroup

	// mu guards what follows.
	mu     sync.Mutex
	state  client.Scrub
	cancel context.CancelFunc
}

// now gives how far it is.
func (c *scrub) now() client.Scrub {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.State == "" {
		c.state.State = client.ScrubNone
	}
	return c.state
}

// told takes how far a pass is.
func (c *scrub) told(r cache.ScrubReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Objects, c.state.Bytes, c.state.Damaged = r.Objects, r.Bytes, r.Damaged
	c.state.TotalObjects, c.state.TotalBytes = r.TotalObjects, r.TotalBytes
}

// stop ends the pass that runs and waits for it.
func (c *scrub) stop() client.Scrub {
	c.mu.Lock()
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	c.task.Wait()
	return c.now()
}

// startScrub begins a pass; it goes on when whoever asked has left.
func (s *Server) startScrub(rate int64) (client.Scrub, error) {
	c := &s.scrub
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state.State == client.ScrubRunning:
		return client.Scrub{}, huma.Error409Conflict("a scrub is running already, since " + c.state.Started.Format(time.RFC3339))
	case s.life.Err() != nil:
		return client.Scrub{}, huma.Error503ServiceUnavailable("the box is stopping")
	}
	st := s.parts.Objects.Stats()
	c.state = client.Scrub{State: client.ScrubRunning, Started: time.Now(), Rate: rate, TotalObjects: st.Objects, TotalBytes: st.Bytes}
	ctx, cancel := context.WithCancel(s.life)
	c.cancel = cancel
	c.task.Go(func() {
		defer cancel()
		report, err := s.parts.Objects.Scrub(ctx, rate, c.told)
		c.told(report)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.state.State, c.state.Ended = client.ScrubDone, time.Now()
		if err != nil {
			c.state.State = client.ScrubStopped
		}
		s.log.Info("scrub ended", "state", c.state.State, "objects", report.Objects, "bytes", report.Bytes, "damaged", report.Damaged)
	})
	return c.state, nil
}
