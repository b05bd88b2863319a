package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mountDisk makes an ext4 disk of 64 MB that can be filled and broken. It needs
// root; without, the test is skipped, or fails when CI is set.
func mountDisk(t *testing.T) (dir, image string) {
	t.Helper()
	base := t.TempDir()
	image, dir = filepath.Join(base, "disk.img"), filepath.Join(base, "mnt")
	must(t, os.Mkdir(dir, 0o700))
	f, err := os.Create(image)
	must(t, err)
	must(t, errors.Join(f.Truncate(64<<20), f.Close()))
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", image},
		{"mount", "-o", "loop,errors=remount-ro", image, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
				t.Fatalf("this machine cannot mount disks, and CI allows no skip: %s: %v: %s", command, err, out)
			}
			t.Skipf("this machine cannot mount disks: %s: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if mounted(dir) {
			run(t, "umount", dir)
		}
	})
	return dir, image
}

func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func mounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(mounts), " "+dir+" ")
}

// watch reads a child's lines until one has all words, and keeps the last number
// acknowledged. A read that failed, or the end of the child, fails the test.
func watch(t *testing.T, lines <-chan string, acked *uint64, words ...string) string {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the child is gone, before %q", words)
			}
			if n, ok := number(line, "acked"); ok {
				*acked = n
			}
			if strings.HasPrefix(line, "unread") || strings.HasPrefix(line, "failed") {
				t.Fatal(line)
			}
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return line
			}
		case <-limit:
			t.Fatalf("no line with %q in 30 s", words)
		}
	}
}

// fill takes all the space there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
}

// TestFullDisk fills the disk under a process that writes, and makes room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	mnt, _ := mountDisk(t)
	dir, hog := filepath.Join(mnt, "index"), filepath.Join(mnt, "hog")
	cmd, lines, _ := start(t, "disk", dir)
	var acked uint64
	rounds, slowest := 2, time.Duration(0)
	if soak {
		rounds = 10
	}
	for range rounds {
		for range 50 {
			watch(t, lines, &acked, "acked")
		}
		fill(t, hog)
		line := watch(t, lines, &acked, "refused", ErrFull.Error(), "health: write index: "+ErrFull.Error())
		// What others write when the reserve is given back takes that too.
		fill(t, hog+"2")
		for range 3 {
			line = watch(t, lines, &acked, "refused", ErrFull.Error())
		}
		t.Log(line)
		must(t, errors.Join(os.Remove(hog), os.Remove(hog+"2")))
		freed := time.Now()
		for len(lines) > 0 {
			<-lines // from before
		}
		watch(t, lines, &acked, "acked")
		slowest = max(slowest, time.Since(freed))
	}
	figure(t, "index: writes again after space came back", slowest.Round(time.Millisecond), "", "10 s", slowest < 10*time.Second)
	must(t, cmd.Process.Kill())
	for line := range lines {
		if n, ok := number(line, "acked"); ok {
			acked = n
		}
	}
	x := mustOpen(t, small(dir))
	checkServed(t, x, acked)
	mustClose(t, x)
}

// checkServed is checkStory beside the child's other record.
func checkServed(t *testing.T, x *Index, acked uint64) {
	t.Helper()
	must(t, x.Delete([]byte("hit")))
	lost := checkStory(t, x, acked)
	figure(t, "index: acknowledged updates lost on a failing disk", lost, fmt.Sprintf("of %d", acked), "0", lost == 0)
}

// TestReadOnlyDisk has the kernel turn the disk read-only under a process.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	mnt, image := mountDisk(t)
	dir := filepath.Join(mnt, "index")
	cmd, lines, stdin := start(t, "disk", dir)
	var acked uint64
	for range 100 {
		watch(t, lines, &acked, "acked")
	}
	loop := filepath.Base(run(t, "findmnt", "-n", "-o", "SOURCE", mnt))
	must(t, os.WriteFile("/sys/fs/ext4/"+loop+"/trigger_fs_error", []byte("1"), 0o200))
	for range 20 { // and reads go on, or watch fails
		watch(t, lines, &acked, "refused", "health: ", ErrReadOnly.Error())
	}
	must(t, stdin.Close())
	t.Log(watch(t, lines, &acked, "closed"))
	must(t, cmd.Wait())
	if _, err := Open(small(dir), slog.New(slog.DiscardHandler)); !errors.Is(err, ErrReadOnly) {
		t.Errorf("opened on a read-only disk: %v", err)
	}
	if aside, _ := filepath.Glob(dir + ".damaged-*"); len(aside) > 0 {
		t.Errorf("set aside on a read-only disk: %v", aside)
	}
	run(t, "umount", mnt)
	// Of a copy: another test's mount namespace may have the image mounted still,
	// and then the kernel would mount that file system again, read-only.
	run(t, "cp", "--sparse=always", image, image+".copy")
	image += ".copy"
	if out, err := exec.Command("fsck.ext4", "-fy", image).CombinedOutput(); err != nil {
		t.Logf("fsck: %v: %s", err, out) // it says by its status that it repaired something
	}
	run(t, "mount", "-o", "loop", image, mnt)
	x := mustOpen(t, small(dir))
	checkServed(t, x, acked)
	mustClose(t, x)
}

// TestDeadDisk freezes the file system: writes neither succeed nor fail.
func TestDeadDisk(t *testing.T) {
	t.Parallel()
	mnt, _ := mountDisk(t)
	x, err := Open(small(filepath.Join(mnt, "index")), slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, x.Set([]byte("k"), []byte("v")))
	mustCommit(t, x)
	run(t, "fsfreeze", "-f", mnt)
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			run(t, "fsfreeze", "-u", mnt)
		}
	}
	t.Cleanup(thaw)
	must(t, x.Set([]byte("later"), []byte("w")))
	ctx, cancel := context.WithTimeout(t.Context(), stuckAfter+time.Second)
	defer cancel()
	if err := x.Commit(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not answered") {
		t.Errorf("commit: %v", err)
	}
	for k, v := range map[string]string{"k": "v", "later": "w"} {
		if got, err := x.Get([]byte(k)); string(got) != v {
			t.Errorf("%s: %q, %v", k, got, err)
		}
	}
	began := time.Now()
	if err := x.Close(); err == nil || !strings.Contains(err.Error(), "did not answer") {
		t.Errorf("close: %v", err)
	}
	t.Log("closed after", time.Since(began))
	thaw()
	for range 100 { // what Close left behind ends, and lets go of the lock
		y, err := Open(x.cfg, slog.New(slog.DiscardHandler))
		if errors.Is(err, ErrLocked) {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		must(t, err)
		if got := contents(t, y, nil, nil); got["k"] != "v" || got["later"] != "w" {
			t.Errorf("after the thaw: %v", got)
		}
		mustClose(t, y)
		return
	}
	t.Error("the lock is still held")
}
