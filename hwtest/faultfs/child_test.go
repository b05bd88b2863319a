//go:build linux

package faultfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childTask in the environment makes this program do one of tasks instead of
// its tests.
const childTask = "FAULTFS_CHILD"

// mapped is the size of the file that the tasks map, synced its first half.
const mapped = 1 << 20

// tasks are what children do with the file named last on their command line.
// Each says "ready" and then waits for the end of its input or of its life.
var tasks = map[string]func(name string) error{
	// Writes all of a mapping and syncs the first half.
	"map": func(name string) error {
		m, err := mapFile(name)
		if err != nil {
			return err
		}
		copy(m, bytes.Repeat([]byte("m"), mapped/2))
		if err := unix.Msync(m[:mapped/2], unix.MS_SYNC); err != nil {
			return err
		}
		copy(m[mapped/2:], bytes.Repeat([]byte("m"), mapped/2))
		return ready()
	},
	// Never stops to write and sync a mapping.
	"busy": func(name string) error {
		m, err := mapFile(name)
		if err != nil {
			return err
		}
		if err := announce(); err != nil {
			return err
		}
		for i := 0; ; i++ {
			m[i%mapped] = 'b'
			if err := unix.Msync(m, unix.MS_SYNC); err != nil {
				fmt.Println(err)
				return ready()
			}
		}
	},
	// Reads a mapping after being told to.
	"touch": func(name string) error {
		m, err := mapFile(name)
		if err != nil {
			return err
		}
		debug.SetPanicOnFault(true)
		if err := ready(); err != nil {
			return err
		}
		defer func() { fmt.Println("fault:", recover() != nil) }()
		fmt.Println(m[mapped/2])
		return nil
	},
	"lock": func(name string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		return ready()
	},
}

func TestMain(m *testing.M) {
	task := tasks[os.Getenv(childTask)]
	if task == nil {
		os.Exit(m.Run())
	}
	if err := task(os.Args[len(os.Args)-1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func mapFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(mapped); err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, mapped, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func announce() error {
	_, err := fmt.Println("ready")
	return err
}

// ready tells the parent, and returns when it has closed its end or sent a line.
func ready() error {
	if err := announce(); err != nil {
		return err
	}
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// child is a process that does a task, killed at the latest with its test.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (w world) child(task, name string) *child {
	w.Helper()
	c := &child{Cmd: exec.CommandContext(w.Context(), os.Args[0], w.path(name))}
	c.Env = append(os.Environ(), childTask+"="+task)
	in, err := c.StdinPipe()
	w.must(err)
	out, err := c.StdoutPipe()
	w.must(err)
	c.in, c.out = in, bufio.NewReader(out)
	w.must(c.Start())
	w.Cleanup(c.kill)
	if line := c.line(w); line != "ready" {
		w.Fatalf("child %s: %s", task, line)
	}
	return c
}

func (c *child) line(w world) string {
	w.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		w.Fatalf("child: %v", err)
	}
	return strings.TrimSpace(line)
}

func (c *child) kill() {
	c.Process.Kill()
	c.Wait()
}

func TestMapping(t *testing.T) {
	w := newWorld(t, Config{})
	half := strings.Repeat("m", mapped/2)
	c := w.child("map", "a")
	w.sync(".")
	c.kill()
	if got, err := os.ReadFile(w.path("a")); err != nil || string(got) != half+half {
		t.Fatalf("a killed process takes what it wrote to its mapping with it: %v", err)
	}
	w.PowerCut(0)
	if got, err := os.ReadFile(w.path("a")); err != nil || string(got) != half+strings.Repeat("\x00", mapped/2) {
		t.Fatalf("a power cut does not leave just what msync was asked for: %v", err)
	}
	// And again from what is left, cut while the process lives.
	c = w.child("map", "a")
	w.PowerCut(0)
	if got, err := os.ReadFile(w.path("a")); err != nil || string(got[:mapped/2]) != half {
		t.Fatalf("msync did not last: %v", err)
	}
	c.kill()
}

func TestGoneFaultsInMapping(t *testing.T) {
	w := newWorld(t, Config{})
	w.durable("a", strings.Repeat("a", mapped))
	c := w.child("touch", "a")
	w.Fail(Gone)
	c.in.Close()
	if line := c.line(w); line != "fault: true" {
		t.Fatalf("read a mapping of a pulled disk: %s", line)
	}
}

func TestLockEndsWithItsProcess(t *testing.T) {
	w := newWorld(t, Config{})
	w.write("a", "")
	c := w.child("lock", "a")
	f := w.open("a", os.O_RDONLY)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("locked twice: %v", err)
	}
	c.kill()
	w.must(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}

// Nothing is left of a mount, whatever its users are doing.
func TestNothingStays(t *testing.T) {
	before := goroutines()
	var dir string
	var c *child
	t.Run("busy", func(t *testing.T) {
		w := newWorld(t, Config{})
		dir = w.Dir()
		w.open("open", os.O_RDWR|os.O_CREATE)
		c = world{t, w.FS}.child("busy", "a")
		w.PowerCut(3)
		c.out.ReadString('\n') // it cannot go on: msync fails, or its page is gone (SIGBUS)
		world{t, w.FS}.child("busy", "b")
	})
	t.Run("failed half way", func(t *testing.T) {
		w := newWorld(t, Config{})
		w.must(unix.Unmount(w.Dir(), unix.MNT_FORCE|unix.MNT_DETACH))
		<-w.served
		w.server = nil // as if the mount had failed
	})
	if table := mounts(t); strings.Contains(table, dir) {
		t.Errorf("still mounted:\n%s", table)
	}
	for range 100 {
		if goroutines() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines of go-fuse, %d before", goroutines(), before)
}

func goroutines() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "fuse.(*Server)")
}

func mounts(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(table)
}

// orphanDir in the environment makes TestOrphan's child of itself.
const orphanDir = "FAULTFS_ORPHAN"

// A test that was killed leaves a dead mount, which the next Mount removes.
func TestOrphan(t *testing.T) {
	if dir := os.Getenv(orphanDir); dir != "" {
		w := newWorld(t, Config{})
		fmt.Println(w.Dir())
		t.Fatal(ready())
	}
	require(t, "/dev/fuse")
	top := t.TempDir()
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOrphan$")
	c.Env = append(os.Environ(), orphanDir+"="+top, "TMPDIR="+top)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	c.Process.Kill()
	c.Wait()
	dir := strings.TrimSpace(line)
	if err != nil || !strings.Contains(mounts(t), dir) {
		t.Fatalf("no mount is left to remove: %q, %v", line, err)
	}
	newWorld(t, Config{})
	if strings.Contains(mounts(t), dir) {
		t.Error("the dead mount is still there")
	}
}

// Figures, not promises: this machine may be busy.
func TestThroughput(t *testing.T) {
	const request, perSync = 256 << 10, 32 << 20
	total := int64(32 << 20)
	if os.Getenv("CISTERN_SOAK") == "1" {
		total = 1 << 30
	}
	w := newWorld(t, Config{})
	f := w.open("a", os.O_RDWR|os.O_CREATE)
	buf := bytes.Repeat([]byte("cistern!"), request/8)
	for _, pass := range []string{"new", "over"} {
		start := time.Now()
		for off := int64(0); off < total; off += request {
			if _, err := f.WriteAt(buf, off); err != nil {
				t.Fatal(err)
			}
			if (off+request)%perSync == 0 {
				w.must(f.Sync())
			}
		}
		rate := float64(total) / 1e6 / time.Since(start).Seconds()
		verdict := "ok"
		if rate < 100 {
			verdict = "short"
		}
		t.Logf("figure: faultfs.write.%s: %.0f MB/s (>= 100): %s", pass, rate, verdict)
	}
}
