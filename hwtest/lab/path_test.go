//go:build linux

package lab_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// datagrams sends n numbered datagrams of size bytes from one host to a port of
// another and tells which numbers arrived, in order of arrival. It waits for no
// more than enough of them.
func datagrams(t *testing.T, from, to *lab.Host, n, enough, size int) []int {
	t.Helper()
	in, err := to.ListenPacket("udp4", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_ = in.(*net.UDPConn).SetReadBuffer(1 << 20)
	out, err := from.Dial("udp4", to.AddrPort(9000))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	greet(t, to, from)
	arrived := make(chan []int, 1)
	sent := make(chan struct{})
	go func() { arrived <- receive(in, enough, sent) }()
	payload := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint32(payload, uint32(i))
		if _, err := out.Write(payload); err != nil {
			t.Error(err)
		}
		if i%40 == 39 {
			time.Sleep(time.Millisecond) // stay within a small receive buffer
		}
	}
	close(sent)
	return <-arrived
}

// greet has from send one datagram, so that to knows its neighbour without having
// sent a packet: the first packets of a flow may overtake each other while the
// kernel still asks for the address.
func greet(t *testing.T, from, to *lab.Host) {
	t.Helper()
	in, err := to.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() }) // at once it might answer with ICMP
	port := in.LocalAddr().(*net.UDPAddr).Port
	out, err := from.Dial("udp4", to.AddrPort(uint16(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	for known := false; !known; { // the test's own deadline bounds it
		time.Sleep(time.Millisecond)
		err := to.Do(func() error {
			table, err := os.ReadFile("/proc/thread-self/net/arp")
			known = bytes.Contains(table, []byte(from.Addr().String()+" "))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// receive reads numbers until there are enough, or all are sent and nothing has
// come for a while.
func receive(in net.PacketConn, enough int, sent <-chan struct{}) []int {
	var got []int
	buf := make([]byte, 2000)
	for len(got) < enough {
		last := false
		select {
		case <-sent:
			last = true
		default:
		}
		_ = in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, _, err := in.ReadFrom(buf)
		if err == nil && n >= 4 {
			got = append(got, int(binary.BigEndian.Uint32(buf)))
		} else if last || !errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
	}
	return got
}

// transfer sends n bytes by TCP and tells the goodput seen by the receiver.
func transfer(t testing.TB, from, to *lab.Host, n int) (bitsPerSecond float64) {
	t.Helper()
	ln, err := to.Listen("tcp4", ":9001")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := from.Dial("tcp4", to.AddrPort(9001))
		if err != nil {
			t.Error(err)
			ln.Close()
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, bytes.NewReader(make([]byte, n)))
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	got, err := io.Copy(io.Discard, c)
	if err != nil || int(got) != n {
		t.Fatalf("received %d of %d bytes: %v", got, n, err)
	}
	return float64(n) * 8 / time.Since(began).Seconds()
}

// holds checks that a transfer runs below rate, always, and above a share of it
// unless the machine is too busy three times.
func holds(t *testing.T, from, to *lab.Host, n int, atLeast, atMost float64) {
	t.Helper()
	var got float64
	for range 3 {
		got = transfer(t, from, to, n)
		t.Logf("%s to %s: %.2f Mbit/s", from.Name(), to.Name(), got/1e6)
		if got > atMost {
			t.Errorf("%.2f Mbit/s, want at most %.2f", got/1e6, atMost/1e6)
		}
		if got >= atLeast {
			return
		}
	}
	t.Errorf("%.2f Mbit/s, want at least %.2f", got/1e6, atLeast/1e6)
}

func TestRateHoldsInBothDirections(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg   lab.LinkConfig
		needs []lab.Need
	}{
		"kernel": {cfg: lab.LinkConfig{ToHost: lab.Path{Rate: 10 * lab.Mbit}, FromHost: lab.Path{Rate: 5 * lab.Mbit}}},
		"wire": {lab.LinkConfig{
			ToHost:   lab.Path{Rate: 10 * lab.Mbit, Delay: time.Millisecond},
			FromHost: lab.Path{Rate: 5 * lab.Mbit},
		}, []lab.Need{lab.Wires}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, tc.cfg, tc.needs...)
			// Headers take 4 %; the bucket lets a little more through at first.
			holds(t, p.a, p.b, 750_000, 0.6*10e6, 1.05*10e6)
			holds(t, p.b, p.a, 500_000, 0.6*5e6, 1.05*5e6)
		})
	}
}

func TestRateIsChangedAndLifted(t *testing.T) {
	p := newPair(t, lab.LinkConfig{ToHost: lab.Path{Rate: lab.Mbit}})
	if err := p.linkB.SetPath(lab.ToHost, lab.Path{Rate: 5 * lab.Mbit}); err != nil {
		t.Fatal(err)
	}
	holds(t, p.a, p.b, 400_000, 2e6, 1.05*5e6)
	for range 2 {
		if err := p.linkB.SetPath(lab.ToHost, lab.Path{}); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, p.a, p.b, 5_000_000, 10e6, 1e12)
	if err := p.linkB.SetPath(lab.ToHost, lab.Path{Delay: time.Millisecond}); err == nil {
		t.Error("a veth took a delay")
	}
}

func TestDelayIsKeptAndOrderToo(t *testing.T) {
	const delay = 20 * time.Millisecond
	p := newPair(t, lab.LinkConfig{ToHost: lab.Path{Delay: delay}, FromHost: lab.Path{Delay: delay}}, lab.Wires)
	serve(t, p.b, 1)
	get(t, p.a, "http://b/") // resolves the neighbour
	began := time.Now()
	c, err := p.a.Dial("tcp4", p.b.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if rtt := time.Since(began); rtt < 2*delay || rtt > 2*delay+time.Second {
		t.Errorf("round trip took %v, want a little over %v", rtt, 2*delay)
	}
	got := datagrams(t, p.a, p.b, 1000, 1000, 100)
	if len(got) != 1000 || !slices.IsSorted(got) {
		t.Errorf("%d of 1000 datagrams, sorted=%v", len(got), slices.IsSorted(got))
	}
}

func TestWireLosesThePatternOfItsSeed(t *testing.T) {
	const n = 2000
	for name, loss := range map[string]lab.Loss{
		"random":          {Kind: lab.Random, Fraction: 0.05, Seed: 42},
		"burst":           {Kind: lab.Burst, Fraction: 0.05, Burst: 7, Seed: 43},
		"Gilbert-Elliott": {Kind: lab.GilbertElliott, Fraction: 0.1, Burst: 10, Seed: 44},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, lab.LinkConfig{ToHost: lab.Path{Loss: loss}}, lab.Wires)
			var want []int
			for i, lost := range loss.Pattern(n) {
				if !lost {
					want = append(want, i)
				}
			}
			if got := datagrams(t, p.a, p.b, n, len(want), 100); !slices.Equal(got, want) {
				t.Errorf("%d datagrams arrived, the seed promises these %d", len(got), len(want))
			}
			c := counters(t, p.linkB).ToHost
			if int(c.Lost) != n-len(want) || c.Frames < n || c.Overflow != 0 {
				t.Errorf("counters %+v, want %d lost of at least %d", c, n-len(want), n)
			}
		})
	}
}

func TestKernelLossHoldsItsFraction(t *testing.T) {
	const n = 4000
	for name, tc := range map[string]struct {
		loss  lab.Loss
		bound float64
	}{
		"random": {lab.Loss{Kind: lab.Random, Fraction: 0.1}, 5 * math.Sqrt(0.1*0.9/n)},
		"burst":  {lab.Loss{Kind: lab.Burst, Fraction: 0.1, Burst: 5}, 0.005},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, lab.LinkConfig{ToHost: lab.Path{Loss: tc.loss}})
			arrived := len(datagrams(t, p.a, p.b, n, n, 100))
			if got := 1 - float64(arrived)/n; math.Abs(got-tc.loss.Fraction) > tc.bound {
				t.Errorf("lost %.4f, want %.2f within %.4f", got, tc.loss.Fraction, tc.bound)
			}
			c := counters(t, p.linkB).ToHost
			if int(c.Lost) != n-arrived || c.Frames < n {
				t.Errorf("counters %+v, want %d lost of at least %d", c, n-arrived, n)
			}
			if err := p.linkB.SetPath(lab.ToHost, lab.Path{}); err != nil {
				t.Fatal(err)
			}
			if arrived := len(datagrams(t, p.a, p.b, 500, 500, 100)); arrived != 500 {
				t.Errorf("%d of 500 arrived after the loss was lifted", arrived)
			}
		})
	}
}

func TestLossOfWhatAHostSends(t *testing.T) {
	p := newPair(t, lab.LinkConfig{FromHost: lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: 1}}})
	if got := datagrams(t, p.b, p.a, 50, 50, 100); len(got) != 0 {
		t.Errorf("%d datagrams passed a path that loses all", len(got))
	}
	if got := datagrams(t, p.a, p.b, 50, 50, 100); len(got) != 50 {
		t.Errorf("%d of 50 datagrams arrived the other way", len(got))
	}
	if c := counters(t, p.linkB); c.FromHost.Lost != 51 || c.ToHost.Lost != 0 {
		t.Errorf("counters %+v, want 50 and a greeting lost from the host", c)
	}
}

func TestCountersAgreeWithWhatWasSent(t *testing.T) {
	const n, size = 500, 1000
	p := newPair(t, lab.LinkConfig{})
	count, err := p.b.CountIP(lab.Input, lab.Filter{In: p.linkB, Protocol: 17, DstPort: 9000})
	if err != nil {
		t.Fatal(err)
	}
	from, err := p.b.CountIP(lab.Prerouting, lab.Filter{
		Src: netip.PrefixFrom(p.a.Addr(), 32), Dst: netip.PrefixFrom(p.b.Addr(), 24), SrcPort: 9, Protocol: 17,
	})
	if err != nil {
		t.Fatal(err)
	}
	before := counters(t, p.linkB).ToHost
	if got := datagrams(t, p.a, p.b, n, n, size); len(got) != n {
		t.Fatalf("%d of %d arrived", len(got), n)
	}
	after := counters(t, p.linkB).ToHost
	got, err := count.Read()
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.IPCount{Packets: n, Bytes: n * (size + 28)}); got != want {
		t.Errorf("IP counter %+v, want %+v", got, want)
	}
	if n := packets(t, from); n != 0 {
		t.Errorf("%d packets passed a filter for another port", n)
	}
	for _, f := range []lab.Filter{{DstPort: 80}, {Src: netip.MustParsePrefix("::/0"), Dst: netip.MustParsePrefix("0.0.0.0/0")}} {
		if _, err := p.b.CountIP(lab.Input, f); err == nil {
			t.Errorf("filter %+v was accepted", f)
		}
	}
	frames, link := after.Frames-before.Frames, after.Bytes-before.Bytes
	want := uint64(n * (size + 42))
	if frames < n || frames > n+20 || link < want || link > want+2000 { // ARP and MLD beside it
		t.Errorf("link counted %d frames, %d bytes; want %d, %d and a few", frames, link, n, want)
	}
}

func TestFramesFitTheMTUUnlessOffloadsAreOn(t *testing.T) {
	const size = 2_000_000
	for _, tc := range []struct {
		cfg      lab.LinkConfig
		min, max int // bytes of a frame, on average
	}{
		{lab.LinkConfig{}, 1000, 1514},
		{lab.LinkConfig{MTU: 9000}, 5000, 9014},
		{lab.LinkConfig{Offloads: true}, 2000, 70000},
	} {
		p := newPair(t, tc.cfg)
		transfer(t, p.b, p.a, size)
		c := counters(t, p.linkB).FromHost
		mean := int(c.Bytes / c.Frames)
		if mean < tc.min || mean > tc.max {
			t.Errorf("%+v: frames of %d bytes on average, want %d..%d", tc.cfg, mean, tc.min, tc.max)
		}
	}
}

// BenchmarkWire tells what a wire carries: one TCP connection, 1500 byte frames.
func BenchmarkWire(b *testing.B) {
	for _, delay := range []time.Duration{time.Microsecond, 10 * time.Millisecond} {
		b.Run(delay.String(), func(b *testing.B) {
			l := lab.Test(b, lab.Wires)
			s := l.Switch("s", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24"}})
			x, y := l.Host("x"), l.Host("y")
			x.Join(s, lab.LinkConfig{})
			y.Join(s, lab.LinkConfig{ToHost: lab.Path{Delay: delay}})
			if err := l.Up(b.Context()); err != nil {
				b.Fatal(err)
			}
			var sum float64
			n := 0
			for b.Loop() {
				sum += transfer(b, x, y, 50_000_000)
				n++
			}
			b.ReportMetric(sum/float64(n)/1e6, "Mbit/s")
		})
	}
}
