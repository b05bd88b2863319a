package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// resetFile asks the next start for a factory reset.
const resetFile = "reset"

// Reset erases what the box has stored and been told, and starts it anew: it
// then takes what lies on its CONFIG partition, as at its first start. The system
// stays the one that runs.
func (b *Box) Reset(_ context.Context) error {
	if b.State().OnTrial {
		return ErrOnTrial
	}
	var err error
	if b.absence() == "" {
		err = writeFile(filepath.Join(b.state, resetFile), nil, 0o600)
	} else {
		err = markForReset(b.device(image.PartData))
	}
	if err != nil {
		return fmt.Errorf("ask for a factory reset: %w", err)
	}
	b.restartSoon("factory reset")
	return nil
}

// resetMark lies at the beginning of a data partition that is being made anew,
// where ext4 has nothing: a power cut in between has it made anew again.
var resetMark = []byte("cistern: this partition is to be made anew\n")

// block is what ext4's first superblock lies in, in bytes.
const block = 4096

// format makes a data partition anew. Its superblock is written last.
func format(dev, empty string) (err error) {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("make the data anew: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("make the data anew: %w", err)
		}
	}()
	if _, err := f.WriteAt(resetMark, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	discard(f)
	packed, err := os.Open(empty)
	if err != nil {
		return err
	}
	defer packed.Close()
	z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	first := make([]byte, block)
	if _, err := io.ReadFull(z, first); err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(f, block), z); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.WriteAt(first, 0); err != nil {
		return err
	}
	return f.Sync()
}

// discard tells a disk that can forget to forget what is behind the first MiB.
func discard(f *os.File) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size <= image.MiB {
		return
	}
	span := [2]uint64{image.MiB, uint64(size) - image.MiB}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))) // most cannot
}

// halfMade says whether a partition was being made anew when the power went.
func halfMade(dev string) bool {
	f, err := os.Open(dev)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(resetMark))
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.Equal(head, resetMark)
}
