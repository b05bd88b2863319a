package norm

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// figure prints a figure beside its bound, and fails when it is short of it.
func figure(t *testing.T, name string, value, bound float64, unit string) {
	t.Helper()
	verdict := "ok"
	if value > bound {
		verdict = "short"
		t.Fail()
	}
	t.Logf("figure: norm engine, %s: %.4g %s (at most %.4g): %s", name, value, unit, bound, verdict)
}

// ours sets what both ends have in common between our own parts.
func ours(s *SenderConfig, r *ReceiverConfig) {
	s.K, s.Parity, s.Interleave = 180, 75, 64
	s.FTIInInfoOnly, s.NoRateFeedback, s.Anticipate = true, true, true
	s.GroupSize = 32
	r.Unicast = true
}

// What an object costs on the wire: all bytes of the sender with their Ethernet
// headers until the last receiver is done. The whole size is for CISTERN_SOAK=1.
func TestWireFigures(t *testing.T) {
	size := 3 << 20
	if os.Getenv("CISTERN_SOAK") == "1" {
		size = 64 << 20
	}
	for _, c := range []struct {
		receivers int
		loss      float64
		every     time.Duration // between outages of 10 ms
		rate      float64
		bound     float64
	}{
		{8, 0, 0, 12.5e6, 1.055},
		{8, 0.05, 0, 12.5e6, 1.14},
		{32, 0.05, 0, 12.5e6, 1.16},
		{8, 0.20, 0, 12.5e6, 1.45},
		{8, 0, 200 * time.Millisecond, 2.5e6, 1.16},
		{8, 0, 200 * time.Millisecond, 12.5e6, 1.17},
	} {
		name := fmt.Sprintf("%d receivers, %.0f %%", c.receivers, 100*c.loss)
		if c.every > 0 {
			name = fmt.Sprintf("%d receivers, 5 %% in bursts of 10 ms at %.0f Mbit/s", c.receivers, c.rate*8e-6)
		}
		t.Run(name, func(t *testing.T) {
			l := newLAN(t, 1, c.receivers, ours)
			l.loss, l.feedback, l.every, l.rate = c.loss, c.loss, c.every, c.rate
			l.sender.SetRate(int64(c.rate))
			wire := l.transfer(t, size)
			bound := c.bound
			if size < 64<<20 {
				bound += 0.05 // fewer blocks and bursts: what they cost varies more
			}
			figure(t, name+", wire", wire, bound, "x file")
		})
	}
}

// transfer sends an object to all, and gives what it cost on the wire.
func (l *lan) transfer(t testing.TB, size int) float64 {
	t.Helper()
	id, content := l.add(t, size)
	l.run(t, 10*time.Minute, l.complete(1))
	l.same(t, id, content)
	return float64(l.wire) / float64(size)
}

// One receiver at 200 Mbit/s: hardly anything but the bytes takes time.
func TestTimeFigures(t *testing.T) {
	size := 100 << 20
	if os.Getenv("CISTERN_SOAK") != "1" {
		size = 8 << 20
	}
	l := newLAN(t, 1, 1, ours)
	l.loss, l.feedback, l.rate = 0.05, 0.05, 25e6
	l.sender.SetRate(25e6)
	start := l.now
	id, content := l.add(t, size)
	l.run(t, time.Minute, func() bool { return l.has(ObjectSent) })
	pass := l.now
	l.run(t, time.Minute, l.complete(1))
	l.same(t, id, content)
	name := fmt.Sprintf("%d MiB to one receiver at 200 Mbit/s, 5 %%", size>>20)
	if size == 100<<20 { // the tail is longer beside less
		figure(t, name+", time", l.now.Sub(start).Seconds()*l.rate/float64(l.wire), 1.05, "x wire at the rate")
	}
	figure(t, name+", tail", l.now.Sub(pass).Seconds(), 0.3, "s")
}

// Feedback hardly grows with the group.
func TestFeedbackFigures(t *testing.T) {
	many, size := 100, 1<<20
	if os.Getenv("CISTERN_SOAK") == "1" {
		many, size = 1000, 8<<20
	}
	for name, unicast := range map[string]bool{"multicast": false, "unicast": true} {
		t.Run(name, func(t *testing.T) {
			feedback := func(n int) float64 {
				l := newLAN(t, 31, n, func(s *SenderConfig, r *ReceiverConfig) {
					ours(s, r)
					s.K, s.Parity, s.Interleave, s.GroupSize, r.Unicast = 64, 32, 1, n, unicast
				})
				l.loss, l.feedback = 0.05, 0.05
				l.transfer(t, size)
				var sent uint64
				for _, h := range l.hosts {
					sent += h.r.Stats().Nacks + h.r.Stats().Acks
				}
				return float64(sent)
			}
			few := feedback(10)
			figure(t, fmt.Sprintf("feedback by %s of %d receivers", name, many), feedback(many)/few, 3, fmt.Sprintf("x that of 10 (%.0f packets)", few))
		})
	}
}
