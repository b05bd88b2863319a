package cache

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// soak says whether tests run at full size (make soak).
func soak() bool { return os.Getenv("CISTERN_SOAK") == "1" }

// roundsOf is how many rounds a test takes: what the environment says, or less
// unless it is a soak.
func roundsOf(t *testing.T, env string, full, reduced int) int {
	t.Helper()
	text := os.Getenv(env)
	switch {
	case text != "":
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s: %q is no number of rounds", env, text)
		}
		return n
	case soak():
		return full
	}
	return reduced
}

// seedOf is where the rounds begin.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("CISTERN_CRASH_SEED")
	if text == "" {
		return 1
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("CISTERN_CRASH_SEED: %v", err)
	}
	return seed
}

// death says when a child is killed: after so many events since it was ready, or
// at the latest after, and then a little later.
type death struct {
	events int
	latest time.Duration
	later  time.Duration
	early  bool // it need not be ready
}

// spend runs a child and kills it.
func spend(t *testing.T, o orders, when death) report {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childEnv+"=1")
	child.Stderr = os.Stderr
	in, inErr := child.StdinPipe()
	out, outErr := child.StdoutPipe()
	if inErr != nil || outErr != nil {
		t.Fatal(inErr, outErr)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func(after time.Duration) { time.AfterFunc(after, func() { _ = child.Process.Kill() }) }
	if when.early {
		kill(when.later)
	}
	stuck := time.AfterFunc(time.Minute, func() { // says where
		t.Errorf("a child did not die in time: %v", child.Process.Signal(syscall.SIGQUIT))
	})
	defer stuck.Stop()
	// A child that is killed early may not read to the end.
	_ = json.NewEncoder(in).Encode(o)
	found := o.Ledger.hear(t, out, when, kill)
	_ = child.Wait() // it was killed
	return found
}

// hear enters what a child says until it is dead. A last line that the kill cut
// short says nothing.
func (l *ledger) hear(t *testing.T, out io.Reader, when death, kill func(time.Duration)) (found report) {
	t.Helper()
	left := -1
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return found
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Errorf("a child said %q", line)
			continue
		}
		switch e.What {
		case "report":
			found.add(e.Report)
		case "ready":
			clear(l.Accepted) // those fills do not run any more
			left = when.events
			kill(when.latest)
		default:
			l.note(e)
			left--
		}
		if left == 0 {
			kill(when.later)
			left--
		}
	}
}

// lives has one child after the other work in a store, kills each and then
// calls between; the last one only looks. It returns what they have found.
func lives(t *testing.T, cfg Config, seed uint64, rounds int, between func(seed uint64)) (total report) {
	t.Helper()
	l := newLedger()
	o, events, latest := orders{Config: cfg, Ledger: l, Large: 10 * mib}, 60, 2*time.Second
	if soak() {
		o.Large, events, latest = 80*mib, 250, 3*time.Second
		o.Config.MaxBytes *= 4
	}
	for round := range rounds {
		o.Seed = seed + uint64(round)
		rng := rand.New(rand.NewPCG(o.Seed, 99))
		when := death{
			events: 1 + rng.IntN(events), latest: latest,
			early: rng.IntN(6) == 0, later: time.Duration(rng.IntN(30)) * time.Millisecond,
		}
		if when.early { // within Open, or the audit
			when.later *= 10
		}
		o.Audit = rng.IntN(4) > 0 // else the next child finds what two have left
		found := spend(t, o, when)
		total.add(found)
		if len(found.Faults) > 0 { // the figures count them too
			t.Errorf("seed %d, after %d rounds: %q", seed, round, found.Faults)
			return total
		}
		between(o.Seed)
	}
	o.Audit = true
	total.add(spend(t, o, death{}))
	for _, fault := range total.Faults {
		t.Errorf("seed %d, at the end: %s", seed, fault)
	}
	return total
}

// figures prints what lives have shown.
func (r report) figures(t *testing.T, part string, rounds int) {
	t.Helper()
	if r.Complete+r.Small+r.Partial == 0 || rounds >= 20 && min(r.Complete, r.Small, r.Partial, r.Pins, r.Denials, r.Fills) == 0 {
		t.Errorf("%s: the rounds were too short to show anything: %+v", part, r)
	}
	t.Logf("%s: %d rounds: %d complete, %d small and %d partial objects read and compared, %d forgotten when asked for; %d pins, %d denials and %d running fills looked up",
		part, rounds, r.Complete, r.Small, r.Partial, r.Forgotten, r.Pins, r.Denials, r.Fills)
	figure(t, part+": promises broken or wrong bytes", float64(len(r.Faults)), 0, "")
	figure(t, part+": most of a fill to bring again", float64(r.Again)/mib, 64, "MiB")
}

// figure states a measured figure beside the most that it may be.
func figure(t *testing.T, name string, value, bound float64, unit string) {
	t.Helper()
	verdict := "ok"
	if value > bound {
		verdict = "short"
		t.Errorf("%s is %.4g %s, at most %.4g", name, value, unit, bound)
	}
	t.Logf("figure: %s: %.4g %s (bound %.4g): %s", name, value, unit, bound, verdict)
}

// crashConfig is of the stores that children work in: little room, so that
// objects and segments have to leave, and a scrub that never rests.
func crashConfig(dir string) Config {
	return Config{Dir: dir, MaxBytes: 50 * mib, SmallBytes: 12 * mib, MinFree: 1, Small: true, ScrubPeriod: time.Second}
}

// TestCrash kills a store that several clients fill, evict from, pin, rename and
// purge in, over and over, and looks what it still knows. CISTERN_CRASH_ROUNDS
// sets how often, CISTERN_CRASH_SEED where the seeds begin.
func TestCrash(t *testing.T) {
	t.Parallel()
	rounds := roundsOf(t, "CISTERN_CRASH_ROUNDS", 200, 4)
	totals := make([]report, 1)
	if soak() {
		totals = make([]report, 2) // two stores at the same time
	}
	t.Run("stores", func(t *testing.T) {
		for i := range totals {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				totals[i] = lives(t, crashConfig(t.TempDir()), seedOf(t)+uint64(i)*1e6, (rounds+i)/len(totals), func(uint64) {})
			})
		}
	})
	var sum report
	for _, r := range totals {
		sum.add(r)
	}
	sum.figures(t, "store.crash", rounds)
}
