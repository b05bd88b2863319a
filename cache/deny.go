package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Denial is a takedown: what must not be in the store, why, and who said so.
type Denial struct {
	// What is a pattern of URLs (see [Match]), "btih:" and an infohash (v1 or
	// v2, hexadecimal), an identity (pieces root, hyphen, size), or "sha256:"
	// and the digest of a whole file.
	What string    `json:"what"`
	Why  string    `json:"why"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// AuditEntry is one line of what was taken down and let back.
type AuditEntry struct {
	Denial
	// Action is "denied", "lifted" or "removed".
	Action string `json:"action"`
	// Object and Title are of what was removed.
	Object uint64 `json:"object,omitempty"`
	Title  string `json:"title,omitempty"`
}

// Denied says whether a name ("btih:<infohash>", a URL's cache key) was taken
// down: the error wraps ErrDenied.
func (s *Store) Denied(called string) error { return s.denied.check(called, content.ID{}) }

// Denials lists what is taken down, newest first.
func (s *Store) Denials() []Denial {
	s.denied.mu.Lock()
	defer s.denied.mu.Unlock()
	var all []Denial
	for _, n := range s.denied.list {
		if n.By != "" {
			all = append(all, n.Denial)
		}
	}
	slices.SortFunc(all, func(a, b Denial) int { return b.At.Compare(a.At) })
	return all
}

// Purge takes something down for good: it and whatever has its bytes leaves the
// store, and may not come back. what is as in [Denial]; why and by go into the
// audit. The denial is durable when Purge returns; the objects removed are
// listed. After a purge by SHA-256 the bodies are still being searched.
func (s *Store) Purge(what, why, by string) ([]Info, error) {
	what, err := normalDenial(what)
	if err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	if by == "" || why == "" {
		return nil, errors.New("purge: say who takes it down and why")
	}
	n := Denial{What: what, Why: why, By: by, At: time.Now().UTC()}
	if err := s.denied.set(listed{n, true}); err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	if err := s.denied.audit(AuditEntry{Denial: n, Action: "denied"}); err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	removed, err := s.enforce(n)
	if err != nil {
		return removed, fmt.Errorf("purge: %w", err)
	}
	return removed, nil
}

// enforce removes what a denial on the list is of.
func (s *Store) enforce(n Denial) ([]Info, error) {
	s.editing.Lock() // whoever did not see the denial has bound its name now
	//lint:ignore SA2001 nothing is guarded, only waited for
	s.editing.Unlock()
	if strings.HasPrefix(n.What, "sha256:") {
		s.fills.Go(func() { s.searchDigest(n) })
		return nil, nil
	}
	nums := s.matching(func(called string) bool { return s.denied.check(called, content.ID{}) != nil })
	nums = append(nums, s.having(n.What)...)
	slices.Sort(nums)
	removed, err := s.removeDenied(n, slices.Compact(nums))
	if err == nil {
		err = s.denied.settle(n)
	}
	return removed, err
}

// enforcePending goes on with what a crash has cut short.
func (s *Store) enforcePending() {
	for _, n := range s.denied.pending() {
		if _, err := s.enforce(n); err != nil {
			s.log.Error("failed to take down what was to be", "title", n.What, "err", err)
		}
	}
}

// having lists the objects with an identity, by its text.
func (s *Store) having(id string) []uint64 {
	var nums []uint64
	err := s.books.scan(recordPrefix, func(key, value []byte) bool {
		var r record
		if json.Unmarshal(value, &r) == nil && (r.ID.String() == id || r.Promised.String() == id) {
			nums = append(nums, numOf(key))
		}
		return true
	})
	if err != nil {
		s.log.Warn("failed to read all records", "err", err)
	}
	return nums
}

// removeDenied evicts objects and notes each.
func (s *Store) removeDenied(n Denial, nums []uint64) (removed []Info, err error) {
	for _, num := range nums {
		info, ok := s.Get(num)
		if !ok || s.Evict(num) != nil {
			continue
		}
		removed = append(removed, info)
		err = errors.Join(err, s.denied.audit(AuditEntry{Denial: n, Action: "removed", Object: num, Title: info.Title}))
	}
	return removed, errors.Join(err, s.books.index.Commit(context.Background()))
}

// searchDigest reads every body to find the one with a digest.
func (s *Store) searchDigest(n Denial) {
	for _, info := range s.List() {
		if s.ctx.Err() != nil {
			return
		}
		if !info.Complete {
			continue
		}
		r, err := s.Read(info.Num)
		if err != nil {
			continue
		}
		h := sha256.New()
		_, err = r.WriteRange(s.ctx, h, content.Range{End: info.Size})
		_ = r.Close() // opened for reading
		if err != nil || s.denied.checkSHA256(content.Hash(h.Sum(nil))) == nil {
			continue
		}
		if _, err := s.removeDenied(n, []uint64{info.Num}); err != nil {
			s.log.Error("failed to take an object down", "object", info.Num, "err", err)
			return
		}
	}
	if err := s.denied.settle(n); err != nil {
		s.log.Warn("failed to save the list of takedowns", "err", err)
	}
}

// Lift lets back what was taken down.
func (s *Store) Lift(what, by string) error {
	what, err := normalDenial(what)
	if err != nil {
		return fmt.Errorf("lift: %w", err)
	}
	if s.denialOf(what).By == "" {
		return fmt.Errorf("lift %s: %w", what, ErrNotFound)
	}
	n := Denial{What: what, At: time.Now().UTC()}
	if err := s.denied.set(listed{Denial: n}); err != nil {
		return fmt.Errorf("lift: %w", err)
	}
	n.By = by
	return s.denied.audit(AuditEntry{Denial: n, Action: "lifted"})
}

func (s *Store) denialOf(what string) Denial {
	s.denied.mu.Lock()
	defer s.denied.mu.Unlock()
	return s.denied.list[what].Denial
}

// Audit gives what was taken down, removed and let back, oldest first.
func (s *Store) Audit() ([]AuditEntry, error) {
	text, err := os.ReadFile(filepath.Join(s.denied.dirs[0], auditFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	var all []AuditEntry
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var entry AuditEntry
		if json.Unmarshal(lines.Bytes(), &entry) == nil { // a line that a crash cut short says nothing
			all = append(all, entry)
		}
	}
	return all, nil
}
