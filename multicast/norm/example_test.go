package norm_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// file is a Sink in memory.
type file struct{ b []byte }

func (f *file) WriteAt(p []byte, off int64) (int, error) { return copy(f.b[off:], p), nil }
func (f *file) ReadAt(p []byte, off int64) (int, error)  { return bytes.NewReader(f.b).ReadAt(p, off) }

// A sender and a receiver joined by a wire that loses each tenth packet. A real
// caller waits for its token bucket, its sockets and the times that Wake gives.
func Example() {
	sender, err := norm.NewSender(norm.SenderConfig{Node: 1, Rand: rand.NewPCG(1, 2)})
	if err != nil {
		panic(err)
	}
	content := bytes.Repeat([]byte("cistern "), 50_000)
	if _, err := sender.Add(norm.Object{Content: bytes.NewReader(content), Size: int64(len(content)), Info: []byte("what it is")}); err != nil {
		panic(err)
	}
	var got file
	receiver, err := norm.NewReceiver(norm.ReceiverConfig{
		Node: 2, Rand: rand.NewPCG(3, 4),
		Accept: func(o norm.Offer) (norm.Sink, error) {
			if o.Info == nil {
				return nil, norm.ErrNeedInfo
			}
			got.b = make([]byte, o.Size)
			return &got, nil
		},
	})
	if err != nil {
		panic(err)
	}
	from := netip.MustParseAddrPort("192.0.2.1:6003")
	now := time.Unix(1_700_000_000, 0)
	for sent := 0; ; now = now.Add(100 * time.Microsecond) {
		if packet := sender.Poll(now, nil); len(packet) > 0 {
			if sent++; sent%10 != 0 {
				receiver.Handle(now, from, packet)
			}
		}
		if packet, _ := receiver.Poll(now, nil); len(packet) > 0 {
			sender.Handle(now, packet, false)
		}
		for _, e := range receiver.Events() {
			if e.Kind == norm.ObjectComplete {
				fmt.Printf("%q, identical: %v\n", e.Info, bytes.Equal(got.b, content))
				return
			}
		}
	}
	// Output: "what it is", identical: true
}
