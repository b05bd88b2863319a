package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// openDisk waits for the disk, makes its last partition fill it, checks and
// mounts the data, and takes what people left on the CONFIG partition.
func (b *Box) openDisk(ctx context.Context) error {
	for deadline := time.Now().Add(90 * time.Second); ; {
		if d, ok := findDisk("/sys/class/block"); ok {
			b.disk, b.device = d, d.part
			break
		}
		if time.Now().After(deadline) {
			return errors.New("no disk with the box's partitions was found")
		}
		b.modules.scan()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	for _, name := range []string{"ext4", "vfat", "nls_cp437", "nls_ascii"} {
		if err := b.modules.load(name); err != nil {
			return err
		}
	}
	if err := growPartition(b.disk); err != nil {
		b.log.Error("failed to grow the data partition", "err", err)
	}
	if err := b.openData(); err != nil {
		return err
	}
	b.seed()
	return b.adopt()
}

// findDisk looks for the disk whose partitions have the names and numbers of an
// image.
func findDisk(class string) (disk, bool) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return disk{}, false
	}
	found := map[string]disk{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(class, e.Name(), "uevent"))
		if err != nil {
			continue
		}
		info := map[string]string{}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			info[key] = value
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
	for _, d := range found {
		if len(d.parts) >= image.PartData {
			return d, true
		}
	}
	return disk{}, false
}

// growPartition makes the last partition end where the disk does, on the disk
// and in the kernel.
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
	table, err := image.ReadTable(f)
	if err != nil {
		return err
	}
	if !table.Grow(size) {
		return nil
	}
	if err := table.Write(f, size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
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
// cannot be checked is mounted all the same: a cache is better than none.
func (b *Box) openData() error {
	dev := b.disk.part(image.PartData)
	if err := check(dev); err != nil {
		b.log.Error("failed to check the data", "err", err)
	}
	if err := unix.Mount(dev, dataDir, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("mount the data: %w", err)
	}
	if err := growData(dev); err != nil {
		b.log.Error("failed to grow the file system", "err", err)
	}
	for _, dir := range []string{stateDir, storeDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("open the data: %w", err)
		}
	}
	return nil
}

// check runs e2fsck. 0 is well, 1 and 2 are repaired.
func check(dev string) error {
	out, err := exec.Command("/sbin/e2fsck", "-p", dev).CombinedOutput()
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
