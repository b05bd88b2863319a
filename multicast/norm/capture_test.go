package norm

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// cutTo64 makes a message of a capture whose symbols were cut to 64 bytes one
// of an object with 64-byte symbols.
func cutTo64(m Message, symbols int64) {
	if d, ok := m.(*Data); ok {
		binary.BigEndian.PutUint32(d.Ext[4:], uint32(symbols*64))
		binary.BigEndian.PutUint16(d.Ext[8:], 64)
	}
	if i, ok := m.(*Info); ok {
		binary.BigEndian.PutUint32(i.Ext[4:], uint32(symbols*64))
		binary.BigEndian.PutUint16(i.Ext[8:], 64)
	}
}

// A receiver that hears libnorm's sender gets the object, though it loses as
// many source symbols of each block as parity follows, and asks for nothing
// that the sender has not already repaired.
func TestReceiverDecodesCaptures(t *testing.T) {
	for _, name := range captures {
		all := readCapture(t, name)
		// What libnorm sent, and how much parity each block has got.
		var want []byte
		parity := map[uint32]int{}
		var part fec.Blocking
		for _, c := range all {
			m, err := Parse(c.msg)
			if err != nil {
				t.Fatal(err)
			}
			d, ok := m.(*Data)
			if !ok {
				continue
			}
			if part.Size == 0 {
				fti, _ := d.Ext.FTI(d.FEC)
				if part, err = fec.Partition(fti.Size, int(fti.Segment), int(fti.K)); err != nil {
					t.Fatal(err)
				}
				if len(all) > 100 {
					part.Size, part.Symbol = part.Symbols*64, 64
				}
				want = make([]byte, part.Size)
			}
			if n := part.Len(int64(d.Block)); int(d.Symbol) < n {
				off, _ := part.Span(int64(d.Block), int(d.Symbol))
				copy(want[off:], d.Payload)
			} else {
				parity[d.Block]++
			}
		}
		rng := rand.New(rand.NewPCG(1, 1))
		drop := map[Position]bool{}
		for block, n := range parity {
			for _, i := range rng.Perm(part.Len(int64(block)))[:min(n, part.Len(int64(block)))] {
				drop[Position{0, block, uint16(i)}] = true
			}
		}
		got := make(memory, part.Size)
		r, err := NewReceiver(ReceiverConfig{Node: 77, Rand: rand.NewPCG(1, 2), Accept: func(o Offer) (Sink, error) {
			if o.Size != part.Size {
				t.Fatalf("%s: offered %d bytes, want %d", name, o.Size, part.Size)
			}
			return got, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		complete := false
		for _, c := range all {
			m, err := Parse(bytes.Clone(c.msg))
			if err != nil {
				t.Fatal(err)
			}
			if len(all) > 100 {
				cutTo64(m, part.Symbols)
			}
			if d, ok := m.(*Data); ok && drop[d.Position] {
				continue
			}
			r.Handle(c.at, c.from, m.Append(nil))
			for _, e := range r.Events() {
				complete = complete || e.Kind == ObjectComplete
			}
		}
		st := r.Stats()
		if !complete || !bytes.Equal(got, want) {
			t.Errorf("%s: complete %v, identical %v; %+v", name, complete, bytes.Equal(got, want), st)
		}
		if st.Decoded != uint64(len(drop)) || st.Rejected != 0 {
			t.Errorf("%s: decoded %d of %d symbols, rejected %d packets", name, st.Decoded, len(drop), st.Rejected)
		}
		t.Logf("%s: %d bytes, %d source symbols from parity", name, len(got), st.Decoded)
	}
}
