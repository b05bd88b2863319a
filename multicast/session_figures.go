package multicast

import (
	"cmp"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// mark notes what became of a receiver that had joined.
func (s *session) mark(node norm.NodeID, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.figures.Receivers {
		if r.Node == node && r.State == stateJoined {
			s.figures.Receivers[i].State = state
		}
	}
}

// expect adds agents to those waited for.
func (s *session) expect(nodes []norm.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, node := range nodes {
		a, known := s.c.roster.Get(node)
		i, ok := slices.BinarySearchFunc(s.figures.Receivers, node, func(r ReceiverStats, n norm.NodeID) int { return cmp.Compare(r.Node, n) })
		if known && !ok {
			s.figures.Receivers = slices.Insert(s.figures.Receivers, i, ReceiverStats{Node: node, Name: a.Name, State: stateExpected})
		}
	}
}

// count tells how many agents are expected still, have joined at any time, and
// how many of these are still receiving: in time and late.
func (s *session) count() (expected, joined, open, late int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.figures.Receivers {
		if r.State == stateExpected {
			expected++
			continue
		}
		joined++
		switch {
		case r.State == stateJoined && r.Late:
			late++
		case r.State == stateJoined:
			open++
		}
	}
	return expected, joined, open, late
}

// report takes what an agent says of its part in the session.
func (s *session) report(a Agent, r Report) {
	s.mu.Lock()
	fresh := tally(&s.figures.Receivers, a, r, time.Now())
	s.mu.Unlock()
	s.c.store.CountServed(s.info.Num, "multicast", fresh)
	s.wake()
}

// setRate changes the session's part of the rate.
func (s *session) setRate(rate int64) {
	s.mu.Lock()
	s.rate = rate
	s.mu.Unlock()
	s.wake()
}

func (s *session) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (s *session) applyRate() {
	s.mu.Lock()
	rate := s.rate
	s.mu.Unlock()
	s.out.setRate(time.Now(), rate)
}

// joinable reports whether a newcomer would still get most of the object.
func (s *session) joinable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.figures.State != announce.Ended.String() && s.figures.Sent < s.figures.Size/4*3
}

// publish brings the figures up to date.
func (s *session) publish() {
	st, sent, reports := s.sender.Stats(), s.firstPass(), s.sender.Receivers()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.figures
	f.State, f.Sent = s.state.String(), sent
	f.Repair, f.Packets, f.Nacks = int64(st.RepairBytes), st.Packets, st.Nacks
	for _, r := range reports {
		for i := range f.Receivers {
			if one := &f.Receivers[i]; one.Node == r.Node {
				one.Nacks = r.Nacks
				for _, at := range []time.Time{r.LastNack, r.LastAck} {
					if at.After(one.Heard) {
						one.Heard = at
					}
				}
				if r.HasLoss && one.State == stateJoined {
					one.Loss = r.Loss
				}
			}
		}
	}
	if s.state == announce.Ended {
		f.Ended = time.Now()
		if s.err != nil {
			f.Err = s.err.Error()
		}
	}
}

// snapshot gives the figures.
func (s *session) snapshot() SessionStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.figures
	f.Receivers = slices.Clone(f.Receivers)
	return f
}
