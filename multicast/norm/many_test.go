package norm

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A session of very many small objects, some of them empty, across the wrap of
// their ids.
func TestVeryManyObjects(t *testing.T) {
	l := newLAN(t, 51, 3, nil)
	l.loss, l.feedback = 0.1, 0.1
	const count = 700
	l.sender.oldest, l.sender.next, l.sender.pass.Object = 65000, 65000, 65000
	for i := range count {
		l.add(t, (i+6)%7*700)
	}
	l.run(t, time.Minute, l.complete(count))
	for i := range count {
		l.same(t, 65000+ObjectID(i), randomBytes(uint64((i+6)%7*700), (i+6)%7*700))
	}
	for i, h := range l.hosts {
		if n := h.count(ObjectAbandoned); n > 0 {
			t.Errorf("host %d: %d objects abandoned", i, n)
		}
	}
	t.Logf("%d NACKs, %d packets", l.sender.Stats().Nacks, l.packets)
}

// A thousand nodes are asked to confirm, in as many packets as their names take.
func TestWatermarkOfManyNodes(t *testing.T) {
	l := newLAN(t, 52, 40, nil)
	l.loss, l.feedback = 0.1, 0.1
	id, _ := l.add(t, 100_000)
	var nodes []NodeID
	for n := range 1000 {
		nodes = append(nodes, NodeID(1001+n))
	}
	if err := l.sender.Watermark(id, append(nodes, nodes...)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []NodeID{NodeNone, NodeAny} {
		if l.sender.Watermark(id, []NodeID{bad}) == nil || l.sender.RequestAck(16, 1, []NodeID{bad}) == nil {
			t.Errorf("node id %#x taken", uint32(bad))
		}
	}
	longest := 0
	l.tap = func(pkt []byte) []byte { longest = max(longest, len(pkt)); return pkt }
	l.run(t, time.Minute, func() bool { return !l.sender.watermark.roll.open() })
	acked, failed := 0, 0
	for _, e := range l.events {
		switch e.Kind {
		case NodeAcked:
			acked++
		case NodeFailed:
			failed++
		}
	}
	if acked != 40 || failed != 960 || longest > 1400+PacketOverhead {
		t.Errorf("%d nodes confirmed, %d failed, longest packet %d", acked, failed, longest)
	}
}

// Answers to the application's requests carry its payload, or are declined.
func TestAnswers(t *testing.T) {
	l := newLAN(t, 53, 2, func(_ *SenderConfig, r *ReceiverConfig) {
		node := r.Node
		r.Answer = func(q AckQuery) ([]byte, bool) {
			return fmt.Appendf(nil, "%d says %d", node, q.AckID), q.AckID != 9 || node == 1001
		}
	})
	l.loss, l.feedback = 0.2, 0.2
	for _, id := range []uint8{5, 9} {
		if err := l.sender.RequestAck(200, id, []NodeID{1001, 1002}); err != nil {
			t.Fatal(err)
		}
	}
	if l.sender.RequestAck(AckFlush, 1, nil) == nil {
		t.Error("a request of the protocol's own type was taken")
	}
	l.run(t, time.Minute, func() bool { return len(l.sender.queries) == 0 })
	got := map[string]bool{}
	for _, e := range l.events {
		got[fmt.Sprintf("%d %d %s", e.Node, e.AckID, e.Payload)] = e.Kind == NodeReplied
	}
	for key, replied := range map[string]bool{"1001 5 1001 says 5": true, "1002 5 1002 says 5": true, "1001 9 1001 says 9": true, "1002 9 ": false} {
		if r, ok := got[key]; !ok || r != replied {
			t.Errorf("%q: replied %v, want %v; all: %v", key, r, replied, got)
		}
	}
}

// A late joiner that only wants what is still to come asks for nothing before
// it, and tells what is open.
func TestSyncHere(t *testing.T) {
	for name, depth := range map[string]int{"plain": 1, "interleaved": 8} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t, 54, 2, func(s *SenderConfig, r *ReceiverConfig) {
				s.Interleave = depth
				if r.Node == 1002 {
					r.Sync = SyncHere
				}
			})
			l.loss, l.feedback = 0.05, 0.05
			_, content := l.add(t, 4<<20)
			second, other := l.add(t, 300_000)
			late := l.hosts[1]
			late.from = l.now.Add(150 * time.Millisecond) // of about 350
			l.log = func(from int, pkt []byte, _ bool) {
				if m, _ := Parse(pkt); from == 1 && m != nil {
					if nack, ok := m.(*Nack); ok {
						for q := range nack.Requests.All() {
							if q.First.Object == 0 && int64(q.First.Block)*64*1400 < 1<<20 && q.Level&LevelInfo == 0 {
								t.Errorf("asks for block %d", q.First.Block)
							}
						}
					}
				}
			}
			l.run(t, time.Minute, func() bool {
				return l.hosts[0].count(ObjectComplete) == 2 && late.count(ObjectComplete) == 1 && late.count(ObjectAbandoned) == 1
			})
			for _, e := range late.events {
				if e.Kind == ObjectAbandoned {
					if !errors.Is(e.Err, ErrJoinedLate) || len(e.Missing) == 0 || e.Missing[0].Start != 0 {
						t.Errorf("abandoned with %v, missing %v", e.Err, e.Missing)
					}
					checkMissing(t, late.files[e.Key], content, e.Missing)
				}
				if e.Kind == ObjectComplete && e.Key.Object != second {
					t.Errorf("object %d complete", e.Key.Object)
				}
			}
			l.same(t, second, other)
		})
	}
}
