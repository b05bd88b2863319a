package appliance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// Why an update is refused, beside what package image says.
var (
	ErrBusy    = errors.New("another update goes on")
	ErrOnTrial = errors.New("the last update has still to show that it works")
	ErrNoRoom  = errors.New("the data partition has no room for the file")
	ErrDevice  = errors.New("the slot cannot be written")
)

// spare is what an update leaves free of the data partition, in bytes.
const spare = 16 * image.MiB

// Update takes an update file: it proves it, writes it to the slot that does not
// run, and asks for a restart into it. A refusal is an error, is kept as the
// last outcome, and has changed nothing else.
func (b *Box) Update(ctx context.Context, file io.Reader) (Outcome, error) {
	if !b.updating.TryLock() {
		return Outcome{}, ErrBusy
	}
	installed := false
	defer func() {
		if !installed { // else nobody touches the slot again before the restart
			b.updating.Unlock()
		}
	}()
	if b.State().OnTrial {
		return Outcome{}, ErrOnTrial
	}
	if why := b.absence(); why != "" {
		return Outcome{}, fmt.Errorf("%w, so a new system could not show that it works; the box waits for %s", ErrNoData, why)
	}
	slot := b.boot.Slot.Other()
	next, err := b.install(file, slot)
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	if err == nil {
		b.outcome(func(o *Outcome) { *o = next })
		err = b.setEnv(image.GrubEnv{"slot": string(b.boot.Slot), "trial": string(slot), "left": fmt.Sprint(trialStarts)})
	}
	if err != nil {
		if errors.Is(err, ErrDevice) {
			b.noteUpdate(slot, "", 0)
		}
		next.State, next.Reason = "refused", err.Error()
		b.outcome(func(o *Outcome) { *o = next })
		b.log.Warn("refused an update", "err", err)
		return next, err
	}
	installed = true
	b.noteUpdate(slot, next.Version, next.Serial)
	b.log.Info("installed an update", "version", next.Version, "slot", slot)
	b.restartSoon("update to " + next.Version)
	return next, nil
}

// install proves a file and writes it to a slot.
func (b *Box) install(file io.Reader, slot image.Slot) (Outcome, error) {
	o := Outcome{Slot: string(slot), State: "trial", Time: time.Now()}
	m, err := image.ReadUpdateHead(file, b.key)
	o.Version, o.Serial = m.Version, m.Serial
	if err != nil {
		return o, err
	}
	if err := m.Fits(b.release); err != nil {
		return o, err
	}
	var room unix.Statfs_t
	if err := unix.Statfs(b.state, &room); err != nil {
		return o, fmt.Errorf("look for room: %w", err)
	}
	if free := int64(room.Bavail) * room.Bsize; free < m.PayloadBytes+spare {
		return o, fmt.Errorf("%w: %d MiB are free, %d are needed", ErrNoRoom, free/image.MiB, (m.PayloadBytes+spare)/image.MiB+1)
	}
	incoming := filepath.Join(b.state, "incoming")
	defer os.Remove(incoming)
	if err := receive(incoming, file, m); err != nil {
		return o, err
	}
	return o, writeSlot(incoming, b.device(slot.Number()), m)
}

// receive keeps the payload and proves it.
func receive(name string, file io.Reader, m image.Manifest) error {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the update: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(file, m.PayloadBytes))
	if err = errors.Join(err, out.Close()); errors.Is(err, unix.ENOSPC) {
		return ErrNoRoom
	}
	switch {
	case n < m.PayloadBytes && (err == nil || errors.Is(err, io.ErrUnexpectedEOF)):
		return fmt.Errorf("%w: %d of %d bytes came", image.ErrTruncated, n, m.PayloadBytes)
	case err != nil:
		return fmt.Errorf("keep the update: %w", err)
	case hex.EncodeToString(h.Sum(nil)) != m.PayloadSHA256:
		return image.ErrDamaged
	}
	return nil
}

// writeSlot writes a proved payload to a device and reads it back.
func writeSlot(payload, device string, m image.Manifest) error {
	in, err := os.Open(payload)
	if err != nil {
		return fmt.Errorf("write the slot: %w", err)
	}
	defer in.Close()
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return fmt.Errorf("write the slot: %w", err)
	}
	defer z.Close()
	out, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.LimitReader(z, m.SlotBytes)); err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	// What is read back comes from the device, not from memory.
	if err := unix.Fadvise(int(out.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(out, 0, m.SlotBytes)); err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != m.SlotSHA256 {
		return fmt.Errorf("%w: it reads back otherwise", ErrDevice)
	}
	return nil
}
