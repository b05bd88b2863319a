package qualify

import (
	"bufio"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// number reads a file of /sys or /proc that holds one; 0 if there is none.
func number(file string) int64 {
	n, err := strconv.ParseInt(read(file), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sum adds up what files hold.
func sum(pattern string) (n int64) {
	files, err := filepath.Glob(pattern)
	if err != nil { // the patterns are constants
		return 0
	}
	for _, f := range files {
		n += number(f)
	}
	return n
}

// field gives what a line "name : value" of a file says.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (q *Qualifier) processor(ctx context.Context) {
	q.hashes(ctx)
	q.report.Processor.Model = field("/proc/cpuinfo", "model name")
	if q.report.Processor.Model == "" { // ARM boards say what they are as a whole
		q.report.Processor.Model = strings.TrimRight(read("/proc/device-tree/model"), "\x00")
	}
}

// soak heats the processor and watches its sensors and its own word of slowing
// down: a count on Intel's, bits on a Raspberry Pi.
func (q *Qualifier) soak(ctx context.Context) {
	const (
		counts = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
		pi     = "/sys/devices/platform/soc/soc:firmware/get_throttled"
		// Under-voltage, frequency capped, throttled, soft limit: now.
		slowed = 0xf
	)
	t := &q.report.Thermal
	before, start := sum(counts), time.Now()
	t.Kept = heat(ctx, q.budget.soak, func() {
		zones, err := filepath.Glob("/sys/class/thermal/thermal_zone*/temp")
		if err != nil { // the pattern is a constant
			return
		}
		for _, z := range zones {
			t.Celsius = max(t.Celsius, float64(number(z))/1000)
		}
		state, err := strconv.ParseInt(strings.TrimPrefix(read(pi), "0x"), 16, 64)
		t.Throttled = t.Throttled || err == nil && state&slowed != 0
	})
	t.Seconds, t.Throttled = time.Since(start).Seconds(), t.Throttled || sum(counts) > before
}

// kibibytes reads a line of /proc/meminfo, as bytes.
func kibibytes(name string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", name), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// memory writes patterns to memory of its own and reads them back.
func (q *Qualifier) memory(ctx context.Context) {
	m := &q.report.Memory
	m.Bytes, m.Available = kibibytes("MemTotal"), kibibytes("MemAvailable")
	if size := min(int64(q.pattern), m.Available/8); size >= markBytes {
		words := make([]uint64, size/8)
		m.Tested = size
		start := time.Now()
		for pass := uint64(0); (pass == 0 || time.Since(start) < q.budget.memory) && ctx.Err() == nil; pass++ {
			m.Wrong += patterns(words, pass)
		}
	}
	m.Corrected = uint64(sum("/sys/devices/system/edac/mc/mc*/ce_count"))
}

func (q *Qualifier) random(context.Context) {
	r := &q.report.Random
	if r.Hardware = read("/sys/class/misc/hw_random/rng_current"); r.Hardware == "none" {
		r.Hardware = ""
	}
	if flags := " " + field("/proc/cpuinfo", "flags") + " "; r.Hardware == "" && strings.Contains(flags, " rdrand ") {
		r.Hardware = "rdrand"
	}
	_, err := unix.Getrandom(make([]byte, 32), unix.GRND_NONBLOCK)
	if r.Ready = err == nil; !r.Ready {
		return
	}
	start := time.Now()
	if _, err := rand.Read(make([]byte, 1<<20)); err == nil {
		r.Millis = float64(time.Since(start).Microseconds()) / 1000
	}
}

func (q *Qualifier) clock(ctx context.Context) {
	c := &q.report.Clock
	c.Source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if kept := number("/sys/class/rtc/rtc0/since_epoch"); kept > 0 {
		c.Kept, c.Offset = true, float64(kept)-float64(time.Now().Unix())
	}
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err == nil {
		c.Synchronised = state.Status&unix.STA_UNSYNC == 0
	}
	for range q.sleeps {
		start := time.Now()
		pause(ctx, time.Millisecond)
		c.Overslept = max(c.Overslept, float64((time.Since(start)-time.Millisecond).Microseconds())/1000)
	}
}

// watchdog looks without opening: who opens a watchdog starts it.
func (q *Qualifier) watchdog(context.Context) {
	const dir = "/sys/class/watchdog/watchdog0"
	w := &q.report.Watchdog
	_, err := os.Stat(dir)
	w.Present = err == nil
	w.Name, w.Active = read(dir+"/identity"), read(dir+"/state") == "active"
}
