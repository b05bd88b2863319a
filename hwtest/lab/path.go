package lab

import (
	"errors"
	"fmt"
	"time"
)

// Bitrate is a rate in bits per second of whole frames (Ethernet header
// included).
type Bitrate int64

// Units of a Bitrate.
const (
	Kbit Bitrate = 1000
	Mbit Bitrate = 1000 * Kbit
	Gbit Bitrate = 1000 * Mbit
)

// defaultQueue bounds the wait before a rate limit, where Path.Queue is 0.
const defaultQueue = 100 * time.Millisecond

// Path describes one direction of a link. The zero value is a perfect path.
type Path struct {
	// Rate limits the path; 0: no limit.
	Rate Bitrate
	// Queue is how long a frame may wait for its turn at Rate before it is
	// dropped; 0: 100 ms.
	Queue time.Duration
	// Delay is the time a frame travels once its turn has come. It is kept to
	// about 1 ms and needs a wire.
	Delay time.Duration
	// Loss is what gets lost of all frames, or of the unicast ones where
	// Multicast is set.
	Loss Loss
	// Multicast, when set, treats group-addressed frames apart, as Wi-Fi does.
	// It needs a wire.
	Multicast *MulticastPath
}

// MulticastPath is how a Path treats frames to a group address.
type MulticastPath struct {
	// Rate is the basic rate at which group-addressed frames are sent; they
	// share the time of the path with the unicast ones. 0: Path.Rate.
	Rate Bitrate
	// Loss is what gets lost of them, since nobody acknowledges them.
	Loss Loss
}

// WiFi is a path like that from an access point: unicast at the rate unicast
// and clean, since it is acknowledged and repeated; multicast unacknowledged,
// at the basic rate, and with loss.
func WiFi(unicast, basic Bitrate, loss Loss) Path {
	return Path{Rate: unicast, Multicast: &MulticastPath{Rate: basic, Loss: loss}}
}

// Validate reports every fault of p at once, each naming its field.
func (p Path) Validate() error {
	var faults []error
	if p.Rate < 0 || p.Rate != 0 && p.Rate < 8*Kbit {
		faults = append(faults, inField("Rate", fmt.Errorf("%d bit/s is below 8 kbit/s", p.Rate)))
	}
	if p.Queue < 0 {
		faults = append(faults, inField("Queue", fmt.Errorf("%v is negative", p.Queue)))
	}
	if p.Delay < 0 {
		faults = append(faults, inField("Delay", fmt.Errorf("%v is negative", p.Delay)))
	}
	if err := p.Loss.Validate(); err != nil {
		faults = append(faults, inField("Loss", err))
	}
	if p.Multicast != nil {
		if p.Multicast.Rate < 0 {
			faults = append(faults, inField("Multicast.Rate", fmt.Errorf("%d is negative", p.Multicast.Rate)))
		}
		if err := p.Multicast.Loss.Validate(); err != nil {
			faults = append(faults, inField("Multicast.Loss", err))
		}
	}
	return errors.Join(faults...)
}

// needsWire tells whether the kernel alone cannot make p.
func (p Path) needsWire() bool {
	return p.Delay > 0 || p.Multicast != nil || p.Loss.Seed != 0 || p.Loss.Kind == GilbertElliott
}

func (p Path) queue() time.Duration {
	if p.Queue == 0 {
		return defaultQueue
	}
	return p.Queue
}
