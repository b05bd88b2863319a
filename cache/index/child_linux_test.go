package index

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test binary, run again, is a process that has an index and is killed, or
// loses its disk. It says what it does line by line.

const (
	childEnv    = "CISTERN_INDEX_CHILD"
	childDirEnv = "CISTERN_INDEX_DIR"
)

// TestMain lets the test binary stand in for a process that is killed, or whose
// disk dies.
func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		child(part)
	}
	os.Exit(m.Run())
}

func child(part string) {
	cfg := Config{Dir: os.Getenv(childDirEnv), Small: !strings.HasSuffix(part, ".large")}
	if !strings.HasPrefix(part, "disk") {
		cfg.Reserve = 1 << 20
	}
	x, err := Open(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		say("failed", err)
		os.Exit(1)
	}
	switch name, _, _ := strings.Cut(part, "."); name {
	case "write":
		childWrites(x)
	case "disk":
		childServes(x)
	case "load":
		childLoads(x)
	case "memory":
		childIdles(x)
	}
	os.Exit(0)
}

var sayMu sync.Mutex

func say(words ...any) {
	sayMu.Lock()
	defer sayMu.Unlock()
	fmt.Println(words...)
}

// story is what the child writes: number n is two records that are one Update.
func story(n uint64) []Op {
	value := binary.BigEndian.AppendUint64(nil, n)
	value = append(value, bytes.Repeat([]byte{byte(n)}, int(n%2000))...)
	last := binary.BigEndian.AppendUint64(nil, n)
	return []Op{
		{Key: storyKey(n), Value: value},
		{Key: fmt.Appendf(nil, "z/twin/%d", n), Value: value},
		{Key: []byte("last"), Value: last},
		{Key: fmt.Appendf(nil, "gone/%d", n), Value: value},
		{Key: fmt.Appendf(nil, "gone/%d", n-1), Delete: true},
	}
}

func storyKey(n uint64) []byte { return fmt.Appendf(nil, "a/%d", n) }

// checkStory finds all numbers up to acked, and only whole Updates. It gives how
// many are lost.
func checkStory(t *testing.T, x *Index, acked uint64) (lost int) {
	t.Helper()
	all := contents(t, x, nil, nil)
	last := uint64(0)
	if v, ok := all["last"]; ok {
		last = binary.BigEndian.Uint64([]byte(v))
	}
	for n := uint64(1); n <= acked; n++ {
		if all[string(storyKey(n))] != string(story(n)[0].Value) {
			lost++
		}
	}
	if last < acked {
		t.Errorf("the last of %d acknowledged Updates is %d", acked, last)
	}
	for n := uint64(1); n <= last; n++ {
		if all[string(storyKey(n))] != all[fmt.Sprintf("z/twin/%d", n)] {
			t.Errorf("half of update %d is there", n)
		}
	}
	if len(all) != int(2*last)+min(int(last), 1)*2 {
		t.Errorf("%d records for %d updates", len(all), last)
	}
	return lost
}

// resume is the next number of a story.
func resume(x *Index) uint64 {
	if v, err := x.Get([]byte("last")); err == nil {
		return binary.BigEndian.Uint64(v) + 1
	}
	return 1
}

func childWrites(x *Index) {
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for n := resume(x); ; n++ {
		if err := x.Update(story(n)...); err != nil {
			panic(err)
		}
		if rng.IntN(20) > 0 {
			continue
		}
		if err := x.Commit(context.Background()); err != nil {
			panic(err)
		}
		say("acked", n)
	}
}

// childServes reads and writes until it is told to close.
func childServes(x *Index) {
	quit := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(quit)
	}()
	if x.Set([]byte("hit"), []byte("yes")) != nil || x.Commit(context.Background()) != nil {
		panic("the first commit failed")
	}
	acked := resume(x) - 1
	for n := acked + 1; ; n++ {
		select {
		case <-quit:
			began := time.Now()
			err := x.Close()
			say("closed", time.Since(began).Milliseconds(), "ms", err)
			return
		default:
		}
		if x.Pending() < MaxPending {
			if err := x.Update(story(n)...); err != nil {
				panic(err)
			}
		} else {
			n--
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := x.Commit(ctx)
		cancel()
		hit, readErr := x.Get([]byte("hit"))
		old, oldErr := x.Get(storyKey(1 + n%max(1, acked)))
		if string(hit) != "yes" || oldErr != nil || len(old) < 8 {
			say("unread", readErr, oldErr)
		}
		if err != nil {
			say("refused", n, err, "; health:", x.Health())
			time.Sleep(20 * time.Millisecond)
			continue
		}
		acked = n
		say("acked", n)
	}
}

// start runs a child, and gives its lines and its input.
func start(t *testing.T, part, dir string) (cmd *exec.Cmd, lines <-chan string, stdin io.Closer) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+part, childDirEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	c := make(chan string, 1<<16)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(c)
		for s := bufio.NewScanner(out); s.Scan(); {
			c <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range c { // so that the reader ends
		}
		<-read
		_ = cmd.Wait()
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("child %s:\n%s", part, stderr.Bytes()[:min(stderr.Len(), 4000)])
		}
	})
	return cmd, c, stdin
}

// number is what a line says after word.
func number(line, word string) (uint64, bool) {
	rest, ok := strings.CutPrefix(line, word+" ")
	if !ok {
		return 0, false
	}
	first, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(first, 10, 64)
	return n, err == nil
}

// TestKill kills a process that writes, again and again, and finds all that it
// had acknowledged, and nothing by halves.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 25
	if soak {
		rounds = 200
	}
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(11, 5))
	var acked uint64
	lost := 0
	for round := range rounds {
		cmd, lines, _ := start(t, "write", dir)
		first := time.After(time.Minute)
		kill := (<-chan time.Time)(nil)
		for open := true; open; {
			select {
			case line, ok := <-lines:
				if open = ok; !ok {
					break
				}
				n, said := number(line, "acked")
				if !said {
					t.Fatalf("round %d: %s", round, line)
				}
				acked = n
				if kill == nil {
					kill = time.After(time.Duration(rng.IntN(80)) * time.Millisecond)
				}
			case <-kill:
				must(t, cmd.Process.Kill())
				kill = make(chan time.Time) // lines already written are read
			case <-first:
				t.Fatalf("round %d: the child acknowledged nothing", round)
			}
		}
		_ = cmd.Wait()
		x := mustOpen(t, small(dir))
		if fresh, why := x.Fresh(); fresh {
			t.Fatalf("round %d: fresh: %s", round, why)
		}
		lost += checkStory(t, x, acked)
		mustClose(t, x)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		if acked > 6000 && !soak { // checking all of it takes longer each time
			must(t, os.RemoveAll(dir))
			acked = 0
		}
	}
	figure(t, "index: acknowledged updates lost by kill -9", lost, fmt.Sprintf("in %d rounds", rounds), "0", lost == 0)
}
