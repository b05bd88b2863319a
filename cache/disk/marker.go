package disk

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// format is what this package writes and the newest that it reads.
const format = 2

const (
	markerName = "volume.json"
	markerMax  = 4096 // bytes
)

// marker says what a directory is. Every format keeps these three fields.
type marker struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	Sum    string `json:"sum"` // CRC-32C over the other two
}

func (m marker) sum() string {
	return fmt.Sprintf("%08x", crc32.Checksum(fmt.Appendf(nil, "%d %s", m.Format, m.ID), castagnoli))
}

func parseMarker(data []byte) (marker, error) {
	var m marker
	if len(data) > markerMax {
		return m, fmt.Errorf("marker of %d bytes: %w", len(data), ErrDamaged)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("marker: %w: %w", ErrDamaged, err)
	}
	sound := m.Sum == m.sum()
	if m.Format > format && (sound || m.Sum == "") {
		return m, fmt.Errorf("%w: it is %d, this program reads up to %d", ErrNewer, m.Format, format)
	}
	if !sound || m.Format != format || m.ID == "" {
		return m, fmt.Errorf("marker: %w", ErrDamaged)
	}
	return m, nil
}

// readMarker reads from the device, not from the page cache, so that Probe sees
// a disk that was pulled.
func readMarker(dir string) (marker, error) {
	f, err := os.Open(filepath.Join(dir, markerName))
	if err != nil {
		return marker{}, err
	}
	defer f.Close()
	_ = forget(f, 0, 0) // advice; the read is what counts
	data, err := io.ReadAll(io.LimitReader(f, markerMax+1))
	if err != nil {
		return marker{}, err
	}
	return parseMarker(data)
}

func writeMarker(dir string) (marker, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	m := marker{Format: format, ID: hex.EncodeToString(id[:])}
	m.Sum = m.sum()
	data, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	return m, replaceFile(filepath.Join(dir, markerName), func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// replaceFile writes a whole file anew. A crash leaves the old or the new one; the
// new one is durable when the call returns.
func replaceFile(path string, fill func(*os.File) error) error {
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err = fill(f); err == nil {
		err = syncData(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// makeDir makes a directory and those above it; each is durable when it returns.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	if missing(err) && filepath.Dir(path) != path {
		if err := makeDir(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
