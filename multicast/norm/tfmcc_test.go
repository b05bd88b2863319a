package norm

import (
	"math"
	"testing"
	"time"
)

// bottleneck is a link of a host with a queue that drops what does not fit.
type bottleneck struct {
	rate  float64 // bytes per second
	queue float64 // bytes
	fill  float64
	at    time.Time
}

// lose reports whether a packet finds the queue full.
func (b *bottleneck) lose(now time.Time, size int) bool {
	b.fill = max(b.fill-now.Sub(b.at).Seconds()*b.rate, 0)
	b.at = now
	if b.fill+float64(size) > b.queue {
		return true
	}
	b.fill += float64(size)
	return false
}

// congested is a LAN of three hosts with a bottleneck before each.
func congested(t *testing.T, rates ...float64) *lan {
	l := newLAN(t, 61, len(rates), func(s *SenderConfig, r *ReceiverConfig) {
		ours(s, r)
		s.NoRateFeedback, s.Congestion, s.Interleave = false, true, 1
	})
	l.delay = 5 * time.Millisecond
	l.sender.SetRate(50e6)
	links := make([]*bottleneck, len(rates))
	for i, r := range rates {
		links[i] = &bottleneck{rate: r, queue: 64 << 10}
	}
	l.lose = func(to int, pkt []byte) bool { return links[to].lose(l.now, len(pkt)+frameOverhead) }
	return l
}

// follow runs for a time at the rate that the sender finds, and gives the bytes
// sent per second.
func (l *lan) follow(d time.Duration) float64 {
	end, before := l.now.Add(d), l.wire
	for l.now.Before(end) {
		l.rate = float64(l.sender.Rate())
		if !l.step() {
			break
		}
		l.events = l.events[:0]
	}
	return float64(l.wire-before) / d.Seconds()
}

// With TFMCC the rate follows the slowest receiver, and rises when it leaves.
func TestTFMCC(t *testing.T) {
	l := congested(t, 10e6, 2e6, 10e6)
	content := make(memory, 1<<30)
	if _, err := l.sender.Add(Object{Content: content, Size: int64(len(content)), Info: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for _, h := range l.hosts {
		h.r.cfg.Accept = func(Offer) (Sink, error) { return nowhere{}, nil }
	}
	l.follow(time.Second)
	slow := l.follow(2 * time.Second)
	clr := l.sender.tfmcc.clr.node
	l.hosts[1].from = l.now.Add(time.Hour) // it is gone
	l.follow(2 * time.Second)
	fast := l.follow(time.Second)
	t.Logf("at a bottleneck of 2 MB/s: %.2f MB/s, CLR %d; of 10 MB/s: %.2f MB/s, CLR %d; %d ACKs",
		slow/1e6, clr, fast/1e6, l.sender.tfmcc.clr.node, l.sender.Stats().Acks)
	if clr != 1002 || slow < 0.8e6 || slow > 2.4e6 {
		t.Errorf("%.0f bytes per second at a bottleneck of 2e6, CLR %d", slow, clr)
	}
	if l.sender.tfmcc.clr.node == 1002 || fast < 3e6 || fast > 12e6 {
		t.Errorf("%.0f bytes per second at a bottleneck of 10e6, CLR %d", fast, l.sender.tfmcc.clr.node)
	}
}

// A file comes through a bottleneck at little more than what it is worth, and
// without one the rate is soon that of the config.
func TestTFMCCTransfer(t *testing.T) {
	l := congested(t, 10e6, 2e6, 10e6)
	id, content := l.add(t, 3<<20)
	start := l.now
	l.run(t, time.Minute, func() bool { l.rate = float64(l.sender.Rate()); return l.complete(1)() })
	l.same(t, id, content)
	wire, took := float64(l.wire)/float64(len(content)), l.now.Sub(start).Seconds()
	t.Logf("wire %.3f in %.2f s", wire, took)
	if wire > 1.35 || took > 2.5*float64(len(content))/2e6 {
		t.Errorf("wire %.3f in %.2f s", wire, took)
	}
	free := congested(t, 100e6, 100e6)
	free.add(t, 32<<20)
	free.follow(600 * time.Millisecond)
	if r := free.sender.Rate(); r != 50e6 {
		t.Errorf("rate %d after 0.6 s without loss", r)
	}
}

// When nobody reports any more the rate falls step by step.
func TestTFMCCWithoutReports(t *testing.T) {
	l := congested(t, 10e6)
	l.add(t, 32<<20)
	l.follow(time.Second)
	before := l.sender.Rate()
	l.feedback = 1
	l.follow(5 * time.Second)
	if after := l.sender.Rate(); after > before/8 || after < 2*1400 {
		t.Errorf("rate %d, %d before the silence", after, before)
	}
}

// Loss events are counted once in a round trip time, and old ones fade.
func TestLossEvents(t *testing.T) {
	var e lossEvents
	now := time.Unix(0, 0)
	for i := range 2000 {
		now = now.Add(time.Millisecond)
		lost := 0
		if i%100 < 5 { // five in a row, in one round trip time
			lost = 1
		}
		e.hear(now, lost, 10*time.Millisecond)
	}
	if p := e.fraction(); math.Abs(p-0.01) > 0.001 {
		t.Errorf("loss event rate %.4f, want 0.01", p)
	}
	for range 10_000 {
		e.hear(now, 0, 10*time.Millisecond)
	}
	if p := e.fraction(); p > 0.002 {
		t.Errorf("loss event rate %.4f long after the last one", p)
	}
	for _, p := range []float64{1e-5, 0.001, 0.05, 0.5} {
		if got := fairLoss(1400, 20*time.Millisecond, fairRate(1400, 20*time.Millisecond, p)); math.Abs(got-p) > p/1000 {
			t.Errorf("fairLoss gives %g for %g", got, p)
		}
	}
}
