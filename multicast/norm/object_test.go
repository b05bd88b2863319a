package norm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// fec_id 129 is the same code with other field widths.
func TestSmallBlockScheme(t *testing.T) {
	l := newLAN(t, 41, 2, nil)
	content := randomBytes(1, 100_000)
	if _, err := l.sender.Add(Object{Content: content, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	part := l.sender.objects[0].part
	r, files := plainReceiver(t, 1<<20)
	var asked []Request
	now := l.now
	hear := func(m Message) {
		if m, ok := m.(*Data); ok {
			m.FEC, m.BlockLen = FECSmallBlock, uint16(part.Len(int64(m.Block)))
			m.Ext = Extensions{extFTI, 4, 0, 0, 0, 1, 0x86, 0xa0, 0, 0, 5, 120, 0, 64, 0, 16} // 100,000 bytes, 1400, 64, 16
			if m.Flags&FlagRepair == 0 && m.Symbol < 5 {
				return
			}
		}
		r.Handle(now, senderAddr, m.Append(nil))
	}
	for range 3000 {
		pkt := l.sender.Poll(now, nil)
		if len(pkt) == 0 {
			now = now.Add(time.Millisecond)
		} else if m, err := Parse(pkt); err != nil {
			t.Fatal(err)
		} else {
			hear(m)
		}
		out, _ := r.Poll(now, nil)
		if len(out) == 0 {
			continue
		}
		if m, _ := Parse(out); m != nil {
			if nack, ok := m.(*Nack); ok {
				for q := range nack.Requests.All() {
					asked = append(asked, q)
				}
			}
		}
		l.sender.Handle(now, out, false)
	}
	if string(files[ObjectKey{1, l.sender.Instance(), 0}]) != string(content) {
		t.Error("the object differs")
	}
	if len(asked) == 0 || asked[0].FEC != FECSmallBlock || int(asked[0].BlockLen) != part.Len(0) {
		t.Errorf("asked %+v", asked)
	}
}

// failing is a Sink that cannot be used any more after some writes.
type failing struct {
	memory
	writes int
}

var errDisk = errors.New("disk full")

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.writes--; f.writes < 0 {
		return 0, errDisk
	}
	return f.memory.WriteAt(p, off)
}

func TestSinkFails(t *testing.T) {
	l := newLAN(t, 42, 1, func(_ *SenderConfig, r *ReceiverConfig) {
		r.Accept = func(o Offer) (Sink, error) { return &failing{make(memory, o.Size), 100}, nil }
	})
	l.add(t, 300_000)
	l.run(t, time.Minute, func() bool { return l.has(Flushed) })
	h := l.hosts[0]
	if h.count(ObjectAbandoned) != 1 || h.count(ObjectComplete) != 0 {
		t.Fatalf("events %+v", h.events)
	}
	for _, e := range h.events {
		if e.Kind == ObjectAbandoned && !errors.Is(e.Err, errDisk) {
			t.Errorf("abandoned with %v", e.Err)
		}
	}
	if n := h.r.Stats().Nacks; n > 0 {
		t.Errorf("%d NACKs for an object given up", n)
	}
}

// Missing follows what is written; an object abandoned on request is let be.
func TestMissingAndAbandon(t *testing.T) {
	l := newLAN(t, 43, 1, nil)
	l.loss = 0.2
	_, content := l.add(t, 500_000)
	l.run(t, time.Minute, func() bool { return l.packets > 200 })
	h := l.hosts[0]
	key := ObjectKey{1, l.sender.Instance(), 0}
	missing, ok := h.r.Missing(key)
	if !ok || len(missing) == 0 {
		t.Fatalf("missing %v, %v", missing, ok)
	}
	checkMissing(t, h.files[key], content, missing)
	h.r.Abandon(key)
	if _, ok := h.r.Missing(key); ok {
		t.Error("still in work after Abandon")
	}
	nacks := h.r.Stats().Nacks
	l.run(t, time.Minute, func() bool { return l.has(Flushed) })
	if h.r.Stats().Nacks != nacks || h.count(ObjectAbandoned) != 0 || h.r.Stats().ParityBytes != 0 {
		t.Errorf("work goes on after Abandon: %+v", h.r.Stats())
	}
	checkMissing(t, h.files[key], content, missing)
}

// An object far behind the newest one is given up.
func TestWindowOfObjects(t *testing.T) {
	r, _ := plainReceiver(t, 1<<20)
	r.cfg.MaxObjects = 4
	for _, id := range []ObjectID{65534, 1, 2, 20000} {
		d := Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon, Payload: []byte("0123456789")}
		d.Ext = d.Ext.AppendFTI(FTI{25, 10, 3, 2})
		d.Object = id
		r.Handle(time.Unix(1_700_000_000, 0), senderAddr, d.Append(nil))
	}
	var got []string
	for _, e := range r.Events() {
		if e.Kind == ObjectAbandoned {
			got = append(got, fmt.Sprint(e.Key.Object))
		}
	}
	if fmt.Sprint(got) != "[65534 1 2]" {
		t.Errorf("abandoned %v", got)
	}
}

func TestConfigsReportEveryFault(t *testing.T) {
	source := rand.NewPCG(1, 1)
	for _, c := range []struct {
		err   error
		parts int
	}{
		{SenderConfig{Node: 1, Rand: source}.Validate(), 0},
		{SenderConfig{Node: 1, Rand: source, Parity: -1, Backoff: -1, K: 254}.Validate(), 0},
		{SenderConfig{}.Validate(), 2},
		{SenderConfig{
			Node: NodeAny, Rand: source, SegmentSize: 9000, K: 300, AutoParity: 300, Backoff: 16, GroupSize: -2, Robust: 201, Rate: 1,
			RepairRounds: -3, RepairBytes: -1, ParityCache: -3, MaxReceivers: -4, GRTTMin: time.Hour, GRTT: -1, Auth: macAuth{},
		}.Validate(), 15},
		{ReceiverConfig{Node: 1, Rand: source, Accept: func(Offer) (Sink, error) { return nil, nil }}.Validate(), 0},
		{ReceiverConfig{Sync: 9, MaxObjectSize: -1, NackRounds: -1, MaxSenders: 5000, MaxObjects: 1 << 15, MaxBlocks: -1, MaxParityBytes: -1, MaxSegmentSize: 1, Robust: 1000}.Validate(), 12},
	} {
		n := 0
		if joined, ok := c.err.(interface{ Unwrap() []error }); ok {
			n = len(joined.Unwrap())
		}
		if n != c.parts {
			t.Errorf("%d faults, want %d: %v", n, c.parts, c.err)
		}
	}
	if _, err := NewSender(SenderConfig{}); err == nil {
		t.Error("a sender without node id was made")
	}
	if _, err := NewReceiver(ReceiverConfig{}); err == nil {
		t.Error("a receiver without node id was made")
	}
}

func TestBadObjectsAreRefused(t *testing.T) {
	s, err := NewSender(SenderConfig{Node: 1, Rand: rand.NewPCG(1, 1), SegmentSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Object{
		"no content":   {Size: 1},
		"no size":      {Content: memory{}},
		"too large":    {Content: memory{}, Size: 1 << 48},
		"many blocks":  {Content: memory{}, Size: 1 << 40},
		"long info":    {Content: memory{}, Size: 1, Info: make([]byte, 81)},
		"negative":     {Content: memory{}, Size: -1},
		"empty object": {Content: memory{}, Size: 0},
	} {
		if _, err := s.Add(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := s.Watermark(3, []NodeID{1}); err == nil {
		t.Error("watermark on an unknown object")
	}
}

// With hardly any room for parity, and for blocks, a transfer is slow but ends.
func TestTightMemory(t *testing.T) {
	l := newLAN(t, 44, 2, func(_ *SenderConfig, r *ReceiverConfig) {
		r.MaxParityBytes, r.MaxBlocks = 40*1408, 10
	})
	l.loss = 0.25
	id, content := l.add(t, 4<<20)
	l.run(t, 5*time.Minute, l.complete(1))
	l.same(t, id, content)
	t.Logf("wire %.2f", float64(l.wire)/float64(len(content)))
}

// A sender that was only silent is followed again when it comes back.
func TestSilentSenderComesBack(t *testing.T) {
	r, files := plainReceiver(t, 1<<20)
	now := time.Unix(1_700_000_000, 0)
	d := Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon, Payload: []byte("0123456789")}
	d.Ext = d.Ext.AppendFTI(FTI{20, 10, 3, 2})
	r.Handle(now, senderAddr, d.Append(nil))
	for range 1000 {
		now = now.Add(time.Second)
		r.Poll(now, nil)
	}
	for i := range 2 {
		d.Symbol = uint16(i)
		r.Handle(now, senderAddr, d.Append(nil))
	}
	var kinds []ReceiverEventKind
	for _, e := range r.Events() {
		kinds = append(kinds, e.Kind)
	}
	want := []ReceiverEventKind{SenderFound, ObjectStarted, ObjectAbandoned, SenderGone, SenderFound, ObjectStarted, ObjectComplete}
	if fmt.Sprint(kinds) != fmt.Sprint(want) || string(files[ObjectKey{1, 5, 0}]) != "01234567890123456789" {
		t.Errorf("events %v, want %v", kinds, want)
	}
}

// When the newest object is dropped, an older one is still flushed.
func TestFlushAfterDrop(t *testing.T) {
	l := newLAN(t, 45, 1, nil)
	id, content := l.add(t, 100_000)
	newest, _ := l.add(t, 100_000)
	l.lose = func(_ int, pkt []byte) bool { m, err := Parse(pkt); return err == nil && name(m) == "DATA 0:1:3" }
	l.run(t, time.Minute, func() bool { return l.has(ObjectSent) })
	l.sender.Drop(newest)
	l.run(t, time.Minute, l.complete(1))
	l.same(t, id, content)
}
