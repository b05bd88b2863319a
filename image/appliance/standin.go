package appliance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// Why there are no data.
var (
	errNoDisk       = errors.New("the disk that it was started from was not found")
	errTakesNothing = errors.New("the disk takes nothing any more: replace it")
)

// ErrNoData says that what needs the data cannot be done without.
var ErrNoData = errors.New("the data partition cannot be used")

// standIn has the box come up all the same when its data cannot be used: whoever
// looks at the panel reads why, and what to do. Data that can be read stay where
// they are, for the settings; else memory stands in, empty, until the next start.
// Nothing is made anew: what lies on the disk may be wanted.
func (b *Box) standIn(fault error) error {
	b.log.Error("failed to open the data, so the box does without", "err", fault)
	b.lack(whyNoData(fault))
	if b.device == nil {
		b.device = b.disk.part
	}
	_ = unix.Unmount(dataDir, unix.MNT_DETACH) // it may be mounted, and full
	if takesNothing(fault) && readData(b.disk.part(image.PartData)) {
		return nil
	}
	if err := unix.Mount("tmpfs", dataDir, "tmpfs", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, "mode=755,size=15%"); err != nil {
		return fmt.Errorf("put memory in the place of the data: %w", err)
	}
	return makeFolders()
}

// lack notes what there is instead of the data; nothing, if they are there.
func (b *Box) lack(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.absent = what
}

// whyNoData says in words what is wrong with the data, and what helps.
func whyNoData(fault error) string {
	why, cure := fault.Error(), "A factory reset makes it anew, which erases what it held; if that does not help, replace the disk"
	switch {
	case errors.Is(fault, errNoDisk):
		cure = "Look whether it is in its place, or replace it"
	case takesNothing(fault):
		why, cure = "the disk can only be read", "It is protected or worn out: replace it"
	case errors.Is(fault, unix.EIO):
		why, cure = "the disk answers with errors", "Replace it"
	case errors.Is(fault, unix.ENOSPC):
		why, cure = "it is full", "A factory reset makes room, by erasing all that the box has stored and been told"
	case errors.Is(fault, unix.EINVAL), errors.Is(fault, unix.EUCLEAN), errors.Is(fault, unix.EBADMSG): // what ext4 says of it
		why = "what lies on it is damaged (" + why + ")"
	}
	return "a data partition that can be used: " + why + ". What the box is told and stores now it forgets at its next start. " + cure
}

// takesNothing tells what a disk answers that can only be read; a mount says
// EACCES.
func takesNothing(fault error) bool {
	return errors.Is(fault, unix.EROFS) || errors.Is(fault, unix.EACCES)
}

// readData mounts data that can only be read, if a box has been here before. The
// journal may have to wait for a disk that takes what it says.
func readData(dev string) bool {
	const flags = unix.MS_RDONLY | unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID
	if unix.Mount(dev, dataDir, "ext4", flags, "") != nil && unix.Mount(dev, dataDir, "ext4", flags, "noload") != nil {
		return false
	}
	if _, err := os.Stat(configFile); err == nil {
		return true
	}
	_ = unix.Unmount(dataDir, unix.MNT_DETACH) // memory is mounted above it else
	return false
}

// makeFolders makes what the Box and the daemon keep their things in.
func makeFolders() error {
	for _, dir := range []string{stateDir, storeDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("open the data: %w", err)
		}
	}
	return nil
}

// firstNeeds is what a first start writes, in bytes, and some more.
const firstNeeds = 256 << 10

// roomForFirst sees whether a box that has no settings yet could write some.
func roomForFirst(config string) error {
	if _, err := os.Stat(config); err == nil {
		return nil
	}
	file := filepath.Join(filepath.Dir(config), "room")
	err := writeFile(file, make([]byte, firstNeeds), 0o600)
	if rerr := os.Remove(file); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("open the data: %w", err)
	}
	return nil
}

// markForReset has the next start make the data anew that cannot be used now.
func markForReset(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(resetMark, 0)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", errTakesNothing, err)
	}
	return nil
}

// unnoted finds out about an update whose end nobody has written down: the power
// was cut just then, or the data could not be used. It is not held against it, so
// a channel may offer it again.
func (b *Box) unnoted() {
	b.outcome(func(o *Outcome) {
		o.Time = time.Now()
		if o.Slot == string(b.boot.Slot) && o.Serial == b.release.Serial {
			o.State, o.Stage = "committed", ""
			return
		}
		o.State, o.Serial = "failed", 0
		o.Reason = "it was left, and nobody could note why: the power was cut, or the data could not be used"
	})
}
