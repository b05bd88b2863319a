//go:build linux

package faultfs

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attempts are what a process may try on a disk with a durable file "a" of one
// block (open as f), a synced empty directory "d", and a fallocated "p".
var attempts = []struct {
	name                 string
	try                  func(w world, f *os.File) error
	gone, readOnly, full error
}{
	{"read", func(_ world, f *os.File) error { _, err := f.ReadAt(make([]byte, 3), 0); return err }, unix.EIO, nil, nil},
	{"open", func(w world, _ *os.File) error { return openClose(w.path("a"), os.O_RDONLY) }, unix.EIO, nil, nil},
	{"open to write", func(w world, _ *os.File) error { return openClose(w.path("a"), os.O_WRONLY) }, unix.EIO, unix.EROFS, nil},
	{"stat", func(w world, _ *os.File) error { _, err := os.Stat(w.path("a")); return err }, unix.EIO, nil, nil},
	{"list", func(w world, _ *os.File) error { _, err := os.ReadDir(w.path("d")); return err }, unix.EIO, nil, nil},
	{"statfs", func(w world, _ *os.File) error { return unix.Statfs(w.Dir(), new(unix.Statfs_t)) }, unix.EIO, nil, nil},
	{"write over", func(_ world, f *os.File) error { _, err := f.WriteAt([]byte("b"), 1); return err }, unix.EIO, unix.EROFS, nil},
	{"append", func(_ world, f *os.File) error { _, err := f.WriteAt([]byte("b"), blockSize); return err }, unix.EIO, unix.EROFS, unix.ENOSPC},
	{"write what is fallocated", func(w world, _ *os.File) error {
		p, err := os.OpenFile(w.path("p"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = p.WriteAt(bytes.Repeat([]byte("p"), 4*blockSize), 0)
		return errors.Join(err, p.Sync(), p.Close())
	}, unix.EIO, unix.EROFS, nil},
	{"fallocate", func(_ world, f *os.File) error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, blockSize, blockSize)
	}, unix.EIO, unix.EROFS, unix.ENOSPC},
	{"truncate", func(_ world, f *os.File) error { return f.Truncate(3) }, unix.EIO, unix.EROFS, nil},
	{"fsync", func(_ world, f *os.File) error { return f.Sync() }, unix.EIO, unix.EROFS, nil},
	{"fsync of a directory", func(w world, _ *os.File) error {
		d, err := os.Open(w.Dir())
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	}, unix.EIO, unix.EROFS, nil},
	{"create", func(w world, _ *os.File) error { return openClose(w.path("n"), os.O_WRONLY|os.O_CREATE) }, unix.EIO, unix.EROFS, unix.ENOSPC},
	{"mkdir", func(w world, _ *os.File) error { return os.Mkdir(w.path("n"), 0o755) }, unix.EIO, unix.EROFS, unix.ENOSPC},
	{"link", func(w world, _ *os.File) error { return os.Link(w.path("a"), w.path("n")) }, unix.EIO, unix.EROFS, unix.ENOSPC},
	{"rename", func(w world, _ *os.File) error { return os.Rename(w.path("a"), w.path("d/a")) }, unix.EIO, unix.EROFS, nil},
	{"rmdir", func(w world, _ *os.File) error { return unix.Rmdir(w.path("d")) }, unix.EIO, unix.EROFS, nil},
	{"unlink", func(w world, _ *os.File) error { return unix.Unlink(w.path("a")) }, unix.EIO, unix.EROFS, nil},
	{"chmod", func(w world, _ *os.File) error { return os.Chmod(w.path("a"), 0o600) }, unix.EIO, unix.EROFS, nil},
}

func openClose(name string, flags int) error {
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func TestFaults(t *testing.T) {
	for _, row := range attempts {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for fault, want := range map[Fault]error{Healthy: nil, Gone: row.gone, ReadOnly: row.readOnly, Full: row.full} {
				w := newWorld(t, Config{})
				w.durable("a", strings.Repeat("a", blockSize))
				w.mkdir("d")
				p := w.open("p", os.O_RDWR|os.O_CREATE)
				w.must(unix.Fallocate(int(p.Fd()), 0, 0, 4*blockSize))
				w.sync(".")
				f := w.open("a", os.O_RDWR)
				w.Fail(fault)
				if err := row.try(w, f); !errors.Is(err, want) {
					t.Errorf("fault %d: %v, want %v", fault, err, want)
				}
				w.Fail(Healthy)
				if err := openClose(w.path("after"), os.O_WRONLY|os.O_CREATE); err != nil {
					t.Errorf("healthy again after %d: %v", fault, err)
				}
			}
		})
	}
}

// What is removed from a full disk makes room for as much; a power cut that
// brings it back takes the room again.
func TestCapacity(t *testing.T) {
	const blocks = 100
	w := newWorld(t, Config{Capacity: blocks * blockSize})
	free := func() int {
		var st unix.Statfs_t
		w.must(unix.Statfs(w.Dir(), &st))
		if st.Blocks != blocks {
			t.Fatalf("statfs shows %d blocks, want %d", st.Blocks, blocks)
		}
		return int(st.Bavail)
	}
	fill := func(name string, want int) {
		t.Helper()
		err := os.WriteFile(w.path(name), make([]byte, want*blockSize), 0o644)
		if err != nil {
			t.Fatal(err)
		}
	}
	fill("a", 60)
	w.sync("a", ".")
	fill("b", 40)
	if n := free(); n != 0 {
		t.Fatalf("%d blocks free on a full disk", n)
	}
	if _, err := w.open("a", os.O_WRONLY|os.O_APPEND).WriteString("more"); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("written to a full disk: %v", err)
	}
	w.PowerCut(0) // takes b
	if n := free(); n != 40 {
		t.Fatalf("%d blocks free after the cut, want 40", n)
	}
	w.remove("a")
	w.eventually(func() bool { return free() == blocks })
	fill("c", blocks)
	w.PowerCut(0) // brings a, takes c
	if n := free(); n != 40 {
		t.Fatalf("%d blocks free after the cut, want 40", n)
	}
}

// eventually waits for what the kernel tells late, such as the close of a file.
func (w world) eventually(ok func() bool) {
	w.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.Fatal("it never happened")
}

// A pulled disk that comes back without its power cut has lost nothing.
func TestGoneAndBack(t *testing.T) {
	w := newWorld(t, Config{})
	w.write("a", "new")
	w.Fail(Gone)
	w.Fail(Healthy)
	if got := w.tree(); got != "a=new" {
		t.Fatalf("left %q", got)
	}
}

// A disk that was pulled stays away when the power comes back.
func TestPowerCutWhileGone(t *testing.T) {
	w := newWorld(t, Config{})
	w.durable("a", "old")
	w.write("b", "new")
	w.Fail(Gone)
	w.PowerCut(0)
	if _, err := os.Stat(w.path("a")); !errors.Is(err, unix.EIO) {
		t.Errorf("after the cut: %v, want EIO", err)
	}
	w.Fail(Healthy)
	if got := w.tree(); got != "a=old" {
		t.Errorf("left %q", got)
	}
}

type verdict struct {
	testing.TB
	fatal, skipped bool
}

func (*verdict) Helper()                 {}
func (v *verdict) Fatalf(string, ...any) { v.fatal = true }
func (v *verdict) Skipf(string, ...any)  { v.skipped = true }

func TestRequireAllowsNoSkipInCI(t *testing.T) {
	for _, ci := range []string{"true", ""} {
		t.Setenv("CI", ci)
		var v verdict
		require(&v, t.TempDir()+"/none")
		if v.fatal != (ci == "true") || v.skipped == v.fatal {
			t.Errorf("CI=%q: fatal %v, skipped %v", ci, v.fatal, v.skipped)
		}
	}
}
