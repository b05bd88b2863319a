package norm

import (
	"testing"
	"time"
)

// A file reaches all receivers identically, near the coding bound (in
// brackets: what libnorm needed on a bridge).
func TestTransferUnderLoss(t *testing.T) {
	for _, c := range []struct {
		name      string
		receivers int
		loss      float64
		unicast   bool
		most      float64
	}{
		{"1 receiver, 0 % [1.053]", 1, 0, false, 1.055},
		{"1 receiver, 5 % [1.108]", 1, 0.05, false, 1.12},
		{"8 receivers, 5 % [1.157]", 8, 0.05, false, 1.17},
		{"8 receivers, 5 %, unicast", 8, 0.05, true, 1.17},
		{"8 receivers, 20 % [1.531]", 8, 0.20, false, 1.56},
		{"32 receivers, 5 % [1.183]", 32, 0.05, false, 1.20},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLAN(t, 7, c.receivers, func(_ *SenderConfig, r *ReceiverConfig) { r.Unicast = c.unicast })
			l.loss, l.feedback = c.loss, c.loss
			content := randomBytes(1, 2<<20)
			id, err := l.sender.Add(Object{Content: content, Size: int64(len(content)), Info: []byte("file")})
			if err != nil {
				t.Fatal(err)
			}
			start := l.now
			l.run(t, time.Minute, l.complete(1))
			l.same(t, id, content)
			ratio := float64(l.wire) / float64(len(content))
			nacks := l.sender.Stats().Nacks
			tail := l.now.Sub(start).Seconds() - ratio*float64(len(content))/l.rate
			t.Logf("wire %.4f, %d NACKs heard, idle %.3f s, GRTT %v", ratio, nacks, tail, l.sender.Stats().GRTT)
			if ratio > c.most {
				t.Errorf("wire %.4f, want at most %.3f", ratio, c.most)
			}
		})
	}
}

// Long delays, reordering and much lost feedback cost time, but little wire.
func TestAwkwardNetworks(t *testing.T) {
	for _, c := range []struct {
		name           string
		delay, jitter  time.Duration
		loss, feedback float64
		unicast        bool
		most           float64
	}{
		{"satellite", 300 * time.Millisecond, 0, 0.05, 0.05, false, 1.25},
		{"satellite, unicast", 300 * time.Millisecond, 0, 0.05, 0.05, true, 1.25},
		{"reordering", time.Millisecond, 20 * time.Millisecond, 0.05, 0.05, false, 2},
		{"deaf sender", time.Millisecond, 0, 0.05, 0.7, false, 1.20},
		{"much reordering", time.Millisecond, 100 * time.Millisecond, 0, 0, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLAN(t, 17, 6, func(_ *SenderConfig, r *ReceiverConfig) { r.Unicast = c.unicast })
			l.delay, l.jitter, l.loss, l.feedback = c.delay, c.jitter, c.loss, c.feedback
			id, content := l.add(t, 1<<20)
			start := l.now
			l.run(t, 5*time.Minute, l.complete(1))
			l.same(t, id, content)
			ratio := float64(l.wire) / float64(len(content))
			t.Logf("wire %.3f, %v, GRTT %v, %d NACKs", ratio, l.now.Sub(start).Round(time.Millisecond), l.sender.Stats().GRTT, l.sender.Stats().Nacks)
			if ratio > c.most {
				t.Errorf("wire %.3f, want at most %.2f", ratio, c.most)
			}
		})
	}
}
