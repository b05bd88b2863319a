package disk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// control makes a system call on a file that cannot be closed meanwhile.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			if failed = call(int(fd)); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

// allocate reserves the room for a file and makes it size bytes long, so that a
// full disk shows before the first byte and not in the middle. Where the file
// system cannot do it the file is left as it is.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil // the kernel refuses to allocate nothing
	}
	err := control(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// syncData makes the bytes of a file and its length durable.
func syncData(f *os.File) error { return control(f, unix.Fdatasync) }

// syncDir makes the entries of a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// forget asks the page cache to drop a range; a length of 0 is to the end.
func forget(f *os.File, off, length int64) error {
	return control(f, func(fd int) error { return unix.Fadvise(fd, off, length, unix.FADV_DONTNEED) })
}

// space reads how many bytes are free for this process, and how many there are.
func space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	for {
		if err = unix.Statfs(dir, &st); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), err
}

// Apart reports whether a directory, or where it would be made, is on another
// file system than the root of the machine.
func Apart(dir string) bool {
	var root, here unix.Stat_t
	path, err := filepath.Abs(dir)
	if err != nil || unix.Stat("/", &root) != nil {
		return false
	}
	for unix.Stat(path, &here) != nil {
		if path == filepath.Dir(path) {
			return false
		}
		path = filepath.Dir(path)
	}
	return here.Dev != root.Dev
}

// lockDir makes sure that one process has the volume open. The kernel lets go of
// the lock when the process dies. A child that was being forked while the volume
// was closed has the lock until it runs its own program: that is waited for.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	for range 100 {
		err = control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		err = ErrInUse
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func systemMeaning(errno syscall.Errno) error {
	switch errno {
	case unix.ENOMEDIUM, unix.EREMOTEIO, unix.ESHUTDOWN:
		return ErrGone
	}
	return nil
}
