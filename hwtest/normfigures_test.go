package hwtest

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// best is the code for figures: few symbols wasted on rounding, and parity for
// a fifth lost.
var best = code{180, 75}

// wireRow is a row of the wire table: n receivers with losses of their own.
type wireRow struct {
	name       string
	receivers  int
	loss       lab.Loss
	mbit       int
	interleave int
	bound      float64 // on the wire with IPv4, in files
}

// TestNormWire is the table of bytes on the wire: all that the sender puts out
// until its end, with SSM and ASM, IPv4 and IPv6, and beside it libnorm, UFTP
// and udpcast on the same LAN.
func TestNormWire(t *testing.T) {
	random := func(f float64) lab.Loss { return lab.Loss{Kind: lab.Random, Fraction: f} }
	bursts := func(frames int) lab.Loss { return lab.Loss{Kind: lab.Burst, Fraction: 0.05, Burst: frames} }
	rows := []wireRow{
		{"random/1 receiver, 0 %", 1, lab.Loss{}, 60, 1, 1.055},
		{"random/8 receivers, 5 %", 8, random(0.05), 60, 1, 1.14},
		{"random/32 receivers, 5 %", 32, random(0.05), 60, 1, 1.16},
		{"random/8 receivers, 20 %", 8, random(0.2), 60, 1, 1.45},
		{"bursts/8 receivers, 5 % in 10 ms, 20 Mbit", 8, bursts(17), 20, 128, 1.16},
		{"bursts/8 receivers, 5 % in 10 ms, 100 Mbit", 8, bursts(85), 100, 256, 1.17},
	}
	size := int64(64 << 20)
	if !soak() {
		rows, size = rows[:2], 8<<20
		for i := range rows {
			rows[i].mbit = 20 // the bytes are the same, and a busy machine keeps up
		}
	}
	file := contents(t, size)[0]
	programs := []*caster{
		cisternOn(t, "ssm ipv4", "232.77.3.1:6201", best), cisternOn(t, "asm ipv4", "239.77.3.1:6202", best),
		cisternOn(t, "ssm ipv6", "[ff3e::7703:1]:6203", best), cisternOn(t, "asm ipv6", "[ff1e::7703:1]:6204", best),
	}
	programs = append(programs, foreign(t)...)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { row.run(t, file, programs) })
	}
}

func (row wireRow) run(t *testing.T, file string, programs []*caster) {
	var needs []lab.Need
	if row.loss.Kind == lab.Burst {
		needs = append(needs, lab.Wires)
	}
	l := newNormLAN(t, row.receivers, func(i int) lab.LinkConfig {
		loss := row.loss
		if loss.Kind == lab.Burst {
			loss.Seed = uint64(i) + 1
		}
		return lab.LinkConfig{ToHost: lab.Path{Loss: loss}}
	}, needs...)
	for _, p := range programs {
		c := cast{caster: p, lan: l, file: file, mbit: row.mbit, interleave: row.interleave, receivers: row.receivers, timeout: patience(t, file, row.mbit)}
		if !p.own() {
			c.timeout /= 3 // some never end, and nothing is asked of them
		}
		out := c.run(t, row.name)
		record(t, out)
		if !p.own() {
			continue
		}
		if out.Whole != out.Receivers {
			t.Errorf("%s: %d of %d receivers have the file", p.name, out.Whole, out.Receivers)
		}
		name := fmt.Sprintf("norm wire: %s, %s, %d MiB at %d Mbit/s", row.name, p.name, fileSize(t, file)>>20, row.mbit)
		wireFigure(t, name, out.Wire, row.bound+leeway(), p.group.Addr().Is4())
	}
}

// Ethernet frames of a full data packet, 1400 bytes of the file in each. The
// bounds of the table leave room for those of IPv4.
const (
	frame4 = 14 + 20 + 8 + 20 + 1400
	frame6 = 14 + 40 + 8 + 20 + 1400
)

// wireFigure is figure for bytes on the wire. With IPv6 headers alone may take
// more than the bound has room for: that is short, but no fault as long as the
// rest is as with IPv4.
func wireFigure(t *testing.T, name string, wire, bound float64, ip4 bool) {
	t.Helper()
	if reach := bound * frame6 / frame4; !ip4 && wire > bound && wire <= reach {
		t.Logf("figure: %s: %.4g files (bound %.4g): short; headers alone make %d/1400 = %.4f, so %.4g * %d/%d = %.4g is in reach",
			name, wire, bound, frame6, frame6/1400., bound, frame6, frame4, reach)
		return
	} else if !ip4 && wire > bound {
		bound = reach
	}
	figure(t, name, wire, bound, "files")
}

// timedFigure is figure for what the machine's other work changes: it is held to
// its bound in make soak alone.
func timedFigure(t *testing.T, name string, value, bound float64, unit string) {
	t.Helper()
	if soak() {
		figure(t, name, value, bound, unit)
		return
	}
	t.Logf("%s: %.4g %s (at full size at most %.4g)", name, value, unit, bound)
}

// leeway is for the luck of the few packets of a reduced run.
func leeway() float64 {
	if soak() {
		return 0
	}
	return 0.02
}

// beside is the programs to measure a timed figure beside, in make soak.
func beside(t *testing.T, own *caster) []*caster {
	if !soak() {
		return []*caster{own}
	}
	return append([]*caster{own}, foreign(t)...)
}

// patience is how long a cast may take before it counts as stuck, on a machine
// that has much else to do.
func patience(t *testing.T, file string, mbit int) time.Duration {
	return time.Minute + 8*time.Duration(fileSize(t, file)*8)*time.Microsecond/time.Duration(mbit)
}

// TestNormTime: 100 MiB to one receiver at 200 Mbit/s with 5 % loss takes what
// its bytes take on the wire, and the tail after the first pass is short.
func TestNormTime(t *testing.T) {
	size := int64(100 << 20)
	if !soak() {
		size = 32 << 20
	}
	file := contents(t, size)[0]
	l := newNormLAN(t, 1, func(int) lab.LinkConfig { return lossy(0.05) })
	for _, p := range beside(t, cisternOn(t, "asm ipv4", "239.77.3.1:6202", best)) {
		c := cast{caster: p, lan: l, file: file, mbit: 200, receivers: 1, timeout: patience(t, file, 200)}
		out := c.run(t, "time/1 receiver, 5 %")
		record(t, out)
		if !p.own() {
			continue
		}
		if out.Whole != 1 {
			t.Error("the receiver has not got the file")
		}
		ideal := out.Wire * float64(size) * 8 / 200e6
		timedFigure(t, "norm time: 1 receiver, 5 %, 200 Mbit/s, over wire bytes / rate", out.Seconds/ideal, 1.05, "times")
		timedFigure(t, "norm time: tail after the first pass", out.Tail, 0.3, "s")
	}
}

// TestNormScale: the sender's bytes do not grow with the receivers; those of
// HTTP do.
func TestNormScale(t *testing.T) {
	size, most := int64(16<<20), 32
	if !soak() {
		size, most = 4<<20, 8
	}
	file := contents(t, size)[0]
	for _, loss := range []float64{0, 0.05} {
		least := math.Inf(1)
		for _, n := range []int{1, 8, 32} {
			if n > most {
				continue
			}
			bound := map[int]float64{1: 1.108, 8: 1.14, 32: 1.16}[n] + leeway()
			if loss == 0 {
				bound = least * 1.01
			}
			name := fmt.Sprintf("norm scale: %d receivers, %.0f %%", n, loss*100)
			t.Run(name, func(t *testing.T) {
				l := newNormLAN(t, n, func(int) lab.LinkConfig { return lossy(loss) })
				c := cast{
					caster: cisternOn(t, "ssm ipv4", "232.77.3.1:6201", best), lan: l, file: file, mbit: 60, receivers: n, timeout: patience(t, file, 60),
				}
				out := c.run(t, name)
				record(t, out)
				if out.Whole != n {
					t.Errorf("%d of %d receivers have the file", out.Whole, n)
				}
				least = min(least, out.Wire)
				figure(t, name, out.Wire, min(bound, 2), "files")
				t.Logf("HTTP: %.2f files", l.overHTTP(t, file, n))
			})
		}
	}
}

// overHTTP has every receiver fetch the file at once and gives what the sender
// put on its link for that, in files.
func (l *normLAN) overHTTP(t *testing.T, file string, n int) float64 {
	t.Helper()
	listener, err := l.sender.Listen("tcp4", "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	origin := actors.NewOrigin(filepath.Dir(file))
	origin.Start(listener)
	defer origin.Close()
	before := l.sentBytes(t)
	var fetchers []*lab.Process
	for _, h := range l.receivers[:n] {
		fetchers = append(fetchers, start(t, t.Context(), h, "curl", "-sSf", "-o", "/dev/null", "http://10.0.0.1/"+filepath.Base(file)))
	}
	for _, p := range fetchers {
		ended(t, "curl", p)
	}
	return float64(l.sentBytes(t)-before) / float64(fileSize(t, file))
}

// TestNormCPU compares what senders and receivers cost, to memory and with the
// offloads that a network card has. Programs take turns; each figure is the
// median of the rounds, and so is each ratio, of what was measured in one round.
func TestNormCPU(t *testing.T) {
	rounds := 5
	size := int64(100 << 20)
	if !soak() {
		rounds, size = 1, 32<<20
	}
	file := contents(t, size)[0]
	l := newNormLAN(t, 1, func(int) lab.LinkConfig { return lab.LinkConfig{Offloads: true} })
	var sender, receiver, overLibnorm, overUFTP []float64
	for range rounds {
		round := map[string]outcome{}
		for _, p := range beside(t, cisternOn(t, "asm ipv4", "239.77.3.1:6202", best)) {
			c := cast{caster: p, lan: l, file: file, mbit: 200, receivers: 1, timeout: patience(t, file, 200)}
			out := c.run(t, "CPU/1 receiver, 0 %")
			record(t, out)
			if out.Whole != 1 {
				t.Errorf("%s: the receiver has not got the file", p.name)
			}
			round[p.name] = out
		}
		own := round["cistern asm ipv4"]
		sender, receiver = append(sender, own.Sender), append(receiver, own.Receiver)
		overLibnorm = append(overLibnorm, own.Sender/round["libnorm"].Sender)
		overUFTP = append(overUFTP, own.Receiver/round["uftp"].Receiver)
	}
	timedFigure(t, "norm CPU: sender", median(sender), 3, "CPU-s/GB")
	timedFigure(t, "norm CPU: receiver", median(receiver), 4, "CPU-s/GB")
	if !soak() {
		return
	}
	timedFigure(t, "norm CPU: sender over libnorm's", median(overLibnorm), 0.15, "times")
	timedFigure(t, "norm CPU: receiver over UFTP's", median(overUFTP), 0.5, "times")
}

// median is the middle one of an odd number of values.
func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
