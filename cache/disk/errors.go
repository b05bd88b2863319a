package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cistern-edge/cistern/cache/content"
)

// What a volume can be short of. Every I/O error of this package has been
// through Classify.
var (
	// ErrFull says that the file system, or a quota on it, has no room.
	// It wraps content.ErrFull.
	ErrFull = fmt.Errorf("no room on the volume: %w", content.ErrFull)
	// ErrReadOnly says that the file system takes no writes.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrGone says that the device or its file system does not answer as it
	// should. A single bad sector gives it too: ask Probe before giving a whole
	// volume up.
	ErrGone = errors.New("volume is gone")
)

// What can be wrong with what was read.
var (
	// ErrDamaged says that a header, slot, card or record fails its checksum or
	// is not where it belongs.
	ErrDamaged = errors.New("damaged on disk")
	// ErrDiffers says that the bytes of a block are not those that its slot has
	// the hashes of.
	ErrDiffers = errors.New("bytes differ from their hashes")
	// ErrMissing says that a block has no slot: it is not durable.
	ErrMissing = errors.New("block is not durable")
)

// Why a directory is not opened.
var (
	// ErrInUse says that another process has the volume open.
	ErrInUse = errors.New("volume is in use by another process")
	// ErrNewer says that a newer program has written the volume.
	ErrNewer = errors.New("volume is of a newer format")
	// ErrFormat1 says that the volume is of format 1: MigrateV1 reads it.
	ErrFormat1 = errors.New("volume is of format 1")
)

// Classify wraps an I/O error with the one of ErrFull, ErrReadOnly and ErrGone
// that it means, if it means one.
func Classify(err error) error {
	for _, known := range []error{ErrFull, ErrReadOnly, ErrGone} {
		if err == nil || errors.Is(err, known) {
			return err
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if kind := meaning(errno); kind != nil {
			return fmt.Errorf("%w: %w", kind, err)
		}
	}
	return err
}

func meaning(errno syscall.Errno) error {
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT:
		return ErrFull
	// A file that had to be opened for reading only answers writes with EBADF;
	// os.File catches the other cause, that it was closed.
	case syscall.EROFS, syscall.EBADF:
		return ErrReadOnly
	case syscall.EIO, syscall.ENODEV, syscall.ENXIO, syscall.ESTALE, syscall.ENOTCONN:
		return ErrGone
	}
	return systemMeaning(errno)
}

// within says what was being done, and classifies.
func within(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, Classify(err))
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
