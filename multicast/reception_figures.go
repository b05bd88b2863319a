package multicast

import (
	"context"
	"errors"
	"time"
)

// report tells the box, without waiting for it.
func (r *reception) report(rep Report) {
	r.c.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, reportTime)
		defer cancel()
		if err := r.c.line.report(ctx, rep); err != nil && ctx.Err() == nil {
			r.c.log.Warn("failed to report", "object", rep.ID, "err", err)
		}
	})
}

// end counts and reports how the session went.
func (r *reception) end(left int64, cause error) {
	c, f := r.c, r.figures()
	f.Bytes = max(0, r.lacked-left)
	c.mu.Lock()
	if left == 0 {
		c.stats.Whole++
	}
	if r.heard.IsZero() && errors.Is(cause, errSilent) {
		c.stats.Silent++
	}
	c.stats.Bytes += f.Bytes
	c.stats.Left += left
	c.stats.Refuted += r.refuted
	c.stats.Dropped += f.Dropped
	delete(c.receptions, r)
	c.mu.Unlock()
	state := stateComplete
	if left > 0 {
		state = stateLeft
	}
	c.log.Info("left a session", "object", r.notice.ID, "title", r.notice.Title, "group", r.notice.Group,
		"bytes", f.Bytes, "missing", left, "loss", f.Loss, "dropped", f.Dropped, "took", time.Since(r.joined), "err", cause)
	r.report(Report{
		ID: r.notice.ID, State: state, Late: r.late, Loss: f.Loss, Received: f.Bytes, Missing: left, Dropped: f.Dropped,
	})
}

// publish puts the figures where Stats finds them.
func (r *reception) publish() {
	select {
	case <-r.settled:
		return
	default:
	}
	f := r.figures()
	r.c.mu.Lock()
	r.c.receptions[r] = f
	r.c.mu.Unlock()
}

// figures describes the reception.
func (r *reception) figures() ReceptionStats {
	f := ReceptionStats{ID: r.notice.ID, Title: r.notice.Title, Group: r.notice.Group.String(), Dropped: r.rx.dropped()}
	st := r.engine.Stats()
	f.Bytes = min(int64(st.Symbols)*int64(r.notice.SegmentSize), r.lacked)
	for _, s := range r.engine.Senders() {
		if all := s.Received + s.Lost; all > 0 {
			r.loss = float64(s.Lost) / float64(all)
		}
	}
	f.Loss = r.loss
	return f
}
