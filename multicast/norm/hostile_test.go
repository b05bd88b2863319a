package norm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// mutate changes some bytes of a packet, or cuts it.
func mutate(rng *rand.Rand, pkt []byte) []byte {
	b := bytes.Clone(pkt)
	for range 1 + rng.IntN(4) {
		b[rng.IntN(min(len(b), 40))] = byte(rng.Uint32())
	}
	if rng.IntN(4) == 0 {
		b = b[:rng.IntN(len(b)+1)]
	}
	return b
}

// In the plain mode anybody can spoil a transfer, but nothing more: whatever
// comes, nothing panics, memory keeps to the limits and no more than what was
// accepted is written. The Sinks themselves refuse writes beyond the size.
func TestHostilePackets(t *testing.T) {
	const seeds = 3
	for seed := range uint64(seeds) {
		rng := rand.New(rand.NewPCG(seed, 99))
		accepted := 0
		l := newLAN(t, seed, 2, func(s *SenderConfig, r *ReceiverConfig) {
			accept := r.Accept
			r.Accept = func(o Offer) (Sink, error) {
				if o.Size > 1<<20 {
					return nil, errors.New("too large")
				}
				accepted++
				return accept(o)
			}
			r.MaxBlocks, r.MaxParityBytes, r.MaxObjects, r.MaxSenders = 50, 64<<10, 64, 4
			s.MaxReceivers, s.ParityCache = 10, 100<<10
			s.RepairBytes = 4 << 20
		})
		l.loss = 0.1
		var heard [][]byte
		l.tap = func(pkt []byte) []byte {
			heard = append(heard, pkt)
			for i := range l.hosts {
				l.fly(i, mutate(rng, heard[rng.IntN(len(heard))]), false)
			}
			for range 2 {
				nack := messages()[10].(*Nack)
				nack.Source, nack.Sender, nack.Instance = NodeID(rng.Uint32()|1), 1, l.sender.Instance()
				w := requestWriter{limit: 600}
				for !w.full() {
					first := Position{ObjectID(rng.IntN(4)), uint32(rng.IntN(1<<24)) >> rng.IntN(24), uint16(rng.IntN(256))}
					last := Position{first.Object + ObjectID(rng.IntN(2)*60000), 1<<24 - 1, 255}
					w.add(byte(rng.IntN(16)), FECReedSolomon, first, last, 0)
				}
				nack.Requests = w.out
				b := nack.Append(nil)
				l.fly(-1, b, rng.IntN(2) == 0)
				l.fly(-1, mutate(rng, b), true)
				l.fly(rng.IntN(2), b, false)
			}
			return pkt
		}
		l.add(t, 300_000)
		l.add(t, 100_000)
		for range 1500 {
			l.step()
			for _, h := range l.hosts {
				for _, s := range h.r.sources {
					if s.blocks > 50 || s.parityBytes > 64<<10 || len(s.objects) > 65 || s.parityBytes < 0 || s.blocks < 0 {
						t.Fatalf("seed %d: a source holds %d blocks, %d bytes of parity, %d objects", seed, s.blocks, s.parityBytes, len(s.objects))
					}
				}
				if len(h.r.sources) > 4 {
					t.Fatalf("seed %d: %d senders", seed, len(h.r.sources))
				}
			}
			if len(l.sender.receivers) > 10 || l.sender.parity.used > 100<<10+8*1408 || len(l.sender.repair.history) > maxRepairBlocks {
				t.Fatalf("seed %d: sender holds %d receivers, %d bytes of parity", seed, len(l.sender.receivers), l.sender.parity.used)
			}
		}
		var rejected uint64
		for _, h := range l.hosts {
			rejected += h.r.Stats().Rejected
		}
		if rejected == 0 || accepted == 0 {
			t.Errorf("seed %d: %d packets rejected, %d objects accepted", seed, rejected, accepted)
		}
	}
}

// plainReceiver is one that accepts everything up to a size.
func plainReceiver(t testing.TB, limit int64) (*Receiver, map[ObjectKey]memory) {
	t.Helper()
	files := map[ObjectKey]memory{}
	r, err := NewReceiver(ReceiverConfig{Node: 9, Rand: rand.NewPCG(1, 1), MaxObjectSize: limit, Accept: func(o Offer) (Sink, error) {
		files[o.Key] = make(memory, o.Size)
		return files[o.Key], nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r, files
}

// What a forged FTI says is refused before anything is allocated for it; one
// that changes is rejected and the object goes on as it began.
func TestForgedFTI(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	data := func(object ObjectID, f FTI) *Data {
		d := &Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon, Position: Position{Object: object}, Payload: []byte("x")}
		d.Ext = d.Ext.AppendFTI(f)
		return d
	}
	r, files := plainReceiver(t, 1<<20)
	for i, f := range []FTI{
		{0, 1400, 64, 16},
		{1<<20 + 1, 1400, 64, 16},
		{maxObjectSize, 1, 1, 1},
		{100, 0, 64, 16},
		{100, 9000, 64, 16},
		{100, 1400, 0, 16},
		{100, 1400, 200, 56},
		{100, 1400, 255, 1},
	} {
		r.Handle(at, senderAddr, data(ObjectID(i), f).Append(nil))
		ev := r.Events()
		if len(ev) == 0 || ev[len(ev)-1].Kind != ObjectRefused || ev[len(ev)-1].Err == nil {
			t.Errorf("FTI %+v: events %+v", f, ev)
		}
	}
	if len(files) > 0 {
		t.Errorf("%d objects accepted", len(files))
	}
	good := FTI{3, 1, 3, 1}
	for i, f := range []FTI{good, {2, 1, 3, 1}, {3, 2, 3, 1}, {3, 1, 2, 1}, {3, 1, 3, 2}, good, good} {
		d := data(100, f)
		d.Symbol = uint16(max(i-4, 0))
		d.Payload = []byte{"a1234bc"[i]}
		r.Handle(at, senderAddr, d.Append(nil))
	}
	if got := files[ObjectKey{1, 5, 100}]; string(got) != "abc" || r.Stats().Rejected != 4 {
		t.Errorf("got %q, %d rejected", got, r.Stats().Rejected)
	}
}

// Symbols that do not fit their place are rejected.
func TestForgedSymbols(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	r, files := plainReceiver(t, 1<<20)
	base := Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon}
	base.Ext = base.Ext.AppendFTI(FTI{25, 10, 3, 2})
	base.Payload = []byte("0123456789")
	r.Handle(at, senderAddr, base.Append(nil))
	for name, edit := range map[string]func(d *Data){
		"block beyond":     func(d *Data) { d.Block = 1 },
		"symbol beyond":    func(d *Data) { d.Symbol = 5 },
		"short symbol":     func(d *Data) { d.Symbol, d.Payload = 1, d.Payload[:9] },
		"long last symbol": func(d *Data) { d.Symbol = 2 },
		"long parity":      func(d *Data) { d.Symbol, d.Payload = 3, append(d.Payload, 1) },
		"other scheme":     func(d *Data) { d.FEC, d.Ext = FECSmallBlock, nil },
	} {
		d := base
		d.Payload = bytes.Clone(base.Payload)
		edit(&d)
		before := r.Stats()
		r.Handle(at, senderAddr, d.Append(nil))
		if after := r.Stats(); after.Rejected != before.Rejected+1 || after.Symbols != before.Symbols {
			t.Errorf("%s: %+v", name, after)
		}
	}
	want := append([]byte("0123456789"), make([]byte, 15)...)
	if !bytes.Equal(files[ObjectKey{1, 5, 0}], want) {
		t.Errorf("written %q", files[ObjectKey{1, 5, 0}])
	}
}

// A new instance takes the place of the old one; what was open is abandoned.
func TestNewInstance(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	r, _ := plainReceiver(t, 1<<20)
	d := Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon, Payload: []byte("0123456789")}
	d.Ext = d.Ext.AppendFTI(FTI{25, 10, 3, 2})
	r.Handle(at, senderAddr, d.Append(nil))
	d.Instance = 6
	r.Handle(at, senderAddr, d.Append(nil))
	var kinds []ReceiverEventKind
	for _, e := range r.Events() {
		kinds = append(kinds, e.Kind)
		if e.Kind == ObjectAbandoned && (len(e.Missing) != 1 || e.Missing[0] != (Range{10, 25}) || !errors.Is(e.Err, errReplaced)) {
			t.Errorf("abandoned: %+v", e)
		}
	}
	want := []ReceiverEventKind{SenderFound, ObjectStarted, ObjectAbandoned, SenderGone, SenderFound, ObjectStarted}
	if len(kinds) != len(want) {
		t.Fatalf("events %v, want %v", kinds, want)
	}
	for i := range want {
		if kinds[i] != want[i] {
			t.Fatalf("events %v, want %v", kinds, want)
		}
	}
}

// A sender that falls silent is asked in vain for a while, then gone.
func TestSilentSender(t *testing.T) {
	l := newLAN(t, 33, 1, func(_ *SenderConfig, r *ReceiverConfig) { r.Robust = 3 })
	l.loss = 0.2
	l.add(t, 300_000)
	l.run(t, time.Minute, func() bool { return l.has(ObjectSent) })
	h := l.hosts[0]
	nacks := h.r.Stats().Nacks
	for now := l.now; h.count(SenderGone) == 0; {
		now = h.r.Wake(now)
		if now.IsZero() || now.After(l.now.Add(time.Minute)) {
			t.Fatal("the silent sender is waited for without end")
		}
		h.r.Poll(now, nil)
		h.events = append(h.events, h.r.Events()...)
	}
	if h.r.Stats().Nacks == nacks || h.count(ObjectAbandoned) != 1 {
		t.Errorf("%d NACKs into the silence; events %+v", h.r.Stats().Nacks-nacks, h.events)
	}
	if !h.r.Wake(l.now).IsZero() {
		t.Error("a receiver without senders wants to be woken")
	}
}

func FuzzReceiver(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.Append(nil), m.Append(nil))
	}
	all := readCapture(f, "nsmall")
	for i := range all {
		f.Add(all[i].msg, all[(i+1)%len(all)].msg)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r, _ := plainReceiver(t, 1<<20)
		now := time.Unix(1_700_000_000, 0)
		for _, pkt := range [][]byte{a, b, a} {
			r.Handle(now, netip.AddrPort{}, pkt)
			now = now.Add(100 * time.Millisecond)
			for range 10 {
				if out, _ := r.Poll(now, nil); len(out) == 0 {
					break
				} else if _, err := Parse(out); err != nil {
					t.Fatalf("sent what does not parse: %v", err)
				}
			}
			r.Wake(now)
		}
	})
}

func FuzzSender(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.Append(nil))
	}
	for _, c := range readCapture(f, "nsmall") {
		f.Add(c.msg)
	}
	content := randomBytes(1, 50_000)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		s, err := NewSender(SenderConfig{Node: 42, Instance: 99, Rand: rand.NewPCG(1, 1), SegmentSize: 100})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Add(Object{Content: content, Size: int64(len(content)), Info: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1_700_000_000, 0)
		for range 300 {
			s.Poll(now, nil)
		}
		s.Handle(now, pkt, true)
		for range 50 {
			now = now.Add(10 * time.Millisecond)
			if out := s.Poll(now, nil); len(out) > 0 {
				if _, err := Parse(out); err != nil {
					t.Fatalf("sent what does not parse: %v", err)
				}
			}
		}
	})
}
