package appliance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// stickDir is where a stick is looked at.
const stickDir = "/run/stick"

// watchSticks looks for update files on every USB stick or card that is plugged
// in, until ctx is done: once each time it comes.
func (b *Box) watchSticks(ctx context.Context) {
	seen := map[string]bool{}
	for {
		now := b.sticks("/sys/class/block")
		for _, name := range now {
			if !seen[name] {
				b.lookAt(ctx, name)
			}
		}
		seen = map[string]bool{}
		for _, name := range now {
			seen[name] = true
		}
		if pause(ctx, 3*time.Second) {
			return
		}
	}
}

// sticks are the block devices of USB and card readers that are not the box's
// own: partitions, and whole devices, which may be formatted without a table.
func (b *Box) sticks(class string) (names []string) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		real, err := filepath.EvalSymlinks(filepath.Join(class, e.Name()))
		if err != nil || strings.Contains(real, "/"+b.disk.name+"/") || filepath.Base(real) == b.disk.name {
			continue
		}
		if strings.Contains(real, "/usb") || strings.Contains(real, "/mmc_host/") {
			names = append(names, e.Name())
		}
	}
	return names
}

// lookAt takes the newest update of a stick's root folder, if it is wanted.
func (b *Box) lookAt(ctx context.Context, name string) {
	if err := os.MkdirAll(stickDir, 0o700); err != nil {
		b.log.Error("failed to look at a stick", "disk", name, "err", err)
		return
	}
	const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	if errors.Join(unix.Mount("/dev/"+name, stickDir, "vfat", flags, "")) != nil && unix.Mount("/dev/"+name, stickDir, "exfat", flags, "") != nil {
		return // a table, or a file system that is none of a stick's
	}
	defer func() {
		if err := unix.Unmount(stickDir, unix.MNT_DETACH); err != nil {
			b.log.Error("failed to let go of a stick", "disk", name, "err", err)
		}
	}()
	files, err := filepath.Glob(filepath.Join(stickDir, "*.update"))
	if err != nil {
		return
	}
	if file := b.newest(files); file != "" {
		if err := b.takeFile(ctx, file); err != nil {
			b.log.Error("failed to update from a stick", "disk", name, "err", err)
		}
	}
}

// newest picks the update to take: the newest that is wanted, or one that cannot
// be read, so that its refusal is told.
func (b *Box) newest(files []string) (pick string) {
	serial := uint64(0)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			b.log.Error("failed to open an update on a stick", "err", err)
			continue
		}
		m, err := image.ReadUpdateHead(f, b.key)
		_ = f.Close() // it was only read
		switch why := b.unwanted(m.Version, m.Serial); {
		case err != nil && pick == "":
			pick = file
		case err == nil && why != "":
			b.log.Info("left an update on its stick", "version", m.Version, "reason", why)
		case err == nil && m.Serial > serial:
			pick, serial = file, m.Serial
		}
	}
	return pick
}

func (b *Box) takeFile(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = b.Update(ctx, f)
	return err
}
