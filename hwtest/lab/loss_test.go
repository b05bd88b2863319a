package lab

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLossPatternHoldsItsFraction(t *testing.T) {
	const n = 400_000
	for _, l := range []Loss{
		{Kind: Random, Fraction: 0.02, Seed: 1},
		{Kind: Random, Fraction: 0.5, Seed: 2},
		{Kind: Burst, Fraction: 0.05, Burst: 10, Seed: 3},
		{Kind: GilbertElliott, Fraction: 0.05, Burst: 8, Seed: 4},
		{Kind: GilbertElliott, Fraction: 0.1, Burst: 20, GoodLoss: 0.01, BadLoss: 0.6, Seed: 5},
	} {
		if err := l.Validate(); err != nil {
			t.Fatalf("%+v: %v", l, err)
		}
		got := fraction(l.Pattern(n))
		// Bursts correlate frames, so the bound widens with their length.
		bound := 5 * math.Sqrt(l.Fraction*2*l.burst()/n)
		if math.Abs(got-l.Fraction) > bound {
			t.Errorf("%+v lost %.4f, want within %.4f", l, got, bound)
		}
	}
}

func TestLossPatternIsAFunctionOfTheSeed(t *testing.T) {
	for _, kind := range []LossKind{Random, Burst, GilbertElliott} {
		l := Loss{Kind: kind, Fraction: 0.1, Burst: 4, Seed: 7}
		first := l.Pattern(10_000)
		if !slices.Equal(first, l.Pattern(10_000)) {
			t.Errorf("kind %d: same seed, two patterns", kind)
		}
		if !slices.Equal(first[:100], l.Pattern(100)) {
			t.Errorf("kind %d: a short pattern is not the beginning of a long one", kind)
		}
		l.Seed = 8
		if slices.Equal(first, l.Pattern(10_000)) {
			t.Errorf("kind %d: two seeds, one pattern", kind)
		}
	}
}

func TestBurstsHaveTheirLength(t *testing.T) {
	for _, run := range runs(Loss{Kind: Burst, Fraction: 0.01, Burst: 5, Seed: 9}.Pattern(50_000)) {
		if run%5 != 0 { // two bursts may touch
			t.Fatalf("a run of %d lost frames, want multiples of 5", run)
		}
	}
	all := runs(Loss{Kind: GilbertElliott, Fraction: 0.02, Burst: 12, Seed: 10}.Pattern(1_000_000))
	sum := 0
	for _, run := range all {
		sum += run
	}
	if mean := float64(sum) / float64(len(all)); mean < 11 || mean > 13 {
		t.Errorf("mean run is %.2f frames, want about 12", mean)
	}
}

func TestLossValidateNamesEveryFault(t *testing.T) {
	for _, tc := range []struct {
		loss Loss
		want []string
	}{
		{Loss{Kind: 9, Fraction: 2, Burst: -1}, []string{"Kind", "Fraction", "Burst"}},
		{Loss{Kind: Burst, Fraction: 1}, []string{"room"}},
		{Loss{Fraction: 0.1}, []string{"without a Kind"}},
		{Loss{Kind: GilbertElliott, Fraction: 0.5, BadLoss: 0.4}, []string{"BadLoss"}},
	} {
		err := tc.loss.Validate()
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: error %v does not name %q", tc.loss, err, want)
			}
		}
	}
}

func TestShaperKeepsRateDelayAndQueue(t *testing.T) {
	start := time.Unix(0, 0)
	s := newShaper(Path{Rate: 8 * Mbit, Delay: 10 * time.Millisecond, Queue: 5 * time.Millisecond})
	f := udpFrame(0x02, 1000) // 1 ms at 8 Mbit/s
	for i := range 6 {
		due, v := s.admit(start, f)
		want := start.Add(time.Duration(i+1)*time.Millisecond + 10*time.Millisecond)
		if v != carried || !due.Equal(want) {
			t.Fatalf("frame %d: %v at %v, want %v", i, v, due, want)
		}
	}
	if _, v := s.admit(start, f); v != overflow {
		t.Errorf("a frame that would wait 6 ms got %v, want overflow", v)
	}
	if due, v := s.admit(start.Add(time.Second), f); v != carried || due.Sub(start) != 1011*time.Millisecond {
		t.Errorf("after a rest: %v at %v", v, due.Sub(start))
	}
}

func TestShaperTreatsMulticastAsWiFiDoes(t *testing.T) {
	now := time.Unix(0, 0)
	s := newShaper(WiFi(80*Mbit, 8*Mbit, Loss{Kind: Random, Fraction: 1, Seed: 1}))
	if due, v := s.admit(now, udpFrame(0x02, 1000)); v != carried || due.Sub(now) != 100*time.Microsecond {
		t.Errorf("unicast: %v after %v, want carried after 100µs", v, due.Sub(now))
	}
	if _, v := s.admit(now, udpFrame(0x01, 1000)); v != lost {
		t.Errorf("multicast: %v, want lost", v)
	}
	// The lost frame took its millisecond of air.
	if due, _ := s.admit(now, udpFrame(0x02, 1000)); due.Sub(now) != 1200*time.Microsecond {
		t.Errorf("unicast after multicast: %v, want 1.2ms", due.Sub(now))
	}
}

func TestControlFramesAreNeverLost(t *testing.T) {
	arp := make([]byte, 60)
	arp[12], arp[13] = 0x08, 0x06
	igmp := udpFrame(0x01, 60)
	igmp[23] = 2
	ipv6 := func(next, first byte) []byte {
		f := make([]byte, 90)
		f[12], f[13], f[20], f[54] = 0x86, 0xdd, next, first
		return f
	}
	s := newShaper(Path{Loss: Loss{Kind: Random, Fraction: 1, Seed: 1}})
	for name, tc := range map[string]struct {
		frame []byte
		want  verdict
	}{
		"ARP": {arp, carried}, "IGMP": {igmp, carried}, "UDP": {udpFrame(2, 60), lost},
		"ND": {ipv6(58, 135), carried}, "echo": {ipv6(58, 128), lost},
		"MLD": {ipv6(0, 58), carried}, "TCP over IPv6": {ipv6(6, 0), lost}, "runt": {make([]byte, 14), carried},
	} {
		if _, v := s.admit(time.Unix(0, 0), tc.frame); v != tc.want {
			t.Errorf("%s: verdict %d, want %d", name, v, tc.want)
		}
	}
}

func udpFrame(first byte, size int) []byte {
	f := make([]byte, size)
	f[0], f[12], f[14], f[23] = first, 0x08, 0x45, 17
	return f
}

func fraction(lost []bool) float64 {
	n := 0
	for _, x := range lost {
		if x {
			n++
		}
	}
	return float64(n) / float64(len(lost))
}

// runs lists the lengths of the runs of losses that end before the pattern does.
func runs(lost []bool) []int {
	var out []int
	length := 0
	for _, x := range lost {
		if x {
			length++
		} else if length > 0 {
			out = append(out, length)
			length = 0
		}
	}
	return out
}

// A frame is foreign bytes: whatever it holds, it is carried once or lost once.
func FuzzShaper(f *testing.F) {
	f.Add(udpFrame(0x01, 60))
	f.Add(make([]byte, 14))
	f.Add(append(make([]byte, 12), 0x86, 0xdd, 0x60))
	f.Add(append(make([]byte, 12), 0x08, 0x00, 0x45))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 {
			return // a TAP gives none
		}
		s := newShaper(Path{Rate: Mbit, Delay: time.Millisecond, Loss: Loss{Kind: Random, Fraction: 1, Seed: 1}})
		now := time.Unix(0, 0)
		due, v := s.admit(now, frame)
		if isControl(frame) != (v == carried) || v == carried && !due.After(now) {
			t.Errorf("verdict %d, due %v", v, due)
		}
	})
}
