package multicast

import (
	"errors"
	"fmt"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// Why a session ends early.
var (
	errStopped = errors.New("the box stopped")
	errPrivate = errors.New("the object is not public any more")
)

// handleEvents does what the sender's events ask for.
func (s *session) handleEvents(now time.Time) {
	for _, ev := range s.sender.Events() {
		switch ev.Kind {
		case norm.ObjectSent:
			s.add()
			if ev.Object == s.last && s.added == uint32(extents(s.info.ID.Size, s.each)) {
				s.passed = now
				s.watermark()
			}
		case norm.ObjectFailed:
			s.fail(fmt.Errorf("read the object: %w", ev.Err))
		case norm.NodeAcked:
			s.mark(ev.Node, stateComplete)
		case norm.NodeFailed:
			// Twenty questions are over in half a second. An agent whose disk or host
			// is busy may take longer; one that is gone is not waited for for ever.
			if now.Sub(s.passed) < tailTime {
				s.watermark()
			} else {
				s.mark(ev.Node, stateLeft)
			}
		case norm.Flushed:
			if _, _, open, _ := s.count(); open == 0 && !s.passed.IsZero() {
				s.close()
			}
		case norm.Closed:
			s.closed = true
		}
	}
}

// watermark asks the agents that joined in time to confirm the whole object.
func (s *session) watermark() {
	s.mu.Lock()
	var nodes []norm.NodeID
	for _, r := range s.figures.Receivers {
		if r.State == stateJoined && !r.Late {
			nodes = append(nodes, r.Node)
		}
	}
	s.mu.Unlock()
	if len(nodes) == 0 {
		return
	}
	if err := s.sender.Watermark(s.last, nodes); err != nil {
		s.fail(fmt.Errorf("ask for confirmation: %w", err))
	}
}

// close ends the session in good order: EOT, then Closed.
func (s *session) close() {
	if !s.closing {
		s.closing = true
		s.sender.Close()
	}
}

// fail ends the session early; the agents fetch the rest over HTTP.
func (s *session) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	s.close()
}

// hangUp ends the session without waiting for the pace: the box stops.
func (s *session) hangUp() {
	s.fail(errStopped)
	for range 100 {
		p := s.sender.Poll(time.Now(), nil)
		if len(p) == 0 {
			break
		}
		s.send([][]byte{p}, s.group)
	}
	s.closed = true
}
