//go:build linux

package faultfs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mountName is the kind of file system that the table of mounts shows, after
// "fuse."; the source beside it is the name and the process that answers.
const mountName = "faultfs"

// maxRequest is the most bytes of one read or write that the kernel sends.
const maxRequest = 1 << 20

// Fault is what is wrong with the disk.
type Fault int32

// Faults, one at a time.
const (
	// Healthy takes the other faults back.
	Healthy Fault = iota
	// Gone is a pulled disk: every operation fails with EIO, and what the kernel
	// had cached is dropped, so that a mapping raises SIGBUS. Nothing is lost
	// if the disk becomes healthy again; a pulled disk that comes back is Gone,
	// then PowerCut, then Healthy.
	Gone
	// ReadOnly refuses every change, fsync and opening for writing with EROFS.
	// Files stay open; what was written and not synced is still lost when the
	// power goes.
	ReadOnly
	// Full leaves room for no further block, ENOSPC: what has space already
	// (written or fallocated) may be written over, and what is removed makes
	// room.
	Full
)

// Config describes the disk. The zero value is the strictest.
type Config struct {
	// Ordered keeps changes of names in their order, as a journal does; see the
	// package comment.
	Ordered bool
	// Capacity in bytes, of which data of files takes whole blocks of 4 KiB; 0
	// is that of the backing file system.
	Capacity int64
}

// FS is a mounted file system. Its methods are called by the test's goroutine;
// the directory may be used by any number of processes at the same time.
type FS struct {
	t    testing.TB
	dir  string
	disk *disk

	mu     sync.Mutex // above the mount
	server *fuse.Server
	served chan struct{} // closed when nothing of the server runs any more
}

// Mount puts a new, empty file system on a temporary directory until the test
// ends. backing is an empty directory for its data, made if there is none; only
// this package understands the files in it. It needs root and /dev/fuse, and
// skips the test (fails it with CI=true) where it has not got them.
func Mount(t testing.TB, backing string, conf Config) *FS {
	t.Helper()
	require(t, "/dev/fuse")
	if err := os.MkdirAll(backing, 0o700); err != nil {
		t.Fatalf("faultfs: %v", err)
	}
	if rest, err := os.ReadDir(backing); err != nil || len(rest) > 0 {
		t.Fatalf("faultfs: backing directory %s holds %d files, not none: %v", backing, len(rest), err)
	}
	f := &FS{t: t, dir: filepath.Join(t.TempDir(), "mnt"), disk: newDisk(backing, conf)}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatalf("faultfs: %v", err)
	}
	f.Fail(Healthy)
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := f.unmount(); err != nil {
			t.Errorf("faultfs: %v", err)
		}
	})
	if err := errors.Join(unmountOrphans(), f.mount()); err != nil {
		t.Fatalf("faultfs: %v", err)
	}
	return f
}

// require skips the test where nothing can be mounted through the device.
func require(t testing.TB, device string) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		if os.Geteuid() == 0 {
			return
		}
		err = errors.New("only root may mount")
	}
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		t.Fatalf("faultfs: this machine lacks what the test needs, and CI allows no skip: %v", err)
		return
	}
	t.Skipf("faultfs: SKIPPED, this machine lacks what the test needs: %v", err)
}

// Dir is where the file system is mounted, the same after a power cut.
func (f *FS) Dir() string { return f.dir }

// PowerCut cuts the power and gives it back: all that use the file system lose
// it at once (ENOTCONN, and SIGBUS in mappings), the disk keeps what was synced
// and of the rest what the seed draws, and the same directory shows it again.
// Seed 0 keeps nothing that was not synced. A process under test is best killed
// before; killed or not, it never sees the new mount through what it had open.
func (f *FS) PowerCut(seed uint64) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	luck := dice{}
	if seed != 0 {
		luck.Rand = rand.New(rand.NewPCG(seed, 0))
	}
	if err := f.unmount(); err != nil {
		f.t.Fatalf("faultfs: %v", err)
	}
	if err := errors.Join(f.disk.cut(luck), f.mount()); err != nil {
		f.t.Fatalf("faultfs: power cut: %v", err)
	}
}

// Fail makes the disk fail from now on; operations under way may still end well.
func (f *FS) Fail(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := int64(math.MaxInt64)
	if f.disk.conf.Capacity > 0 {
		limit = f.disk.conf.Capacity / blockSize
	}
	if fault == Full {
		limit = min(limit, f.disk.space.used.Load())
	}
	f.disk.space.limit.Store(limit)
	f.disk.fault.Store(int32(fault))
	if fault == Gone && f.server != nil {
		for _, num := range f.disk.files() {
			f.server.InodeNotify(num, 0, 0) // the kernel may have forgotten it, or not
		}
	}
}

// mount mounts by itself, since go-fuse would let processes under test inherit
// its end of the connection.
func (f *FS) mount() error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	source := fmt.Sprintf("%s-%d", mountName, os.Getpid())
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,allow_other,default_permissions",
		fd, unix.S_IFDIR, os.Getuid(), os.Getgid(), maxRequest)
	if err := unix.Mount(source, f.dir, "fuse."+mountName, unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return fmt.Errorf("mount %s: %w", f.dir, err)
	}
	server, err := fuse.NewServer(newFilesystem(f.disk), fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite: maxRequest, MaxReadAhead: maxRequest, DisableXAttrs: true, DisableReadDirPlus: true, ExplicitDataCacheControl: true,
		Logger:       log.New(io.Discard, "", 0), // answers that a power cut made pointless
		PanicHandler: f.panicked,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("serve %s: %w", f.dir, err), unix.Unmount(f.dir, unix.MNT_DETACH))
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	f.server, f.served = server, served
	fault := f.disk.fault.Swap(int32(Healthy)) // nobody finds the way to a disk that is gone
	defer f.disk.fault.Store(fault)
	return f.calm()
}

func (f *FS) panicked(what any) fuse.Status {
	f.t.Errorf("faultfs: panic: %v\n%s", what, debug.Stack())
	return fuse.EIO
}

// calm makes the kernel learn that nobody can poll here. Otherwise the runtime
// would ask when it opens a file, from a thread that go-fuse may need to answer;
// this is the name by which go-fuse says so.
func (f *FS) calm() error {
	fd, err := unix.Open(filepath.Join(f.dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look into %s: %w", f.dir, err)
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}

// unmount ends the connection, whoever uses it, and waits for the server.
func (f *FS) unmount() error {
	if f.server == nil {
		return nil
	}
	// Force aborts the connection, also for processes that hang upon it; detach
	// takes the mount out of the tree, also with files open.
	if err := unix.Unmount(f.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", f.dir, err)
	}
	<-f.served
	f.server = nil
	f.disk.letGo()
	return nil
}

// unmountOrphans removes mounts whose test was killed before it could.
func unmountOrphans() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		owner, ours := strings.CutPrefix(fields[0], mountName+"-")
		pid, err := strconv.Atoi(owner)
		if !ours || err != nil || !errors.Is(unix.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		dir := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[1])
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s, left by process %d: %w", dir, pid, err)
		}
	}
	return nil
}
