package multicast

import (
	"cmp"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// tally notes a report in the list of a session's receivers, which is in order
// of node id, and returns how many object bytes it says were received that were
// not noted before. Figures come from an agent and are bounded by the caller's
// object.
func tally(list *[]ReceiverStats, a Agent, r Report, now time.Time) (fresh int64) {
	i, ok := slices.BinarySearchFunc(*list, a.Node, func(s ReceiverStats, n norm.NodeID) int { return cmp.Compare(s.Node, n) })
	if !ok {
		*list = slices.Insert(*list, i, ReceiverStats{Node: a.Node, Name: a.Name})
	}
	s := &(*list)[i]
	s.Name = a.Name
	s.State, s.Heard = r.State, now
	s.Late = s.Late || r.Late
	s.Loss = min(max(r.Loss, 0), 1)
	s.Dropped = r.Dropped
	s.Missing = min(max(r.Missing, 0), r.ID.Size)
	received := min(max(r.Received, 0), r.ID.Size)
	fresh = max(0, received-s.Received)
	s.Received += fresh
	return fresh
}

// sortSessions puts the newest first.
func sortSessions(list []SessionStats) {
	slices.SortFunc(list, func(a, b SessionStats) int { return b.Started.Compare(a.Started) })
}
