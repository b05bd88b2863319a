package index

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const recordsEnv = "CISTERN_INDEX_RECORDS"

// objects sets n short records under one prefix and n longer ones under another,
// as the store does.
func objects(x *Index, n int) {
	short, long := make([]byte, 72), make([]byte, 300)
	for i := range n {
		binary.BigEndian.PutUint64(short, uint64(i)*0x9E3779B97F4A7C15)
		binary.BigEndian.PutUint64(long, uint64(i)*0x9E3779B97F4A7C15)
		key := binary.BigEndian.AppendUint64([]byte{'o'}, uint64(i))
		err := x.Update(Op{Key: key, Value: short}, Op{Key: append([]byte{'m'}, key[1:]...), Value: long})
		if err != nil {
			panic(err)
		}
		if x.Pending() > 8<<20 {
			if err := x.Commit(context.Background()); err != nil {
				panic(err)
			}
		}
	}
	if err := x.Commit(context.Background()); err != nil {
		panic(err)
	}
}

func childRecords() int {
	n, err := strconv.Atoi(os.Getenv(recordsEnv))
	if err != nil {
		panic(err)
	}
	return n
}

func childLoads(x *Index) {
	n, began := childRecords(), time.Now()
	objects(x, n)
	say("acked", int(float64(2*n)/time.Since(began).Seconds()))
	select {} // to be killed
}

// childIdles reads an index as the store does at its start, works a little, and
// says what it weighs.
func childIdles(x *Index) {
	for _, p := range []byte{'o', 'm'} {
		if _, err := x.Scan([]byte{p}, []byte{p + 1}, func(_, _ []byte) bool { return true }); err != nil {
			panic(err)
		}
	}
	objects(x, childRecords()/4) // overwritten, as hits are counted
	for merging := true; merging; time.Sleep(50 * time.Millisecond) {
		x.mu.RLock()
		merging = x.merging > 0
		x.mu.RUnlock()
	}
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "VmRSS:" || f[0] == "VmHWM:") {
			say(f[0], f[1])
		}
	}
}

// TestMillion kills a process that loaded a million objects, and opens and reads
// all, with two Scans at once.
func TestMillion(t *testing.T) {
	n := 50_000
	if soak {
		n = 1_000_000
	}
	if testing.Short() {
		n = 2000
	}
	t.Setenv(recordsEnv, strconv.Itoa(n))
	dir := t.TempDir()
	cmd, lines, _ := start(t, "load.large", dir)
	var rate uint64
	for line := range lines {
		var ok bool
		if rate, ok = number(line, "acked"); !ok {
			t.Fatal(line)
		}
		must(t, cmd.Process.Kill())
	}
	fullFigure(t, "index: sets in bulk", rate, "per s", "100000", rate >= 100_000)

	began, worked := time.Now(), cpuTime()
	x := mustOpen(t, Config{Dir: dir, Reserve: 1 << 20})
	opened := time.Since(began)
	var wg sync.WaitGroup
	for _, p := range []byte{'o', 'm'} {
		wg.Go(func() {
			seen := 0
			bad, err := x.Scan([]byte{p}, []byte{p + 1}, func(key, value []byte) bool {
				if binary.BigEndian.Uint64(value) == binary.BigEndian.Uint64(key[1:])*0x9E3779B97F4A7C15 {
					seen++
				}
				return true
			})
			if seen != n || bad > 0 || err != nil {
				t.Errorf("%c: %d seen, %d bad, %v", p, seen, bad, err)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	name := fmt.Sprintf("index: open (%v) and two scans of %d objects after kill -9, with %v of CPU",
		opened.Round(time.Millisecond), n, (cpuTime() - worked).Round(time.Millisecond))
	fullFigure(t, name, took.Round(time.Millisecond), "", "1.2 s", took <= 1200*time.Millisecond)
}

// cpuTime is what this process has worked: beside a busy neighbour the clock says
// little.
func cpuTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // fails for no such argument
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestMemory weighs a process that does nothing but keep an index.
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		part        string
		objects     int
		bound, peak uint64 // MB
	}{{"large", 110_000, 100, 150}, {"small", 1000, 32, 48}} {
		n := tt.objects
		if !soak {
			n = min(n, 10_000)
		}
		dir := t.TempDir()
		x := mustOpen(t, Config{Dir: dir, Small: tt.part == "small", Reserve: 1 << 20})
		objects(x, n)
		mustClose(t, x)
		t.Setenv(recordsEnv, strconv.Itoa(n))
		_, lines, _ := start(t, "memory."+tt.part, dir)
		got := map[string]uint64{}
		for line := range lines {
			for _, what := range []string{"VmRSS:", "VmHWM:"} {
				if kb, ok := number(line, what); ok {
					got[what] = kb / 1024
				}
			}
		}
		name := fmt.Sprintf("index: memory of a process with %d objects, %s profile", n, tt.part)
		for what, bound := range map[string]uint64{"VmRSS:": tt.bound, "VmHWM:": tt.peak} {
			mb := got[what]
			if mb == 0 {
				t.Errorf("%s: no %s", name, what)
			}
			fullFigure(t, name+", "+strings.TrimSuffix(what, ":"), mb, "MB", fmt.Sprintf("%d MB", bound), mb <= bound)
		}
	}
}
