package index

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockIsOurs tells that lockFile keeps other processes out, so that Badger need
// not.
const lockIsOurs = true

// lockFile takes a lock that the kernel lets go when the process dies, or when a
// child that was being forked meanwhile runs its own program: that is waited for.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock index: %w", classify(err))
	}
	for range 100 {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		err = ErrLocked
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock index: %w", err)
	}
	return f, nil
}

// space is the free and all bytes of the file system of dir, as for any user.
func space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("read free space: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return 0, 0, ErrReadOnly
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

// makeReserve takes room on the disk.
func makeReserve(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
}

// takeRoom takes room on the disk for the first bytes of a file; what is written
// there stays, and so does the length.
func takeRoom(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size), f.Close())
}

func syncData(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// classify marks the errors of a disk that is full or read-only.
func classify(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
