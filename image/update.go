package image

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"aead.dev/minisign"
)

// Manifest says what an update file brings. It is what the signature is over;
// the rest of the file is bound to it by PayloadSHA256.
type Manifest struct {
	Format  int    `json:"format"` // 1
	Product string `json:"product"`
	Arch    string `json:"arch"` // amd64, arm64
	Version string `json:"version"`
	// Serial grows with every release; a box takes no smaller one.
	Serial   uint64    `json:"serial"`
	Released time.Time `json:"released"`
	// Data is the layout of store and configuration that the release writes; a
	// box does not start a release that writes another than it can read.
	Data int `json:"data"`
	// SlotBytes and SlotSHA256 are of what is written to the slot.
	SlotBytes  int64  `json:"slot_bytes"`
	SlotSHA256 string `json:"slot_sha256"`
	// PayloadBytes and PayloadSHA256 are of that as it lies in the file, in zstd.
	PayloadBytes  int64  `json:"payload_bytes"`
	PayloadSHA256 string `json:"payload_sha256"`
}

// What a file of this build says of itself.
const (
	UpdateFormat = 1
	DataFormat   = 1
	Product      = "cistern"
)

// Bounds of an update file's head, in bytes.
const (
	updateMagic  = "CISTUPD1"
	maxManifest  = 16 << 10
	maxSignature = 4 << 10
)

// Why an update file is refused.
var (
	ErrNotUpdate = errors.New("this is no update file")
	ErrSignature = errors.New("the signature is not by the key that this box trusts")
	ErrTruncated = errors.New("the file is cut short")
	ErrDamaged   = errors.New("the file is damaged")
	ErrUnfit     = errors.New("the update is not for this box")
	ErrOlder     = errors.New("the update is older than what runs")
)

// WriteUpdateHead begins an update file: its manifest, signed. The payload
// follows.
func WriteUpdateHead(w io.Writer, m Manifest, key minisign.PrivateKey) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	comment := fmt.Sprintf("%s %s %s", m.Product, m.Version, m.Arch)
	signature := minisign.SignWithComments(key, text, comment, comment)
	head := binary.BigEndian.AppendUint32([]byte(updateMagic), uint32(len(text)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(signature)))
	_, err = w.Write(append(append(head, text...), signature...))
	return err
}

// ReadUpdateHead reads the beginning of an update file and proves its
// signature. What follows in r is the payload, which is not proved yet.
func ReadUpdateHead(r io.Reader, key minisign.PublicKey) (m Manifest, err error) {
	var head [len(updateMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, cut(err)
	}
	if string(head[:len(updateMagic)]) != updateMagic {
		return m, ErrNotUpdate
	}
	size, signed := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
	if size > maxManifest || signed > maxSignature {
		return m, ErrNotUpdate
	}
	body := make([]byte, size+signed)
	if _, err := io.ReadFull(r, body); err != nil {
		return m, cut(err)
	}
	if !minisign.Verify(key, body[:size], body[size:]) {
		return m, ErrSignature
	}
	d := json.NewDecoder(bytes.NewReader(body[:size]))
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %v", ErrNotUpdate, err)
	}
	if m.Format != UpdateFormat || m.Product != Product {
		return m, fmt.Errorf("%w: %s, form %d", ErrUnfit, m.Product, m.Format)
	}
	if m.SlotBytes <= 0 || m.SlotBytes > SlotSize || m.PayloadBytes <= 0 || m.PayloadBytes > SlotSize {
		return m, fmt.Errorf("%w: %d bytes do not fit a slot", ErrUnfit, m.SlotBytes)
	}
	return m, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return fmt.Errorf("read the update: %w", err)
}

// Fits says why an update must not follow the release that runs, or nil.
func (m Manifest) Fits(running Release) error {
	switch {
	case m.Arch != running.Arch:
		return fmt.Errorf("%w: it is for %s, this is %s", ErrUnfit, m.Arch, running.Arch)
	case m.Serial < running.Serial:
		return fmt.Errorf("%w: %s (serial %d), running is %s (serial %d)", ErrOlder, m.Version, m.Serial, running.Version, running.Serial)
	case m.Serial == running.Serial:
		return fmt.Errorf("%w: %s runs already", ErrOlder, m.Version)
	case m.Data > DataFormat:
		return fmt.Errorf("%w: it writes data of form %d, and this release could not go back to that", ErrUnfit, m.Data)
	}
	return nil
}

// Release is what a slot says of itself in ReleaseFile.
type Release struct {
	Version string `json:"version"`
	Arch    string `json:"arch"`
	Serial  uint64 `json:"serial"`
	Kernel  string `json:"kernel"`
}

// Files of a running system.
const (
	ReleaseFile = "/etc/cistern/release.json"
	KeyFile     = "/etc/cistern/update.pub"
	ModulesFile = "/etc/cistern/modules.json"
	DataImage   = "/etc/cistern/data.ext4.zst" // an empty data partition, for a factory reset
)
