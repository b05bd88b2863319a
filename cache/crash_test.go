package cache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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

	"github.com/cistern-edge/cistern/cache/content"
)

// The crash test runs the test binary again as a child that fills, pins and
// evicts, kills it at a moment that the seed picks, opens the store and checks
// what the child had been told. CISTERN_CRASH_ROUNDS sets how many times (10 if
// it is not set; a soak takes 200), CISTERN_CRASH_SEED where the rounds begin.
const (
	crashDirEnv    = "CISTERN_CRASH_CHILD" // set in the child: the store's directory
	crashSeedEnv   = "CISTERN_CRASH_SEED"
	crashRoundsEnv = "CISTERN_CRASH_ROUNDS"
)

// What the child keeps: small objects, some with equal bytes, and a large one.
const (
	crashObjects = 30
	crashTwins   = 10 // objects from here on have the bytes of those from 0 on
	crashLarge   = 1000
	crashRoom    = 260 << 20
)

// crashData is the content of object k.
func crashData(k int) []byte {
	if k == crashLarge {
		return largeData()
	}
	if k >= crashObjects-crashTwins {
		k -= crashObjects - crashTwins
	}
	return noise(uint64(k), []int64{0, 5000, mib, 3*mib + 1, 7*mib + 12345}[k%5]+int64(k))
}

// largeData is made once: it takes its time.
var largeData = sync.OnceValue(func() []byte { return noise(crashLarge, 120*mib+17) })

// crasher is the child.
type crasher struct {
	store *Store

	mu sync.Mutex // one says and does at a time
}

// crashChild works until it is killed.
func crashChild(dir string) {
	s, err := Open(Config{Dir: dir, MaxBytes: crashRoom, MinFree: 1, Small: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	seed, _ := strconv.ParseUint(os.Getenv(crashSeedEnv), 10, 64) // the parent wrote it
	c := &crasher{store: s}
	largeData()
	fmt.Println("ready")
	go func() { _ = s.Run(context.Background()) }()
	go c.fillLarge()
	for w := range uint64(3) {
		go c.work(rand.New(rand.NewPCG(seed, w)))
	}
	time.Sleep(time.Minute) // the parent kills it long before
	os.Exit(1)
}

// say tells the parent. The kernel keeps it whatever becomes of the child.
func (c *crasher) say(format string, args ...any) {
	if _, err := fmt.Printf(format+"\n", args...); err != nil {
		os.Exit(1)
	}
}

func (c *crasher) work(rng *rand.Rand) {
	for {
		num, ok := c.fill(rng.IntN(crashObjects), rng)
		if !ok {
			continue
		}
		c.mu.Lock()
		switch rng.IntN(4) {
		case 0:
			if c.store.Pin(num, true) == nil {
				c.say("pinned %d", num)
			}
		case 1:
			c.say("letting %d", num)
			_ = c.store.Pin(num, false) // it may be gone
		case 2:
			c.say("letting %d", num)
			_ = c.store.Evict(num) // it may be gone
		}
		c.mu.Unlock()
	}
}

// fill brings object k in and gives the number that has it.
func (c *crasher) fill(k int, rng *rand.Rand) (uint64, bool) {
	data := crashData(k)
	object := content.Object{Size: int64(len(data))}
	if rng.IntN(2) == 0 {
		object.Size = content.UnknownSize
	}
	f, err := c.start(fmt.Sprint(k), object)
	if err != nil {
		return 0, false
	}
	if f == nil { // it is here
		info, _, ok := c.store.Lookup(fmt.Sprint(k))
		return info.Num, ok && info.Complete
	}
	f.Start(from("memory", data, 1+rng.Int64N(2*mib)))
	<-f.Done()
	if err := f.Err(); err != nil {
		if errors.Is(err, content.ErrBadPiece) {
			c.say("failed %v", err)
		}
		return 0, false
	}
	c.say("complete %d", f.Num())
	return f.Num(), true
}

// start makes or resumes the fill of a name; nil if it is complete.
func (c *crasher) start(name string, object content.Object) (*Fill, error) {
	info, _, ok := c.store.Lookup(name)
	switch {
	case !ok:
		return c.store.Create(Spec{Object: object, Title: name, Public: true}, name, []byte(name))
	case info.Complete:
		return nil, nil
	}
	return c.store.OpenFill(info.Num, nil)
}

// fillLarge tells after each block how much was accepted.
func (c *crasher) fillLarge() {
	for {
		f, err := c.start(fmt.Sprint(crashLarge), content.Object{Size: int64(len(largeData()))})
		if err != nil {
			continue
		}
		if f == nil {
			info, _, _ := c.store.Lookup(fmt.Sprint(crashLarge))
			_ = c.store.Evict(info.Num)
			continue
		}
		f.Start(source{"memory", func(_ context.Context, sink content.Sink) error {
			for {
				r, ok := sink.Claim(-1, mib)
				if !ok {
					return nil
				}
				if err := bring(sink, largeData(), r); err != nil {
					return err
				}
				sink.Release(r)
				c.say("accepted %d %d", f.Num(), r.End)
			}
		}})
		<-f.Done()
		c.say("accepted %d 0", f.Num())
	}
}

// heard is what the child said before it was killed.
type heard struct {
	pinned   map[uint64]bool
	complete map[uint64]bool
	accepted map[uint64]int64
}

// crash runs the child and kills it.
func crash(t *testing.T, dir string, seed uint64) heard {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), crashDirEnv+"="+dir, crashSeedEnv+"="+strconv.FormatUint(seed, 10))
	child.Stderr = os.Stderr
	pipe, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	h := heard{map[uint64]bool{}, map[uint64]bool{}, map[uint64]int64{}}
	rng := rand.New(rand.NewPCG(seed, 99))
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		var num uint64
		var end int64
		_, _ = fmt.Sscan(rest, &num, &end) // as many as there are
		switch word {
		case "ready":
			kill := time.AfterFunc(time.Duration(rng.IntN(600))*time.Millisecond, func() { _ = child.Process.Kill() })
			defer kill.Stop()
		case "pinned":
			h.pinned[num] = true
		case "letting":
			delete(h.pinned, num)
		case "complete":
			h.complete[num] = true
		case "accepted":
			h.accepted[num] = end
		default:
			t.Errorf("child said %q", lines.Text())
		}
	}
	_ = child.Wait() // it was killed
	return h
}

func TestCrash(t *testing.T) {
	t.Parallel()
	rounds, seed := 10, uint64(1)
	for env, set := range map[string]func(n uint64){
		crashRoundsEnv: func(n uint64) { rounds = int(n) },
		crashSeedEnv:   func(n uint64) { seed = n },
	} {
		if text := os.Getenv(env); text != "" {
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				t.Fatalf("%s: %v", env, err)
			}
			set(n)
		}
	}
	dir := t.TempDir()
	var complete, partial, pins int
	for round := range rounds {
		h := crash(t, dir, seed+uint64(round))
		s, err := Open(Config{Dir: dir, MaxBytes: crashRoom, MinFree: 1, Small: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, info := range s.List() {
			if info.Complete {
				complete++
			} else {
				partial++
			}
			checkBytes(t, s, info)
		}
		for num := range h.pinned {
			if info, ok := s.Get(num); !ok || !info.Pinned {
				t.Errorf("round %d: the pin of object %d was lost", round, num)
			}
			pins++
		}
		checkProgress(t, s, h)
		for _, info := range s.List() { // room for the next round
			if err := s.Pin(info.Num, false); err != nil {
				t.Error(err)
			}
		}
		s.sweep()
		for num := range blobFiles(dir) {
			if _, ok := s.Get(num); !ok {
				t.Errorf("round %d: nobody knows blob %d", round, num)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("round %d of seed %d failed", round, seed)
		}
	}
	t.Logf("%d rounds: checked %d complete and %d partial objects, %d pins", rounds, complete, partial, pins)
	if complete == 0 || partial == 0 || pins == 0 {
		t.Error("the rounds were too short to show anything")
	}
}

// checkBytes compares all that can be read of an object with its content.
func checkBytes(t *testing.T, s *Store, info Info) {
	t.Helper()
	// By its title: two workers may create the same name at once, and the older
	// object loses it.
	k, err := strconv.Atoi(info.Title)
	if err != nil {
		t.Fatal(err)
	}
	data := crashData(k)
	readable := content.Ranges{{Off: 0, End: info.Size}}
	if !info.Complete {
		f, err := s.OpenFill(info.Num, nil)
		if errors.Is(err, ErrNotFound) && !info.Pinned { // its body was being removed
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		readable = f.readable
	}
	if info.Complete && info.Size != int64(len(data)) {
		t.Errorf("object %s has %d bytes, want %d", info.Title, info.Size, len(data))
		return
	}
	r, err := s.Read(info.Num)
	if errors.Is(err, ErrNotFound) && !info.Pinned { // its body was being removed, or had not left memory
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	for _, rng := range readable {
		got := make([]byte, rng.Len())
		if _, err := r.ReadAt(got, rng.Off); err != nil && err != io.EOF || !bytes.Equal(got, data[rng.Off:rng.End]) {
			t.Errorf("object %s (complete: %v): %s is wrong, %v", info.Title, info.Complete, rng, err)
		}
	}
}

// checkProgress makes sure that a crash costs at most 64 MiB of a fill, and the
// block that was not whole.
func checkProgress(t *testing.T, s *Store, h heard) {
	t.Helper()
	for num, accepted := range h.accepted {
		info, ok := s.Get(num)
		if !ok || info.Complete || accepted == 0 {
			continue
		}
		f, err := s.OpenFill(num, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		if lost := accepted - f.readable.From(0); lost > 65*mib {
			t.Errorf("%d bytes of a fill have to be brought again", lost)
		}
	}
}
