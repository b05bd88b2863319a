package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// disk is the device that the system was started from.
type disk struct {
	name  string // in /dev
	parts map[int]string
}

func (d disk) part(number int) string { return "/dev/" + d.parts[number] }

// openDisk waits for the disk, makes its last partition fill it, and checks and
// mounts the data.
func (b *Box) openDisk(ctx context.Context) error {
	var loads sync.WaitGroup
	var fault error // of the loads
	loads.Go(func() { fault = b.modules.fileSystems() })
	defer loads.Wait()
	for deadline := time.Now().Add(90 * time.Second); ; {
		if d, ok := b.ownDisk(findDisks("/sys/class/block")); ok {
			b.disk, b.device = d, d.part
			break
		}
		if time.Now().After(deadline) {
			return errNoDisk
		}
		if pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
	b.reached("disk")
	if loads.Wait(); fault != nil {
		return fault
	}
	if err := growPartition(b.disk); err != nil {
		b.log.Error("failed to grow the data partition", "err", err)
	}
	return b.openData(ctx)
}

// ownDisk picks the one that the boot loader was loaded from: a stick and an
// installed disk look the same.
func (b *Box) ownDisk(disks []disk) (disk, bool) {
	for _, d := range disks {
		table, _, err := readTable(d.name)
		if err != nil {
			b.log.Debug("failed to read a partition table", "disk", d.name, "err", err)
			continue
		}
		if esp := table.Find(image.PartESP); b.boot.ESP == (image.GUID{}) || esp != nil && esp.ID == b.boot.ESP {
			return d, true
		}
	}
	return disk{}, false
}

// readTable reads the partition table of a disk and says how large that is.
func readTable(name string) (image.Table, int64, error) {
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return image.Table{}, 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return image.Table{}, 0, err
	}
	table, err := image.ReadTable(f, size)
	return table, size, err
}

// findDisks looks for disks whose partitions have the names and numbers of an
// image, and gives them by name.
func findDisks(class string) (disks []disk) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil
	}
	found := map[string]disk{}
	for _, e := range entries {
		info, err := uevent(filepath.Join(class, e.Name()))
		if err != nil {
			continue
		}
		for _, p := range image.Partitions() {
			if info["PARTNAME"] != p.Name || info["PARTN"] != fmt.Sprint(p.Number) {
				continue
			}
			real, err := filepath.EvalSymlinks(filepath.Join(class, e.Name()))
			if err != nil {
				continue
			}
			whole := filepath.Base(filepath.Dir(real))
			if found[whole].parts == nil {
				found[whole] = disk{whole, map[int]string{}}
			}
			found[whole].parts[p.Number] = e.Name()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if len(found[name].parts) >= image.PartData {
			disks = append(disks, found[name])
		}
	}
	return disks
}

// uevent reads what the kernel says of a device.
func uevent(dir string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		info[key] = value
	}
	return info, nil
}

// growPartition makes the last partition end where the disk does, on the disk
// and in the kernel. At the first start it gives the disk its own identity.
func growPartition(d disk) error {
	f, err := os.OpenFile("/dev/"+d.name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	table, err := image.ReadTable(f, size)
	if err != nil {
		return err
	}
	esp := table.Find(image.PartESP)
	fresh := esp != nil && esp.ID == image.Partitions()[image.PartESP-1].ID
	if fresh {
		table.Rename()
	}
	grown := table.Grow(size)
	if !grown && !fresh {
		return nil
	}
	if err := table.Write(f, size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil || !grown {
		return err
	}
	return resizePartition(f, table.Find(image.PartData))
}

// resizePartition tells the kernel (BLKPG_RESIZE_PARTITION, linux/blkpg.h).
func resizePartition(f *os.File, p *image.Partition) error {
	part := unix.BlkpgPartition{Start: p.Start, Length: p.Size, Pno: int32(p.Number)}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_RESIZE_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("resize a partition: %w", errno)
	}
	return nil
}

// openData checks, mounts and grows the file system of the data. One that
// cannot be checked is mounted all the same: a cache is better than none. One
// that was asked to be is made anew before.
func (b *Box) openData(ctx context.Context) error {
	dev := b.disk.part(image.PartData)
	if halfMade(dev) {
		if err := format(dev, image.DataImage); err != nil {
			return err
		}
	}
	if err := b.checked(ctx, func(ctx context.Context) error { return check(ctx, dev) }); err != nil {
		b.log.Error("failed to check the data", "err", err)
	}
	if err := mountData(dev); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(stateDir, resetFile)); err == nil {
		if err := errors.Join(unix.Unmount(dataDir, 0), format(dev, image.DataImage), mountData(dev)); err != nil {
			return err
		}
		b.log.Info("made the data anew")
	}
	if err := growData(dev); err != nil {
		b.log.Error("failed to grow the file system", "err", err)
	}
	if err := makeFolders(); err != nil {
		return err
	}
	return roomForFirst(configFile)
}

func mountData(dev string) error {
	if err := unix.Mount(dev, dataDir, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("mount the data: %w", err)
	}
	return nil
}

// checkTime is how long a check of the data may take. A journal is replayed in
// seconds; a large disk with an error is read for minutes.
const checkTime = 30 * time.Minute

// checked runs a check of the data, says that it does, and calls it off after
// checkTime. A restart in its midst would have it begin anew, so neither the
// watchdog nor a trial counts it.
func (b *Box) checked(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	b.checking.Store(true)
	defer b.checking.Store(false)
	return check(ctx)
}

// check runs e2fsck. 0 is well, 1 and 2 are repaired.
func check(ctx context.Context, dev string) error {
	cmd := exec.CommandContext(ctx, "/sbin/e2fsck", "-p", dev)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it writes down what it has repaired
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 4 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("e2fsck: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// resizeExt4 is EXT4_IOC_RESIZE_FS (linux/ext4.h): the new size in blocks.
const resizeExt4 = 0x40086610

// growData makes the file system fill its partition.
func growData(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	blocks := uint64(size) / 4096 // as many as there are already: nothing happens
	dir, err := os.Open(dataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), resizeExt4, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("grow to %d blocks: %w", blocks, errno)
	}
	return nil
}
