package multicast

import (
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// burster takes packets out of a norm.Sender as its pace lets them go, up to a
// burst at a time, into buffers that it uses again.
type burster struct {
	sender  *norm.Sender
	pace    *pacer
	over    int // bytes that a packet takes beyond itself
	packets [][]byte
}

// newBurster paces segments of the given size at rate bits per second, in which
// over bytes are counted for each packet beside its own.
func newBurster(now time.Time, sender *norm.Sender, rate int64, segment, over int) *burster {
	b := &burster{sender: sender, over: over}
	for range burstPackets {
		b.packets = append(b.packets, make([]byte, 0, segment+norm.PacketOverhead))
	}
	b.pace = newPacer(now, rate, cap(b.packets[0])+b.over)
	return b
}

// setRate changes the rate from now on.
func (b *burster) setRate(now time.Time, rate int64) {
	b.pace.setRate(now, rate)
	b.sender.SetRate(rate / 8)
}

// take gives the packets that may go now, valid until the next call.
func (b *burster) take(now time.Time) [][]byte {
	n := 0
	for n < burstPackets && b.pace.ready(now) {
		p := b.sender.Poll(now, b.packets[n][:0])
		if len(p) == 0 {
			break
		}
		b.pace.spend(len(p) + b.over)
		b.packets[n] = p
		n++
	}
	return b.packets[:n]
}

// wake is when take has something to give, zero if only feedback or a new
// object can change that.
func (b *burster) wake(now time.Time) time.Time {
	wake := b.sender.Wake(now)
	if wake.IsZero() {
		return wake
	}
	if paced := b.pace.next(now); paced.After(wake) {
		return paced
	}
	return wake
}

// frames is what an interface counts for packets of a group.
func frames(packets [][]byte, group netip.Addr) (bytes int64) {
	for _, p := range packets {
		bytes += int64(len(p) + headers(group))
	}
	return bytes
}
