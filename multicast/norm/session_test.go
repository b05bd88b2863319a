package norm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// add queues random content of a size and gives its id and bytes.
func (l *lan) add(t testing.TB, size int) (ObjectID, memory) {
	t.Helper()
	content := randomBytes(uint64(size), size)
	id, err := l.sender.Add(Object{Content: content, Size: int64(size), Info: fmt.Appendf(nil, "object of %d", size)})
	if err != nil {
		t.Fatal(err)
	}
	return id, content
}

// Many objects of awkward sizes in one session, all confirmed by watermark.
func TestManyObjectsAndWatermark(t *testing.T) {
	l := newLAN(t, 3, 3, nil)
	l.loss, l.feedback = 0.1, 0.1
	want := map[ObjectID]memory{}
	var last ObjectID
	for _, size := range []int{1, 1399, 1400, 1401, 64 * 1400, 64*1400 + 1, 300_007, 2, 3} {
		id, content := l.add(t, size)
		want[id], last = content, id
	}
	nodes := []NodeID{1001, 1002, 1003, 4711}
	if err := l.sender.Watermark(last, nodes); err != nil {
		t.Fatal(err)
	}
	l.run(t, time.Minute, func() bool { return l.has(Flushed) && l.complete(len(want))() && !l.sender.watermark.roll.open() })
	for id, content := range want {
		l.same(t, id, content)
	}
	verdict := map[NodeID]SenderEventKind{}
	for _, e := range l.events {
		if e.Node != 0 {
			verdict[e.Node] = e.Kind
		}
	}
	for _, n := range nodes {
		wanted := NodeAcked
		if n == 4711 {
			wanted = NodeFailed
		}
		if verdict[n] != wanted {
			t.Errorf("node %d: event %d, want %d", n, verdict[n], wanted)
		}
	}
	for i, h := range l.hosts {
		if h.count(ObjectStarted) != len(want) || h.count(SenderFound) != 1 || h.count(ObjectAbandoned) != 0 {
			t.Errorf("host %d: events %+v", i, h.events)
		}
		for _, e := range h.events {
			if e.Kind == ObjectComplete && string(e.Info) != fmt.Sprintf("object of %d", len(want[e.Key.Object])) {
				t.Errorf("host %d: object %d has information %q", i, e.Key.Object, e.Info)
			}
		}
	}
}

// The wrap of object ids disturbs nothing.
func TestObjectIDsWrap(t *testing.T) {
	l := newLAN(t, 4, 2, nil)
	l.loss = 0.1
	l.sender.oldest, l.sender.next, l.sender.pass.Object = 65534, 65534, 65534
	var contents []memory
	for range 4 {
		_, content := l.add(t, 100_000)
		contents = append(contents, content)
	}
	l.run(t, time.Minute, l.complete(4))
	for i, content := range contents {
		l.same(t, ObjectID(65534+i), content)
	}
}

// A receiver that comes when 60 % are over gets the whole object.
func TestLateJoin(t *testing.T) {
	l := newLAN(t, 5, 3, nil)
	l.loss = 0.05
	id, content := l.add(t, 2<<20)
	l.hosts[2].from = l.now.Add(time.Duration(0.6 * float64(len(content)) / l.rate * 1e9))
	l.run(t, time.Minute, l.complete(1))
	l.same(t, id, content)
	t.Logf("wire %.3f", float64(l.wire)/float64(len(content)))
}

// What is asked for after it was dropped is squelched, and given up.
func TestSquelch(t *testing.T) {
	l := newLAN(t, 6, 2, nil)
	first, _ := l.add(t, 500_000)
	second, content := l.add(t, 100_000)
	l.loss = 0.3
	l.run(t, time.Minute, func() bool { return l.has(ObjectSent) })
	l.sender.Drop(first)
	l.loss = 0
	l.run(t, time.Minute, func() bool {
		return l.complete(1)() && l.hosts[0].count(ObjectAbandoned) == 1 && l.hosts[1].count(ObjectAbandoned) == 1
	})
	l.same(t, second, content)
	if l.sender.Stats().Squelches == 0 {
		t.Error("nothing was squelched")
	}
	for _, e := range l.hosts[0].events {
		if e.Kind == ObjectAbandoned && (!errors.Is(e.Err, errSquelch) || len(e.Missing) == 0) {
			t.Errorf("abandoned with %v, missing %v", e.Err, e.Missing)
		}
	}
}

// Close tells the receivers; what is open is abandoned with what it misses.
func TestClose(t *testing.T) {
	l := newLAN(t, 7, 2, nil)
	l.loss = 0.2
	_, content := l.add(t, 1<<20)
	l.run(t, time.Minute, func() bool { return l.packets > 300 })
	l.sender.Close()
	l.run(t, time.Minute, func() bool { return l.has(Closed) })
	l.run(t, time.Minute, func() bool { return l.hosts[0].count(SenderGone) == 1 && l.hosts[1].count(SenderGone) == 1 })
	for i, h := range l.hosts {
		at := slices.IndexFunc(h.events, func(e ReceiverEvent) bool { return e.Kind == ObjectAbandoned })
		if at < 0 {
			t.Fatalf("host %d: no object abandoned", i)
		}
		checkMissing(t, h.files[h.events[at].Key], content, h.events[at].Missing)
	}
	if out := l.sender.Poll(l.now.Add(time.Hour), nil); len(out) > 0 {
		t.Errorf("sends %x after the end", out)
	}
	if _, err := l.sender.Add(Object{Content: content, Size: 1}); err == nil {
		t.Error("added an object after the end")
	}
}

// checkMissing proves that the ranges are exactly what was not written: the
// file is zero there, and as sent elsewhere.
func checkMissing(t *testing.T, file, content memory, missing []Range) {
	t.Helper()
	want := bytes.Clone(content)
	for _, m := range missing {
		clear(want[m.Start:m.End])
	}
	if !bytes.Equal(file, want) {
		t.Errorf("missing ranges %v do not tell what was written", missing)
	}
}

// With limited repair what is left open is said on both sides, for another
// way to bring it.
func TestHybridRepair(t *testing.T) {
	l := newLAN(t, 8, 4, func(s *SenderConfig, r *ReceiverConfig) {
		s.RepairRounds, r.NackRounds = 1, 2
	})
	l.loss = 0.35
	_, content := l.add(t, 1<<20)
	l.run(t, time.Minute, func() bool {
		for _, h := range l.hosts {
			if h.count(ObjectAbandoned)+h.count(ObjectComplete) == 0 {
				return false
			}
		}
		return true
	})
	open := 0
	for _, h := range l.hosts {
		for _, e := range h.events {
			if e.Kind == ObjectAbandoned {
				open++
				checkMissing(t, h.files[e.Key], content, e.Missing)
				if !errors.Is(e.Err, errRounds) {
					t.Errorf("abandoned with %v", e.Err)
				}
			}
		}
	}
	if open == 0 || !l.has(RepairsSpent) {
		t.Errorf("%d objects left open, spent %v", open, l.has(RepairsSpent))
	}
}

func TestRepairBytesAreLimited(t *testing.T) {
	l := newLAN(t, 9, 2, func(s *SenderConfig, _ *ReceiverConfig) { s.RepairBytes = 20_000 })
	l.loss = 0.3
	l.add(t, 1<<20)
	l.run(t, time.Minute, func() bool { return l.has(RepairsSpent) && l.has(Flushed) })
	if n := l.sender.Stats().RepairBytes; n < 20_000 || n > 20_000+1500 {
		t.Errorf("%d bytes of repair", n)
	}
}

// A silent receiver lives on proactive parity.
func TestAutoParityServesSilentReceivers(t *testing.T) {
	l := newLAN(t, 10, 3, func(s *SenderConfig, r *ReceiverConfig) {
		s.AutoParity, r.Silent = 16, true
	})
	l.loss = 0.05
	id, content := l.add(t, 1<<20)
	l.run(t, time.Minute, func() bool { return l.has(Flushed) })
	l.same(t, id, content)
	for _, h := range l.hosts {
		if st := h.r.Stats(); st.Nacks+st.Acks > 0 || h.count(ObjectComplete) != 1 {
			t.Errorf("silent receiver: %+v", st)
		}
	}
}

// FTI in INFO only, and a receiver that will not begin without the INFO.
func TestInfoOnlyFTI(t *testing.T) {
	l := newLAN(t, 11, 3, func(s *SenderConfig, r *ReceiverConfig) {
		s.FTIInInfoOnly = true
		accept := r.Accept
		r.Accept = func(o Offer) (Sink, error) {
			if o.Info == nil {
				return nil, ErrNeedInfo
			}
			return accept(o)
		}
	})
	l.loss, l.feedback = 0.3, 0.3
	id, content := l.add(t, 500_000)
	l.run(t, time.Minute, l.complete(1))
	l.same(t, id, content)
}

// A file without INFO needs none.
func TestObjectWithoutInfo(t *testing.T) {
	l := newLAN(t, 12, 2, nil)
	l.loss = 0.1
	content := randomBytes(1, 200_000)
	id, err := l.sender.Add(Object{Content: content, Size: int64(len(content))})
	if err != nil {
		t.Fatal(err)
	}
	l.run(t, time.Minute, l.complete(1))
	l.same(t, id, content)
}

// An unreadable content is dropped; the next object is sent all the same.
func TestContentFails(t *testing.T) {
	l := newLAN(t, 13, 1, nil)
	content := randomBytes(1, 300_000)
	bad, err := l.sender.Add(Object{Content: content[:200_000], Size: 300_000})
	if err != nil {
		t.Fatal(err)
	}
	good, content := l.add(t, 100_000)
	l.run(t, time.Minute, l.complete(1))
	l.same(t, good, content)
	if !l.has(ObjectFailed) || l.events[0].Object != bad || l.events[0].Err == nil {
		t.Errorf("events %+v", l.events)
	}
}

// The same seed gives the same packets at the same times.
func TestSameSeedSameTrace(t *testing.T) {
	trace := func(seed uint64) uint64 {
		l := newLAN(t, seed, 4, nil)
		l.loss, l.feedback = 0.1, 0.1
		l.add(t, 300_000)
		l.add(t, 200_000)
		l.run(t, time.Minute, func() bool { return l.has(Flushed) })
		return l.trace.Sum64()
	}
	if a, b := trace(1), trace(1); a != b {
		t.Errorf("traces of one seed differ: %x, %x", a, b)
	}
	if trace(1) == trace(2) {
		t.Error("traces of different seeds are the same")
	}
}

// The sender knows the loss of each receiver, and their round trip time.
func TestReportsOfReceivers(t *testing.T) {
	l := newLAN(t, 14, 5, func(s *SenderConfig, _ *ReceiverConfig) { s.ProbeMin = 100 * time.Millisecond })
	l.loss, l.rate = 0.1, 5e6
	l.add(t, 4<<20)
	l.run(t, time.Minute, func() bool { return l.has(Flushed) })
	reports := l.sender.Receivers()
	if len(reports) != 5 {
		t.Fatalf("%d reports: %+v", len(reports), reports)
	}
	for i, r := range reports {
		if r.Node != NodeID(1001+i) || !r.HasLoss || r.Loss < 0.06 || r.Loss > 0.14 || r.Rate == 0 ||
			r.RTT < l.delay || r.RTT > 4*l.delay || r.LastAck.IsZero() {
			t.Errorf("report %+v", r)
		}
	}
	sr := l.hosts[0].r.Senders()
	if len(sr) != 1 || sr[0].Loss < 0.06 || sr[0].Loss > 0.14 || sr[0].Source != 1 || sr[0].Lost == 0 {
		t.Errorf("sender %+v", sr)
	}
}

// TestBusyHostDoesNotSlowTheGroup: a round trip time that is high once is that of
// a host that had something else to do; one that lasts is believed, and forgotten
// soon when it is over.
func TestBusyHostDoesNotSlowTheGroup(t *testing.T) {
	s, err := NewSender(SenderConfig{Node: 1, Rand: rand.NewPCG(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s.receivers[7], s.receivers[8] = &ReceiverReport{Node: 7}, &ReceiverReport{Node: 8}
	now := time.Unix(1_000_000, 0)
	for i, step := range []struct{ rtt, least, most int }{ // ms
		{5, 20, 20}, // the first guess
		{5, 10, 10},
		{900, 10, 10}, // busy
		{5, 10, 10},
		{100, 10, 10}, // is it busy again?
		{100, 70, 95}, // no
		{100, 90, 100},
		{5, 90, 100}, // what was before counts once more
		{5, 45, 50},
		{5, 20, 25},
		{5, 10, 12},
	} {
		now = now.Add(time.Second)
		s.runProbe(now, nil)
		for id, rtt := range map[NodeID]int{7: step.rtt, 8: 5} {
			for range 2 { // both packets of a NACK tell the same
				s.measure(now, id, timestamp(now.Add(-time.Duration(rtt)*time.Millisecond)), nil)
			}
		}
		if got := s.Stats().GRTT.Milliseconds(); got < int64(step.least) || got > int64(step.most) {
			t.Errorf("step %d, %d ms: GRTT is %d ms, want %d to %d", i, step.rtt, got, step.least, step.most)
		}
	}
}
