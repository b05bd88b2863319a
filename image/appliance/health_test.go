package appliance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestCheckTakesItsTime: a system on trial is not left because its data is being
// checked, and is when it does not work after that.
func TestCheckTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Boot{Slot: "b", Trial: "b"})
		b.cfg.Patience, b.started = 4*time.Minute, time.Now()
		b.mounted.Store(false)
		b.absent = "the disk"
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go b.judge(ctx)
		left := func() (reason string) {
			synctest.Wait()
			select {
			case reason = <-b.reboot:
			default:
			}
			return reason
		}
		err := b.checked(ctx, func(context.Context) error {
			time.Sleep(2 * b.cfg.Patience)
			if what := b.State().Waiting; !strings.Contains(what, "the check of the data") || !b.alive() {
				t.Errorf("meanwhile it waits for %s", what)
			}
			return nil
		})
		time.Sleep(b.cfg.Patience - time.Second)
		if reason := left(); err != nil || reason != "" || b.State().Waiting != "the disk" {
			t.Errorf("%v; it was left: %q", err, reason)
		}
		time.Sleep(2 * time.Second)
		if reason := left(); !strings.Contains(reason, "the disk") {
			t.Errorf("it does not work, and was not left: %q", reason)
		}
		err = b.checked(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a check that hangs: %v", err)
		}
	})
}
