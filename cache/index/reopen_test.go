package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// breakEngine is what a failed write does.
func breakEngine(x *Index) { _ = x.fail(errors.New("for the test")) }

// TestReopen: Badger fails in a write; nothing that was set is lost, readers
// find all of it meanwhile, and what comes later reaches the disk.
func TestReopen(t *testing.T) {
	t.Parallel()
	cfg := small(t.TempDir())
	x := mustOpen(t, cfg)
	set := func(n int) { must(t, x.Set(fmt.Appendf(nil, "k/%04d", n), fmt.Appendf(nil, "v%d", n))) }
	n := 0
	for ; n < 200; n++ {
		set(n)
	}
	mustCommit(t, x)

	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			// A reader inside a walk must be able to look up more.
			_, err := x.Scan([]byte("k/"), []byte("k0"), func(key, _ []byte) bool {
				_, err := x.Get(key)
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
				return err == nil
			})
			if err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for round := range 3 {
		breakEngine(x)
		set(n)
		n++
		deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		for x.Commit(deadline) != nil && deadline.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
		if err := x.Health(); err != nil || x.Stats().Reopens != uint64(round+1) {
			t.Fatalf("round %d: %v, %+v", round, err, x.Stats())
		}
	}
	stop()
	reading.Wait()
	mustClose(t, x)
	y := mustOpen(t, cfg)
	if got := contents(t, y, []byte("k/"), []byte("k0")); len(got) != n {
		t.Errorf("%d records of %d", len(got), n)
	}
	mustClose(t, y)
}

// TestReopenAtClose: Badger has failed and is not opened anew before Close.
func TestReopenAtClose(t *testing.T) {
	t.Parallel()
	cfg := small(t.TempDir())
	x := mustOpen(t, cfg)
	must(t, x.Set([]byte("a"), []byte("1")))
	mustCommit(t, x)
	breakEngine(x)
	must(t, x.Set([]byte("b"), []byte("2")))
	mustClose(t, x)
	if _, err := x.Get([]byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	y := mustOpen(t, cfg)
	if got := contents(t, y, nil, nil); got["a"] != "1" {
		t.Errorf("acknowledged, and lost: %v", got)
	}
	mustClose(t, y)
}
