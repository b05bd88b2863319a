package norm

import (
	"bytes"
	"fmt"
	"time"
)

// roll is nodes that owe an answer. They are asked in turn, as many at once as
// fit into a packet.
type roll struct {
	asked map[NodeID]int // how often, of those that have not answered
	turn  []NodeID       // the next first; also names who has answered
}

// newRoll makes a roll of nodes, each once.
func newRoll(nodes []NodeID) (roll, error) {
	r := roll{asked: map[NodeID]int{}}
	for _, n := range nodes {
		if !n.Valid() {
			return roll{}, fmt.Errorf("node id %#x", uint32(n))
		}
		if _, ok := r.asked[n]; !ok {
			r.asked[n] = 0
			r.turn = append(r.turn, n)
		}
	}
	return r, nil
}

// open reports whether somebody still owes an answer.
func (r *roll) open() bool { return len(r.asked) > 0 }

// heard says that a node is alive though it has not answered: it has all tries again.
func (r *roll) heard(id NodeID) {
	if _, ok := r.asked[id]; ok {
		r.asked[id] = 0
	}
}

// answered takes a node off the roll, and reports whether it was on it.
func (r *roll) answered(id NodeID) bool {
	_, ok := r.asked[id]
	delete(r.asked, id)
	return ok
}

// next gives the nodes to ask now, at most room of them. Those asked in vain
// as often as allowed are taken off.
func (r *roll) next(room, tries int, failed func(NodeID)) NodeList {
	var list NodeList
	var rest, asked []NodeID
	for _, id := range r.turn {
		n, ok := r.asked[id]
		switch {
		case !ok:
		case n >= tries:
			delete(r.asked, id)
			failed(id)
		case len(asked) < room:
			r.asked[id]++
			list = list.Append(id)
			asked = append(asked, id)
		default:
			rest = append(rest, id)
		}
	}
	r.turn = append(rest, asked...)
	return list
}

// pause is the time until the next nodes are asked, when each is asked once in
// a period.
func (r *roll) pause(period time.Duration, room int) time.Duration {
	return period / time.Duration(max((len(r.asked)+room-1)/room, 1))
}

// clear gives who still owes an answer, and takes them off.
func (r *roll) clear() []NodeID {
	var out []NodeID
	for _, id := range r.turn {
		if r.answered(id) {
			out = append(out, id)
		}
	}
	r.turn = nil
	return out
}

// listRoom is how many node ids fit into a command.
func (s *Sender) listRoom() int { return (s.cfg.SegmentSize - s.authLen()) / 4 }

// query is a request for acknowledgement, CMD(ACK_REQ).
type query struct {
	ackType, ackID uint8
	roll           roll
	next           time.Time
}

// firstAppAck is the first ack_type that is the application's own.
const firstAppAck = 16

// maxQueries is how many requests for acknowledgement may be open at once.
const maxQueries = 256

// RequestAck asks nodes for an acknowledgement that means something to the
// application: ackType 16 to 255, any ackID (RFC 5740 §4.2.3.6). NodeReplied
// follows for each that answers, NodeSilent for each that does not although
// asked Robust times. A request of the same type and id replaces the one before.
func (s *Sender) RequestAck(ackType, ackID uint8, nodes []NodeID) error {
	if ackType < firstAppAck {
		return fmt.Errorf("request ack: type %d is the protocol's own", ackType)
	}
	r, err := newRoll(nodes)
	if err != nil {
		return fmt.Errorf("request ack: %w", err)
	}
	q := &query{ackType: ackType, ackID: ackID, roll: r}
	for i, old := range s.queries {
		if old.ackType == ackType && old.ackID == ackID {
			s.queries[i] = q
			return nil
		}
	}
	if len(s.queries) >= maxQueries {
		return fmt.Errorf("request ack: %d requests open", maxQueries)
	}
	s.queries = append(s.queries, q)
	return nil
}

func (s *Sender) queryDue(time.Time) (at time.Time, due bool) {
	if s.closing {
		return at, false
	}
	for _, q := range s.queries {
		if !due || q.next.Before(at) {
			at, due = q.next, true
		}
	}
	return at, due
}

// runQuery asks the nodes whose turn it is. A request that nobody owes an
// answer to any more is forgotten.
func (s *Sender) runQuery(now time.Time, b []byte) []byte {
	for i := 0; i < len(s.queries); i++ {
		q := s.queries[i]
		if q.next.After(now) {
			continue
		}
		list := q.roll.next(s.listRoom(), s.cfg.Robust, func(id NodeID) {
			s.event(SenderEvent{Kind: NodeSilent, Node: id, AckType: q.ackType, AckID: q.ackID})
		})
		if len(list) == 0 {
			s.queries = append(s.queries[:i], s.queries[i+1:]...)
			i--
			continue
		}
		q.next = now.Add(q.roll.pause(2*s.grtt(), s.listRoom()))
		m := AckReq{SenderHeader: s.header(), AckType: q.ackType, AckID: q.ackID, Nodes: list}
		return s.command(b, &m, &m.SenderHeader)
	}
	return b
}

// reply takes an ACK to a CMD(ACK_REQ).
func (s *Sender) reply(m *Ack) {
	for _, q := range s.queries {
		if q.ackType == m.AckType && q.ackID == m.AckID && q.roll.answered(m.Source) {
			s.event(SenderEvent{Kind: NodeReplied, Node: m.Source, AckType: q.ackType, AckID: q.ackID, Payload: bytes.Clone(m.Payload)})
		}
	}
}
