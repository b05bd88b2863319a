package appliance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// trialStarts is how many starts a new system gets, as grub.cfg counts them.
const trialStarts = 3

// Files of the Box's folder, which outlive slots.
const (
	outcomeFile = "update.json"
	bootsFile   = "boots"
)

// settle counts the start and finds out what became of an update.
func (b *Box) settle() {
	boots := uint64(0)
	if text, err := os.ReadFile(filepath.Join(b.state, bootsFile)); err == nil {
		boots, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64) // damaged: counted anew
	}
	boots++
	if err := noEarlier(filepath.Join(b.state, bootsFile)); err != nil {
		b.log.Error("failed to set the clock", "err", err)
	}
	if err := writeFile(filepath.Join(b.state, bootsFile), fmt.Appendln(nil, boots), 0o644); err != nil {
		b.log.Error("failed to count the start", "err", err)
	}
	var last *Outcome
	if err := readJSON(filepath.Join(b.state, outcomeFile), &last); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("failed to read what became of the last update", "err", err)
	}
	b.mu.Lock()
	b.boots, b.last = boots, last
	b.mu.Unlock()
	switch {
	case b.boot.OnTrial():
		b.outcome(func(o *Outcome) { o.Starts++ })
	case b.boot.Trial.Valid():
		b.fellBack()
	case last != nil && last.State == "trial":
		b.unnoted()
	}
	b.noteSlots()
}

// fellBack notes why the new system is not the one that runs, and ends its
// trial.
func (b *Box) fellBack() {
	absent := b.absence()
	b.outcome(func(o *Outcome) {
		o.State, o.Time = "failed", time.Now()
		if absent != "" {
			o.Reason = "it was left while nobody could see whether it works, since the box waited for " + absent
			o.Serial = 0 // it may be tried again
			return
		}
		if o.Reason != "" {
			return
		}
		o.Reason = fmt.Sprintf("%s was started %d times and never showed that it works; it came as far as: %s",
			o.Version, trialStarts, cmp.Or(o.Stage, "nothing that it could write down"))
	})
	if err := b.setEnv(image.GrubEnv{"slot": string(b.boot.Slot)}); err != nil {
		b.log.Error("failed to end the trial", "err", err)
		return
	}
	b.log.Warn("fell back to the previous system", "slot", b.boot.Slot, "reason", b.State().Last.Reason)
}

// outcome changes what is known of the last update and keeps it.
func (b *Box) outcome(change func(*Outcome)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := Outcome{Slot: string(b.boot.Trial)}
	if b.last != nil {
		o = *b.last
	}
	change(&o)
	b.last = &o
	text, err := json.Marshal(o)
	if err == nil {
		err = writeFile(filepath.Join(b.state, outcomeFile), text, 0o644)
	}
	if err != nil {
		b.log.Error("failed to keep what became of the update", "err", err)
	}
}

// stage notes how far a system on trial has come, for whoever has to tell why
// it came no further.
func (b *Box) stage(what string) {
	if b.boot.OnTrial() {
		b.outcome(func(o *Outcome) { o.Stage = what })
	}
}

// writeGrubEnv writes the boot loader's environment where it lies.
func (b *Box) writeGrubEnv(env image.GrubEnv) (err error) {
	block, err := env.Encode()
	if err != nil {
		return err
	}
	if err := unix.Mount(b.disk.part(image.PartESP), espDir, "vfat", unix.MS_SYNCHRONOUS|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "umask=0077"); err != nil {
		return fmt.Errorf("mount the ESP: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(espDir, 0)) }()
	f, err := os.OpenFile(filepath.Join(espDir, image.GrubEnvPath), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write the boot environment: %w", err)
	}
	_, err = f.WriteAt(block, 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// commit makes the running system the one that is started from now on.
func (b *Box) commit() bool {
	if err := b.setEnv(image.GrubEnv{"slot": string(b.boot.Slot)}); err != nil {
		b.log.Error("failed to commit the new system", "err", err)
		return false
	}
	b.mu.Lock()
	b.boot.Trial = ""
	b.mu.Unlock()
	b.outcome(func(o *Outcome) { o.State, o.Stage, o.Reason, o.Time = "committed", "", "", time.Now() })
	b.log.Info("committed the new system", "version", b.release.Version, "slot", b.boot.Slot)
	return true
}

// giveUp leaves a system on trial: the next start is the old one's. A disk that
// fails is not the new system's fault, but only the old one can tell: if it has no
// data either, nothing is held against the update. It says whether there will be
// such a start: a disk that takes nothing cannot be told of the old system, so a
// box that has one stays as it is rather than to start for ever.
func (b *Box) giveUp(missing string) bool {
	reason := fmt.Sprintf("%s did not work within %v: it still waited for %s", b.release.Version, b.cfg.Patience, missing)
	b.log.Error("gave up the new system", "reason", reason)
	if !b.mounted.Load() {
		b.restart(reason) // the boot loader has counted
		return true
	}
	b.outcome(func(o *Outcome) { o.Reason = reason })
	err := b.setEnv(image.GrubEnv{"slot": string(b.boot.Slot.Other()), "trial": string(b.boot.Slot), "left": "0"})
	if err != nil {
		b.log.Error("failed to end the trial", "err", err)
	}
	if takesNothing(err) {
		return false
	}
	b.restart(reason)
	return true
}

// pause waits and says whether ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() != nil
	}
	select {
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}
