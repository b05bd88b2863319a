package norm

import (
	"testing"
	"time"
)

// When all receivers lose the same packets, few NACKs are enough, by
// multicast and by unicast with REPAIR_ADV.
func TestSuppression(t *testing.T) {
	for name, unicast := range map[string]bool{"multicast": false, "unicast": true} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t, 31, 100, func(s *SenderConfig, r *ReceiverConfig) {
				r.Unicast, s.GroupSize, s.NoRateFeedback = unicast, 100, true
			})
			lost := 0
			l.tap = func(pkt []byte) []byte {
				if Type(pkt[0]&15) != TypeData {
					return pkt
				}
				if lost++; lost%10 == 0 {
					return []byte{0} // nobody can read it
				}
				return pkt
			}
			_, content := l.add(t, 200_000)
			l.run(t, time.Minute, l.complete(1))
			var sent, suppressed uint64
			for _, h := range l.hosts {
				sent += h.r.Stats().Nacks
				suppressed += h.r.Stats().Suppressed
			}
			t.Logf("%d NACKs sent, %d suppressed, wire %.3f, %d advertised", sent, suppressed,
				float64(l.wire)/float64(len(content)), l.sender.Stats().Advertised)
			if sent > 120 || suppressed < 100 {
				t.Errorf("%d NACKs sent, %d suppressed by 100 receivers", sent, suppressed)
			}
			if (l.sender.Stats().Advertised > 0) != unicast {
				t.Errorf("%d REPAIR_ADV", l.sender.Stats().Advertised)
			}
		})
	}
}

// Probes do not make everybody answer each time.
func TestReportsDoNotImplode(t *testing.T) {
	l := newLAN(t, 32, 100, func(_ *SenderConfig, r *ReceiverConfig) { r.Unicast = true })
	l.rate = 3e4
	l.add(t, 1<<18)
	l.run(t, time.Minute, l.complete(1))
	acks := l.sender.Stats().Acks
	probes := uint64(l.sender.probe.sequence)
	t.Logf("%d ACKs to %d probes", acks, probes)
	if most := 100 + probes*pollNodes; acks > most || acks < 100 {
		t.Errorf("%d ACKs, want 100 to %d", acks, most)
	}
}
