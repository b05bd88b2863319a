package hwtest

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/faultfs"
)

// TestVolumePulled: of two disks the one without the index is pulled while
// clients ask, and comes back; at last the one with the index is dead at a start.
func TestVolumePulled(t *testing.T) {
	t.TempDir()
	first := faultfs.Mount(t, t.TempDir(), faultfs.Config{Capacity: 1 << 30, Ordered: true})
	// As much for objects as the first has beside the index.
	second := faultfs.Mount(t, t.TempDir(), faultfs.Config{Capacity: 940 << 20, Ordered: true})
	s := newScene(t)
	c := newCrowd(t, s)
	config := s.config + diskConfig + fmt.Sprintf("volumes = [%q]\n", second.Dir())
	box, err := actors.StartBox(t.Context(), s.box, bin, filepath.Join(first.Dir(), "box"), config)
	if err != nil {
		t.Fatal(err)
	}
	c.use(box)
	rounds, objects := 1, 24
	if soak() {
		rounds, objects = 10, 60
	}
	c.pin(t, 4, 2_000_000)
	var known []thing
	hits := func(of []thing) (n int) {
		for i, o := range of {
			if c.ask(t.Context(), i, o).hit {
				n++
			}
		}
		return n
	}
	warm, enough := context.WithTimeout(t.Context(), 3*time.Second)
	c.run(warm, 6) // until both have as much room
	enough()
	slowest, served, fetched := time.Duration(0), 0, 0
	for round := range rounds {
		known = known[:0]
		for i := range objects {
			known = append(known, c.fresh([]int{1_000_000, 30_000}[i%2]))
		}
		hits(known)
		if n := hits(known); n != len(known) {
			t.Errorf("round %d: %d of %d are kept", round, n, len(known))
		}
		time.Sleep(6 * time.Second) // cards are saved
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { c.run(ctx, 6) })
		time.Sleep(2 * time.Second)

		second.Fail(faultfs.Gone)
		time.Sleep(4 * time.Second)
		c.alive(t)
		half := known[:len(known)/2]
		stayed := hits(half) // the others are fetched again
		if again := hits(half); again != len(half) {
			t.Errorf("round %d: %d of %d were kept when fetched again", round, again, len(half))
		}
		served, fetched = served+stayed, fetched+len(half)-stayed

		second.Fail(faultfs.Healthy)
		back := time.Now()
		waitFor(t, "the volume", func() bool {
			out, err := box.Process.Output()
			return err == nil && bytes.Count(out, []byte("adopted what lay on a volume")) > round
		})
		slowest = max(slowest, time.Since(back))
		rest := known[len(known)/2:]
		n := hits(rest)
		if n != len(rest) {
			t.Errorf("round %d: %d of %d that nobody asked for meanwhile are hits", round, n, len(rest))
		}
		cancel()
		asking.Wait()
		c.alive(t)
		t.Logf("round %d: %d of %d hits while pulled; back, %d of %d hits", round, stayed, len(half), n, len(rest))
	}
	// The disk with the index dies: the box is started on the other one.
	if err := box.Process.Stop(); err != nil {
		t.Error(err)
	}
	first.Fail(faultfs.Gone)
	if box, err = actors.StartBox(t.Context(), s.box, bin, second.Dir(), s.config+diskConfig); err != nil {
		t.Fatal(err)
	}
	c.use(box)
	n := hits(known)
	c.keeps(t)
	if n == 0 || n == len(known) {
		t.Errorf("%d of %d hits with the second disk alone: not tried", n, len(known))
	}
	t.Logf("the index's disk is dead: %d of %d hits from the second disk", n, len(known))
	first.Fail(faultfs.Healthy)
	t.Log(c.story())
	t.Logf("with one disk %d objects were hits and %d fetched again", served, fetched)
	if served == 0 || fetched == 0 {
		t.Error("not tried")
	}
	figure(t, "volume pulled: until its objects are adopted again", slowest.Seconds(), 10, "s")
	figure(t, fmt.Sprintf("volume pulled %d times: wrong answers", rounds), float64(c.count.wrong.Load()), 0, "answers")
	figure(t, "volume pulled: refused requests", float64(c.count.refused.Load()), 0, "answers")
	figure(t, "volume pulled: answers cut short", float64(c.count.cut.Load()), 0, "answers")
}
