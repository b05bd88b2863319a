package norm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// What a 64 MiB object costs on the wire, and how long it takes beyond its
// bytes: the figures of notes on libnorm at full size.
func BenchmarkTransfer(b *testing.B) {
	for _, c := range []struct {
		receivers, k, parity int
		loss                 float64
	}{
		{1, 64, 16, 0}, {1, 64, 16, 0.05}, {8, 64, 16, 0.05}, {8, 200, 40, 0.05}, {8, 64, 32, 0.2}, {32, 64, 16, 0.05}, {32, 200, 55, 0.05},
	} {
		b.Run(fmt.Sprintf("receivers%d_k%d_r%d_loss%g", c.receivers, c.k, c.parity, c.loss), func(b *testing.B) {
			for b.Loop() {
				l := newLAN(b, 1, c.receivers, func(s *SenderConfig, _ *ReceiverConfig) { s.K, s.Parity = c.k, c.parity })
				l.loss, l.feedback, l.rate = c.loss, c.loss, 25e6
				content := randomBytes(1, 64<<20)
				if _, err := l.sender.Add(Object{Content: content, Size: int64(len(content)), Info: []byte("file")}); err != nil {
					b.Fatal(err)
				}
				start := l.now
				l.run(b, time.Minute, l.complete(1))
				b.ReportMetric(float64(l.wire)/float64(len(content)), "wire/file")
				b.ReportMetric(l.now.Sub(start).Seconds()*l.rate/float64(l.wire), "time/wire")
				b.ReportMetric(float64(l.sender.Stats().Nacks), "nacks")
			}
		})
	}
}

// The sender's work for each byte of the first pass.
func BenchmarkPoll(b *testing.B) {
	content := randomBytes(1, 1<<20)
	s, err := NewSender(SenderConfig{Node: 1, Rand: rand.NewPCG(1, 1)})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	buf := make([]byte, 0, 2048)
	b.SetBytes(1400)
	b.ReportAllocs()
	for b.Loop() {
		if buf = s.Poll(now, buf[:0]); s.pass.Object == s.next {
			s.Drop(s.next - 1)
			if _, err := s.Add(Object{Content: content, Size: int64(len(content))}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// nowhere is a Sink that forgets.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }

// The receiver's work for each byte when nothing is lost.
func BenchmarkHandle(b *testing.B) {
	r, err := NewReceiver(ReceiverConfig{Node: 9, Rand: rand.NewPCG(1, 1), Accept: func(Offer) (Sink, error) { return nowhere{}, nil }})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	d := Data{SenderHeader: SenderHeader{Header: Header{Source: 1}, Instance: 5}, FEC: FECReedSolomon, Payload: make([]byte, 1400)}
	d.Ext = d.Ext.AppendFTI(FTI{1 << 30, 1400, 64, 16})
	pkt := make([]byte, 0, 2048)
	b.SetBytes(1400)
	b.ReportAllocs()
	for b.Loop() {
		pkt = d.Append(pkt[:0])
		r.Handle(now, senderAddr, pkt)
		d.Sequence++
		if d.Symbol++; d.Symbol == 63 {
			d.Symbol, d.Block = 0, d.Block+1
			if d.Block == 10000 {
				d.Block, d.Object = 0, d.Object+1
			}
		}
	}
}

// The receiver's work for each block of which one symbol was lost.
func BenchmarkDecode(b *testing.B) {
	const k, segment = 128, 1408
	sink := make(memory, k*segment)
	r, err := NewReceiver(ReceiverConfig{Node: 9, Rand: rand.NewPCG(1, 1), Accept: func(Offer) (Sink, error) { return sink, nil }})
	if err != nil {
		b.Fatal(err)
	}
	code, err := r.code(k, 32)
	if err != nil {
		b.Fatal(err)
	}
	source := fec.Buffers(k, segment)
	_, end := code.Step(0)
	parity := fec.Buffers(end, segment)
	if err := code.Encode(source, 0, parity); err != nil {
		b.Fatal(err)
	}
	o := &rxObject{src: newSource(r, 1, 1, time.Now()), fti: FTI{k * segment, segment, k, 32}, sink: sink, code: code}
	if o.part, err = fec.Partition(k*segment, segment, k); err != nil {
		b.Fatal(err)
	}
	block := &rxBlock{n: k, sources: k - 1, parity: []parityRow{{0, parity[0]}}}
	block.have.addRange(1, k)
	b.SetBytes(k * segment)
	b.ReportAllocs()
	for b.Loop() {
		if err := o.decode(0, block, k); err != nil {
			b.Fatal(err)
		}
	}
}
