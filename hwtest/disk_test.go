package hwtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/faultfs"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// diskConfig is for boxes on a disk of 200 MB.
const diskConfig = "[peering]\nenabled = false\n[store]\nmin_free = \"0\"\n"

// smallDisk is an ext4 file system of 200 MB in a file, behind a loop device that
// stays: fsck upon the file itself would not see what the device has in memory.
type smallDisk struct{ device, dir string }

// newDisk makes a disk and mounts it until the test ends; to be called before
// what uses it is made, so that this has gone by then.
func newDisk(t *testing.T) *smallDisk {
	t.Helper()
	lab.Require(t, lab.Root)
	base := t.TempDir()
	image, dir := filepath.Join(base, "disk.img"), filepath.Join(base, "mnt")
	write(t, image, nil)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Truncate(image, 200<<20)); err != nil {
		t.Fatal(err)
	}
	device, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	d := &smallDisk{strings.TrimSpace(string(device)), dir}
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", d.device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	run(t, ".", nil, "mkfs.ext4", "-q", "-m", "0", d.device)
	d.mount(t)
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount: %v", errors.Join(err, unix.Unmount(d.dir, unix.MNT_DETACH)))
		}
	})
	return d
}

func (d *smallDisk) mount(t *testing.T) {
	t.Helper()
	run(t, ".", nil, "mount", "-o", "errors=remount-ro", d.device, d.dir)
}

// free is the bytes that are free.
func (d *smallDisk) free(t *testing.T) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// hog is a foreign file that takes whatever is free, again and again, until ctx
// ends. at once is by fallocate, else by writing.
func (d *smallDisk) hog(ctx context.Context, atOnce bool) error {
	f, err := os.Create(filepath.Join(d.dir, "foreign"))
	if err != nil {
		return err
	}
	defer f.Close()
	var end int64
	chunk := make([]byte, 1<<20)
	for ctx.Err() == nil {
		n := int64(1 << 30)
		if !atOnce {
			n = 1 << 20
		}
		for ; n > 0 && ctx.Err() == nil; n /= 2 {
			if atOnce {
				err = unix.Fallocate(int(f.Fd()), 0, end, n)
			} else {
				_, err = f.WriteAt(chunk[:n], end)
			}
			if err == nil {
				end, n = end+n, n*2
			} else if !errors.Is(err, unix.ENOSPC) {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// breakIt has the kernel find an error on the disk, and turn it read-only.
func (d *smallDisk) breakIt(t *testing.T) {
	t.Helper()
	write(t, filepath.Join("/sys/fs/ext4", filepath.Base(d.device), "trigger_fs_error"), []byte("1"))
}

// TestDiskFull: a disk of 200 MB fills up, by the box's own objects and by a
// foreign file, while clients ask.
func TestDiskFull(t *testing.T) {
	t.TempDir()
	d := newDisk(t)
	s := newScene(t)
	c := newCrowd(t, s)
	box, err := actors.StartBox(t.Context(), s.box, bin, filepath.Join(d.dir, "box"), s.config+diskConfig)
	if err != nil {
		t.Fatal(err)
	}
	c.use(box)
	c.pin(t, 4, 2_000_000)

	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { c.run(ctx, 8) })
	defer asking.Wait()
	defer cancel()

	// More than fits, of our own.
	own, rounds, hold := int64(120<<20), 2, 3*time.Second
	if soak() {
		own, rounds = 1<<30, 20
	}
	began := time.Now()
	for c.origin.bytes() < own {
		time.Sleep(100 * time.Millisecond)
		c.alive(t)
	}
	t.Logf("%d bytes fetched in %v, %d free: %s", c.origin.bytes(), time.Since(began), d.free(t), c.story())
	figure(t, "disk full of its own: until something new is kept", c.keeps(t).Seconds(), 10, "s")
	slowest := time.Duration(0)
	for round := range rounds {
		full, stop := context.WithTimeout(t.Context(), hold)
		before := c.count.passed.Load()
		err := d.hog(full, round%2 == 1)
		stop()
		t.Logf("round %d: %d free, %d passed through: %v", round, d.free(t), c.count.passed.Load()-before, err)
		c.alive(t)
		if err := os.Remove(filepath.Join(d.dir, "foreign")); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, c.keeps(t))
		c.alive(t)
	}
	cancel()
	asking.Wait()
	t.Log(c.story())
	c.judge(t, fmt.Sprintf("disk full %d times", rounds))
	figure(t, "disk full: until something new is kept again", slowest.Seconds(), 10, "s")
	c.alive(t)
}

// TestDiskReadOnly: the kernel turns the disk read-only while clients ask. ext4
// stays so until it is unmounted, so the box is started again for that.
func TestDiskReadOnly(t *testing.T) {
	t.TempDir()
	d := newDisk(t)
	s := newScene(t)
	c := newCrowd(t, s)
	rounds, before, after := 1, 2*time.Second, 4*time.Second
	if soak() {
		rounds, before, after = 12, 5*time.Second, 6*time.Second
	}
	slowest := time.Duration(0)
	for round := range rounds {
		box, err := actors.StartBox(t.Context(), s.box, bin, filepath.Join(d.dir, "box"), s.config+diskConfig)
		if err != nil {
			t.Fatal(err)
		}
		c.use(box)
		if slowest = max(slowest, c.keeps(t)); round == 0 {
			c.pin(t, 4, 2_000_000)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { c.run(ctx, 8) })
		time.Sleep(before)
		passed := c.count.passed.Load()
		d.breakIt(t)
		time.Sleep(after)
		cancel()
		asking.Wait()
		c.alive(t)
		err = errors.Join(unix.Mount("", d.dir, "", unix.MS_REMOUNT, ""), os.WriteFile(filepath.Join(d.dir, "taken"), []byte("?"), 0o600))
		t.Logf("round %d: %d passed through; remounted in use, a write gives: %v", round, c.count.passed.Load()-passed, err)
		if err := box.Process.Stop(); err != nil {
			t.Error(err)
		}
		d.repair(t)
	}
	box, err := actors.StartBox(t.Context(), s.box, bin, filepath.Join(d.dir, "box"), s.config+diskConfig)
	if err != nil {
		t.Fatal(err)
	}
	c.use(box)
	slowest = max(slowest, c.keeps(t))
	for _, o := range c.pinned {
		if !c.ask(t.Context(), 0, o).hit {
			c.count.pinnedMissed.Add(1)
		}
	}
	t.Log(c.story())
	c.judge(t, fmt.Sprintf("disk read-only %d times", rounds))
	figure(t, "disk read-only: until something new is kept, started again after fsck", slowest.Seconds(), 10, "s")
}

// TestDiskSick: the disk turns read-only or full, and is well again, all of it
// while the box runs and clients ask.
func TestDiskSick(t *testing.T) {
	t.TempDir()
	disk := faultfs.Mount(t, t.TempDir(), faultfs.Config{Capacity: 300 << 20, Ordered: true})
	s := newScene(t)
	c := newCrowd(t, s)
	box, err := actors.StartBox(t.Context(), s.box, bin, filepath.Join(disk.Dir(), "box"), s.config+diskConfig)
	if err != nil {
		t.Fatal(err)
	}
	c.use(box)
	c.pin(t, 4, 2_000_000)
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { c.run(ctx, 8) })
	defer asking.Wait()
	defer cancel()
	rounds, hold := 2, 3*time.Second
	if soak() {
		rounds = 30
	}
	slowest := time.Duration(0)
	for round := range rounds {
		time.Sleep(time.Second + time.Duration(round*37%100)*time.Millisecond)
		fault := []faultfs.Fault{faultfs.ReadOnly, faultfs.Full}[round%2]
		disk.Fail(fault)
		time.Sleep(hold)
		c.alive(t)
		disk.Fail(faultfs.Healthy)
		took := c.keeps(t)
		t.Logf("round %d: %s, new objects kept after %v", round, []string{"read-only", "full"}[round%2], took)
		slowest = max(slowest, took)
	}
	cancel()
	asking.Wait()
	c.alive(t)
	t.Log(c.story())
	c.judge(t, fmt.Sprintf("disk sick %d times", rounds))
	out, err := box.Process.Output()
	t.Logf("the index was opened anew %d times: %v", bytes.Count(out, []byte("index opened anew")), err)
	figure(t, "disk sick: until something new is kept again", slowest.Seconds(), 10, "s")
	if err := box.Process.Stop(); err != nil {
		t.Error(err)
	}
}

// repair is what is done to a disk with an error.
func (d *smallDisk) repair(t *testing.T) {
	t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		t.Fatalf("unmount: %v", err)
	}
	// Mount namespaces of processes that have just ended may hold it a little longer.
	waitFor(t, "the disk to be free", func() bool {
		fd, err := unix.Open(d.device, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
		return err == nil && unix.Close(fd) == nil
	})
	if out, err := exec.Command("fsck.ext4", "-fy", d.device).CombinedOutput(); err != nil {
		t.Logf("fsck: %v: %s", err, out) // it says by its status that it repaired something
	}
	d.mount(t)
}

// judge states the figures of all that clients saw.
func (c *crowd) judge(t *testing.T, what string) {
	t.Helper()
	n := &c.count
	figure(t, what+": wrong answers", float64(n.wrong.Load()), 0, "answers")
	figure(t, what+": refused requests", float64(n.refused.Load()), 0, "answers")
	figure(t, what+": answers without Cache-Status", float64(n.silent.Load()), 0, "answers")
	figure(t, what+": pinned objects that were no hit", float64(n.pinnedMissed.Load()), 0, "answers")
	figure(t, what+": answers cut short", float64(n.cut.Load()), 0, "answers")
	if n.passed.Load() == 0 || n.hits.Load() == 0 {
		t.Errorf("%s: not tried: %s", what, c.story())
	}
}
