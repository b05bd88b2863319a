package norm

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// hollow is a Sink that keeps nothing.
type hollow struct{}

func (hollow) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (hollow) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }

// TestFloodTakesLittleMemory: whoever can send to the group of a plain receiver
// with the default limits cannot make it hold more than 64 MiB: not by objects,
// by NORM_INFO, by parity, by blocks, by symbols without an object, by senders or
// by instances of them.
func TestFloodTakesLittleMemory(t *testing.T) {
	const senders, count = 12, 18_000
	r, err := NewReceiver(ReceiverConfig{Node: 9, Rand: rand.NewPCG(1, 1), Accept: func(Offer) (Sink, error) { return hollow{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	before := inUse()
	rng := rand.New(rand.NewPCG(5, 5))
	now := time.Unix(1_700_000_000, 0)
	payload := make([]byte, 8000)
	var most uint64
	var pkt []byte
	for i := range count {
		now = now.Add(10 * time.Microsecond)
		head := SenderHeader{Header: Header{Source: NodeID(1 + i%senders), Sequence: uint16(i)}, Instance: uint16(i >> 13), GRTT: 100}
		object := ObjectID(rng.IntN(2000))
		if i&(1<<13-1) < senders {
			object = 0 // nobody asks for what is before the first
		}
		parity := Data{SenderHeader: head, FEC: FECReedSolomon, Flags: FlagFile, Position: Position{4000 + object%8, rng.Uint32N(1 << 19), uint16(100 + rng.IntN(99))}, Payload: payload}
		parity.Ext = parity.Ext.AppendFTI(FTI{1 << 39, uint16(len(payload)), 100, 100})
		orphan := Data{SenderHeader: head, FEC: FECReedSolomon, Flags: FlagFile | FlagInfo, Position: Position{3000 + object, 0, 0}, Payload: payload}
		ask := Nack{Header: Header{Source: 77}, Sender: head.Source, Instance: head.Instance}
		w := requestWriter{limit: 1400}
		for !w.full() {
			at := Position{4000 + object%8, rng.Uint32N(1 << 19), 0}
			w.add(LevelSegment, FECReedSolomon, at, Position{at.Object, at.Block, 199}, 0)
		}
		ask.Requests = w.out
		for _, m := range []Message{
			&Info{SenderHeader: head, FEC: FECReedSolomon, Flags: FlagFile | FlagInfo, Object: 2000 + object, Payload: payload}, &parity, &orphan, &ask,
		} {
			pkt = m.Append(pkt[:0])
			r.Handle(now, senderAddr, pkt)
		}
		r.Events()
		if i%(count/6) == count/6-1 {
			most = max(most, inUse())
		}
	}
	taken, verdict := float64(most-min(before, most))/(1<<20), "ok"
	if taken > 64 {
		verdict = "short"
		t.Errorf("the flood takes %.1f MiB, want at most 64", taken)
	}
	t.Logf("figure: norm flood of forged messages, plain mode: %.1f MiB (bound 64): %s", taken, verdict)
	if st := r.Stats(); st.Packets == 0 || st.ParityBytes == 0 {
		t.Errorf("the flood did not reach its goal: %+v", st)
	}
	runtime.KeepAlive(r)
}

// inUse is the bytes of the heap that are in use.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
