//go:build !linux

package disk

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// allocate leaves the file sparse.
func allocate(*os.File, int64) error { return nil }

func syncData(f *os.File) error { return f.Sync() }

// syncDir makes the entries of a directory durable; Windows has no such call.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func forget(*os.File, int64, int64) error { return nil }

// space does not know; the owner's own bounds and ErrFull have to do.
func space(string) (free, total int64, err error) { return math.MaxInt64, math.MaxInt64, nil }

// Apart does not know.
func Apart(string) bool { return false }

// lockDir keeps nobody out: only Linux lets go of such a lock for sure when the
// process dies.
func lockDir(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
}

func systemMeaning(errno syscall.Errno) error {
	if runtime.GOOS != "windows" {
		return nil
	}
	switch errno {
	case 39, 112: // ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL
		return ErrFull
	case 19: // ERROR_WRITE_PROTECT
		return ErrReadOnly
	case 21, 55, 1167: // ERROR_NOT_READY, ERROR_DEV_NOT_EXIST, ERROR_DEVICE_NOT_CONNECTED
		return ErrGone
	}
	return nil
}
