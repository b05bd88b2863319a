package lab

import (
	"encoding/binary"
	"time"
)

// verdict is what becomes of a frame that enters a wire.
type verdict int

const (
	carried  verdict = iota
	lost             // by the loss model
	overflow         // the queue before the rate limit was full
)

// shaper decides the fate of the frames of one direction of a wire, one by one:
// no I/O, no clock. It is not safe for concurrent use.
type shaper struct {
	path      Path
	unicast   *lossModel
	multicast *lossModel
	busyUntil time.Time // when the last admitted frame has left the sender
}

func newShaper(p Path) *shaper {
	s := &shaper{path: p, unicast: newLossModel(p.Loss)}
	s.multicast = s.unicast
	if p.Multicast != nil {
		s.multicast = newLossModel(p.Multicast.Loss)
	}
	return s
}

// admit tells what becomes of an Ethernet frame offered at now and, where it is
// carried, when it arrives. A lost frame takes its time on the wire too.
func (s *shaper) admit(now time.Time, frame []byte) (due time.Time, v verdict) {
	group := frame[0]&1 != 0
	rate, model := s.path.Rate, s.unicast
	if group {
		model = s.multicast
		if m := s.path.Multicast; m != nil && m.Rate > 0 {
			rate = m.Rate
		}
	}
	leaves := now
	if rate > 0 {
		start := s.busyUntil
		if start.Before(now) {
			start = now
		}
		if start.Sub(now) > s.path.queue() {
			return time.Time{}, overflow
		}
		leaves = start.Add(time.Duration(int64(len(frame)) * 8 * int64(time.Second) / int64(rate)))
		s.busyUntil = leaves
	}
	if !isControl(frame) && model.next() {
		return time.Time{}, lost
	}
	return leaves.Add(s.path.Delay), carried
}

// isControl tells whether a frame keeps the link itself working: ARP and all
// else that is not IP, IGMP, MLD and neighbour discovery.
func isControl(frame []byte) bool {
	const (
		header  = 14 // Ethernet
		igmp    = 2
		icmp6   = 58
		hopOpts = 0
		mld     = 130 // first ICMPv6 type of MLD (RFC 2710 §3) and ND (RFC 4861 §4)
	)
	if len(frame) < header+20 {
		return true
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return frame[header+9] == igmp
	case 0x86dd:
		if len(frame) < header+41 {
			return false
		}
		switch next, first := frame[header+6], frame[header+40]; next {
		case icmp6:
			return first >= mld
		case hopOpts:
			return first == icmp6 // an MLD message with its router alert
		}
		return false
	}
	return true
}
