package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// Disk is a disk of the machine, and what is lost with what it holds.
type Disk struct {
	Name     string   `json:"name"` // in /dev
	Model    string   `json:"model,omitempty"`
	Bytes    int64    `json:"bytes"`
	Holds    []string `json:"holds"` // its partitions, in words
	Own      bool     `json:"own"`   // the system was started from it
	USB      bool     `json:"usb"`
	TooSmall bool     `json:"too_small"` // it has no room for the box
}

// Why an installation is refused.
var (
	ErrNoDisk   = errors.New("there is no such disk")
	ErrOwnDisk  = errors.New("the system was started from this disk")
	ErrTooSmall = errors.New("the disk is too small")
)

// Disks lists the disks of the machine.
func (b *Box) Disks() []Disk { return listDisks("/sys/block", b.disk.name) }

func listDisks(class, own string) (disks []Disk) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		sectors, err := strconv.ParseInt(oneLine(filepath.Join(dir, "size")), 10, 64)
		if _, virtual := os.Stat(filepath.Join(dir, "device")); virtual != nil || err != nil || sectors == 0 || oneLine(filepath.Join(dir, "ro")) == "1" {
			continue // loops, memory, drives without a medium
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			continue
		}
		d := Disk{
			Name: e.Name(), Model: oneLine(filepath.Join(dir, "device/model")), Bytes: sectors * 512, Holds: []string{},
			Own: e.Name() == own, USB: strings.Contains(real, "/usb"), TooSmall: sectors*512 < image.DiskSize(),
		}
		parts, err := filepath.Glob(filepath.Join(dir, e.Name()+"*", "partition"))
		if err != nil {
			continue
		}
		for _, p := range parts {
			p = filepath.Dir(p)
			size, err := strconv.ParseInt(oneLine(filepath.Join(p, "size")), 10, 64)
			if err != nil {
				continue
			}
			info, err := uevent(p)
			if err != nil || info["PARTNAME"] == "" {
				info = map[string]string{"PARTNAME": "a partition without a name"}
			}
			d.Holds = append(d.Holds, fmt.Sprintf("%s: %s (%d MB)", filepath.Base(p), info["PARTNAME"], size*512/1e6))
		}
		disks = append(disks, d)
	}
	return disks
}

// oneLine reads a file of sysfs; one that is not there is empty.
func oneLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Install copies the running system and the CONFIG partition to another disk of
// the machine, which then starts as a new box. All that the disk held is lost.
func (b *Box) Install(ctx context.Context, name string) error {
	if !b.updating.TryLock() {
		return ErrBusy
	}
	defer b.updating.Unlock()
	if b.State().OnTrial {
		return ErrOnTrial
	}
	for _, d := range b.Disks() {
		switch {
		case d.Name != name:
			continue
		case d.Own:
			return ErrOwnDisk
		case d.TooSmall:
			return fmt.Errorf("%w: %d MB, needed are %d MB", ErrTooSmall, d.Bytes/1e6, image.DiskSize()/1e6+1)
		}
		b.log.Info("began to install", "disk", name)
		if err := b.copySystem(ctx, d); err != nil {
			b.log.Error("failed to install", "disk", name, "err", err)
			return fmt.Errorf("install on %s: %w", name, err)
		}
		b.log.Info("installed", "disk", name)
		return nil
	}
	return fmt.Errorf("%w: %q", ErrNoDisk, name)
}

// copySystem writes the table last: a disk whose copy was cut does not start.
func (b *Box) copySystem(ctx context.Context, d Disk) (err error) {
	from, err := os.Open("/dev/" + b.disk.name)
	if err != nil {
		return err
	}
	defer from.Close()
	table, _, err := readTable(b.disk.name)
	if err != nil {
		return err
	}
	to, err := os.OpenFile("/dev/"+d.Name, os.O_RDWR|unix.O_EXCL, 0) // not one that is mounted
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	data := table.Find(image.PartData)
	if data == nil {
		return image.ErrNoTable
	}
	data.Size = image.DataSize
	table.Rename()
	nothing := make([]byte, image.MiB)
	if err := errors.Join(wipe(to, nothing, 0), wipe(to, nothing, d.Bytes-image.MiB), to.Sync()); err != nil {
		return err
	}
	for _, p := range table.Partitions {
		if p.Number == image.PartData || p.Number == b.boot.Slot.Other().Number() {
			continue
		}
		if err := copyRange(ctx, to, from, p.Start, p.Size); err != nil {
			return err
		}
	}
	if err := wipe(to, resetMark, data.Start); err != nil { // its first start makes it
		return err
	}
	if err := copyRange(ctx, to, from, 0, 440); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if err := table.Write(to, d.Bytes); err != nil {
		return err
	}
	return to.Sync()
}

func wipe(f *os.File, with []byte, at int64) error {
	_, err := f.WriteAt(with, at)
	return err
}

func copyRange(ctx context.Context, to io.WriterAt, from io.ReaderAt, at, size int64) error {
	buf := make([]byte, image.MiB)
	for end := at + size; at < end; {
		n := min(int64(len(buf)), end-at)
		if _, err := from.ReadAt(buf[:n], at); err != nil {
			return err
		}
		if _, err := to.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += n
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
