package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// audit appends a line to the file of every volume, durably.
func (d *denials) audit(entry AuditEntry) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	line := append(encode(entry), '\n')
	return d.everywhere("audit", func(dir string) error { return appendLine(filepath.Join(dir, auditFile), line) })
}

// appendLine adds a line to a file. One before it that a crash has cut short is
// ended first.
func appendLine(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end > 0 {
		var last [1]byte
		if _, err = f.ReadAt(last[:], end-1); last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if err == nil {
		_, err = f.Write(line)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// parseAudit reads the lines of an audit file. One that a crash cut short says
// nothing.
func parseAudit(text []byte) (all []AuditEntry) {
	for line := range bytes.Lines(text) {
		var entry AuditEntry
		if json.Unmarshal(line, &entry) == nil && entry.Action != "" {
			all = append(all, entry)
		}
	}
	return all
}

// Audit gives what was taken down, removed and let back, oldest first: what any
// of the volumes has of it.
func (s *Store) Audit() ([]AuditEntry, error) {
	var all []AuditEntry
	err := s.denied.everywhere("read audit", func(dir string) error {
		text, err := os.ReadFile(filepath.Join(dir, auditFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		for _, entry := range parseAudit(text) {
			if !slices.Contains(all, entry) {
				all = append(all, entry)
			}
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b AuditEntry) int { return a.At.Compare(b.At) })
	return all, err
}
