package norm

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"
)

// What libnorm 1.5.9 sends of an empty file named "empty", with a watermark for
// node 1001: INFO is all of it, and is confirmed at the position libnorm gives.
func TestEmptyFileOfLibnorm(t *testing.T) {
	complete := false
	r, err := NewReceiver(ReceiverConfig{Node: 1001, Rand: rand.NewPCG(1, 1), Accept: func(o Offer) (Sink, error) {
		if o.Size != 0 || !o.HasInfo {
			t.Errorf("offer %+v", o)
		}
		return memory{}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	for _, msg := range []string{
		"110700020000004d0005744214050000400300000000000005784010656d707479",
		"130500070000004d0005744201050000ffffffff000003e9",
	} {
		pkt, err := hex.DecodeString(msg)
		if err != nil {
			t.Fatal(err)
		}
		r.Handle(now, senderAddr, pkt)
	}
	for _, e := range r.Events() {
		complete = complete || e.Kind == ObjectComplete && string(e.Info) == "empty"
	}
	out, _ := r.Poll(now.Add(time.Second), nil)
	m, err := Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	if ack, ok := m.(*Ack); !ok || hex.EncodeToString(ack.Payload) != "05000000ffffffff" || !complete {
		t.Errorf("complete %v, answer %+v", complete, m)
	}
}

// A forged depth of interleaving is refused before anything is made of it.
func TestForgedInterleaving(t *testing.T) {
	r, files := plainReceiver(t, 1<<20)
	for i, depth := range []uint16{0, 4097, 65535, 7} {
		d := Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon, Position: Position{Object: ObjectID(i)}, Payload: []byte("0123456789")}
		d.Ext = d.Ext.AppendFTI(FTI{1000, 10, 3, 2}).AppendInterleave(depth)
		r.Handle(time.Unix(1_700_000_000, 0), senderAddr, d.Append(nil))
	}
	if len(files) != 1 || files[ObjectKey{1, 5, 3}] == nil {
		t.Errorf("%d objects accepted", len(files))
	}
	if missing, ok := r.Missing(ObjectKey{1, 5, 3}); !ok || len(missing) != 1 || missing[0] != (Range{10, 1000}) {
		t.Errorf("missing %v", missing)
	}
}

// A packet of the first pass costs no allocation, on either side.
func TestPacketsAreNotAllocatedFor(t *testing.T) {
	content := randomBytes(1, 4<<20)
	s, err := NewSender(SenderConfig{Node: 1, Rand: rand.NewPCG(1, 1), K: 180, Parity: 75, Interleave: 8})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(Object{Content: content, Size: int64(len(content)), Info: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	r, err := NewReceiver(ReceiverConfig{Node: 9, Rand: rand.NewPCG(1, 1), Accept: func(Offer) (Sink, error) { return nowhere{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	buf := make([]byte, 0, 2048)
	step := func() {
		now = now.Add(100 * time.Microsecond)
		buf = s.Poll(now, buf[:0])
		r.Handle(now, senderAddr, buf)
	}
	for range 100 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n > 0 {
		t.Errorf("%.2f allocations a packet", n)
	}
}
