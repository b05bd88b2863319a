package qualify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/admin/client"
)

// device measures a whole disk, which loses what it holds.
func (q *Qualifier) device(ctx context.Context) error {
	f, err := claim(q.cfg.Erase)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find the size of %s: %w", q.cfg.Erase, err)
	}
	if q.cfg.MaxBytes > 0 {
		size = min(size, q.cfg.MaxBytes)
	}
	if size < minSpan {
		return fmt.Errorf("%s has %d bytes: too few to measure", q.cfg.Erase, size)
	}
	p := &patient{disk: f}
	if err := q.rates(ctx, p, min(size, q.budget.scratch)); err != nil {
		return err
	}
	q.progress("capacity", q.report.Percent)
	return q.capacity(ctx, p, size)
}

// claim opens a block device for this program alone. The kernel refuses it
// (O_EXCL) while anything of it is mounted, swap, or part of another device; what
// holds it is said in words where that can be seen.
func claim(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return nil, fmt.Errorf("erase: %s is no disk", path)
	}
	if use, err := uses(path); err != nil || use != "" {
		if err != nil {
			return nil, fmt.Errorf("erase: %w", err)
		}
		return nil, fmt.Errorf("erase: %s is in use (%s); nothing was written", path, use)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("erase: %s is in use; nothing was written", path)
	}
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	return f, nil
}

// uses says what a disk or a part of it is used for, as far as that shows.
func uses(path string) (string, error) {
	disk, err := blockOf(path)
	if err != nil {
		return "", err
	}
	numbers := map[string]bool{}
	dirs, err := filepath.Glob(filepath.Join(disk, "*", "dev"))
	if err != nil {
		return "", err
	}
	for _, file := range append(dirs, filepath.Join(disk, "dev")) {
		numbers[read(file)] = true
		if held, err := os.ReadDir(filepath.Join(filepath.Dir(file), "holders")); err == nil && len(held) > 0 {
			return "part of " + held[0].Name(), nil
		}
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 4 && numbers[f[2]] {
			return "mounted on " + f[4], nil
		}
	}
	return "", nil
}

// blockOf gives the folder in /sys of the block device at path.
func blockOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	return sysBlock(st.Rdev)
}

func sysBlock(dev uint64) (string, error) {
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return "", fmt.Errorf("find a block device: %w", err)
	}
	return dir, nil
}

// describe says which device a disk is and what it says of itself, which one that
// hangs is not asked.
func describe(d *client.DiskTest, hangs bool) {
	d.Wear.PercentUsed = -1
	var st unix.Stat_t
	if err := unix.Stat(d.Path, &st); err != nil {
		return
	}
	dev := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	}
	dir, err := sysBlock(dev)
	if err != nil {
		d.Wear.Err = "no block device shows under " + d.Path
		return
	}
	if read(filepath.Join(dir, "partition")) != "" {
		dir = filepath.Dir(dir)
	}
	name := filepath.Base(dir)
	d.Device, d.Model = "/dev/"+name, read(filepath.Join(dir, "device/model"))
	sectors, _ := strconv.ParseInt(read(filepath.Join(dir, "size")), 10, 64) // 0 if it is not said
	d.Bytes = sectors * 512
	switch {
	case strings.HasPrefix(name, "nvme"):
		d.Kind = "nvme"
	case strings.HasPrefix(name, "mmcblk"):
		d.Kind = "mmc"
	case read(filepath.Join(dir, "queue/rotational")) == "1":
		d.Kind = "disk"
	default:
		d.Kind = "ssd"
	}
	if hangs {
		d.Wear.Err = "the disk hangs"
		return
	}
	wear, err := health(dir, name)
	if err != nil {
		wear = client.Wear{PercentUsed: -1, Err: noRight(err)}
	}
	d.Wear = wear
}

// read gives a file of /sys or /proc without white space around it; "" if it is
// not there.
func read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
