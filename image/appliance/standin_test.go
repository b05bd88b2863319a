package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

func TestWhyNoData(t *testing.T) {
	for fault, want := range map[error]string{
		unix.EINVAL: "damaged", unix.EUCLEAN: "damaged", unix.EBADMSG: "damaged", unix.EIO: "answers with errors", unix.ENOSPC: "it is full",
		unix.EROFS: "only be read", unix.EACCES: "only be read", errNoDisk: "was not found", errors.New("e2fsck"): "e2fsck",
	} {
		why := whyNoData(fmt.Errorf("mount the data: %w", fault))
		cure := "factory reset"
		if takesNothing(fault) || errors.Is(fault, unix.EIO) || errors.Is(fault, errNoDisk) {
			cure = "eplace it"
		}
		if !strings.Contains(why, want) || !strings.Contains(why, cure) {
			t.Errorf("%v: %s", fault, why)
		}
	}
}

func TestRoomForFirst(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "cistern.toml")
	if err := roomForFirst(config); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if err := roomForFirst(filepath.Join(dir, "gone", "cistern.toml")); err == nil {
		t.Error("where nothing can be written there is room")
	}
	if err := os.WriteFile(config, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "room.new"), 0o700), roomForFirst(config)); err != nil {
		t.Errorf("a box that has its settings: %v", err)
	}
}

// TestWithoutData: a box whose data cannot be used takes no update, and a reset
// marks the partition and touches nothing else.
func TestWithoutData(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	b.lack("a data partition that can be used: it is gone")
	if what := b.missing(t.Context()); !strings.Contains(what, "it is gone") {
		t.Errorf("it waits for %s", what)
	}
	if _, err := b.Update(t.Context(), bytes.NewReader(b.file(t, system, nil))); !errors.Is(err, ErrNoData) || !strings.Contains(err.Error(), "it is gone") || b.env != nil {
		t.Errorf("an update: %v; the boot loader was told %v", err, b.env)
	}
	dev := filepath.Join(b.state, "device")
	b.device = func(int) string { return dev }
	if err := b.Reset(t.Context()); !errors.Is(err, errTakesNothing) {
		t.Errorf("a disk that is not there was marked: %v", err)
	}
	held := bytes.Repeat([]byte("photos"), 1000)
	if err := os.WriteFile(dev, held, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Reset(t.Context()); err != nil || !halfMade(dev) {
		t.Errorf("the next start makes nothing anew: %v", err)
	}
	if got, err := os.ReadFile(dev); err != nil || !bytes.Equal(got[len(resetMark):], held[len(resetMark):]) {
		t.Errorf("more was changed than the mark: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.state, resetFile)); err == nil {
		t.Error("the reset is asked of what stands in")
	}
}

// TestTrialWithoutData: a new system that cannot use the data leaves for the old
// one, but on a disk that cannot be told so it stays.
func TestTrialWithoutData(t *testing.T) {
	for _, row := range []struct {
		disk  error
		stays bool
	}{{nil, false}, {unix.EIO, false}, {fmt.Errorf("mount the ESP: %w", unix.EACCES), true}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, Boot{Slot: "b", Trial: "b", Left: "2"})
			b.cfg.Patience, b.started = 4*time.Minute, time.Now()
			b.lack("a data partition that can be used")
			var told atomic.Int32
			b.setEnv = func(env image.GrubEnv) error { b.env = env; told.Add(1); return row.disk }
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go b.judge(ctx)
			time.Sleep(b.cfg.Patience - time.Second)
			synctest.Wait()
			if told.Load() != 0 || len(b.reboot) != 0 {
				t.Errorf("%v: left too soon", row.disk)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if b.env["slot"] != "a" || b.env["left"] != "0" || (len(b.reboot) == 0) != row.stays || told.Load() != 1 || b.alive() != row.stays {
				t.Errorf("%v: the boot loader was told %v, restarts %d, alive %v", row.disk, b.env, len(b.reboot), b.alive())
			}
		})
	}
}

// TestNotHeldAgainst: an update whose trial nobody could judge may come again; one
// that was committed when the power went is.
func TestNotHeldAgainst(t *testing.T) {
	trial := Outcome{Version: "1.1", Serial: 101, Slot: "b", State: "trial", Starts: 1}
	for _, row := range []struct {
		name   string
		boot   Boot
		serial uint64 // of what runs
		absent string
		state  string
		says   string
	}{
		{"the data is away", Boot{Slot: "a", Trial: "b", Left: "none"}, 100, "a disk", "failed", "waited for a disk"},
		{"the data was away", Boot{Slot: "a"}, 100, "", "failed", "nobody could note why"},
		{"it was committed", Boot{Slot: "b"}, 101, "", "committed", ""},
		{"another is in its slot", Boot{Slot: "b"}, 103, "", "failed", "nobody could note why"},
	} {
		b := newBench(t, row.boot)
		b.outcome(func(o *Outcome) { *o = trial })
		next := &Box{log: b.log, ring: b.ring, boot: row.boot, state: b.state, release: image.Release{Version: "x", Serial: row.serial}, setEnv: b.setEnv, absent: row.absent}
		next.settle()
		last := next.State().Last
		if last == nil || last.State != row.state || !strings.Contains(last.Reason, row.says) {
			t.Fatalf("%s: %+v", row.name, last)
		}
		next.release.Serial = 100
		if why := next.unwanted("1.1", 101); why != "" && row.state == "failed" {
			t.Errorf("%s: %s", row.name, why)
		}
	}
}
