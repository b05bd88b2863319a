package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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

// TakenDown says why an object was taken down since the start: the error wraps
// ErrDenied. Readers that are open on it give the same error.
func (s *Store) TakenDown(num uint64) error { return s.denied.removed(num) }

// Denied says whether a name ("btih:<infohash>", a URL's cache key) was taken
// down: the error wraps ErrDenied. An identity counts as a name.
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

// Purge takes something down for good: what has the name, the identity or the
// digest leaves the store, and may not come back. what is as in [Denial]; why and
// by go into the audit. The denial is durable when Purge returns; the objects
// removed are listed. After a purge by SHA-256 the bodies are still being
// searched. An error of the audit does not keep anything in the store.
func (s *Store) Purge(what, why, by string) ([]Info, error) {
	what, err := normalDenial(what)
	if err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	if by == "" || why == "" {
		return nil, errors.New("purge: say who takes it down and why")
	}
	n := Denial{What: what, Why: why, By: by, At: time.Now().UTC()}
	if n, err = s.denied.set(listed{n, true}); err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	err = s.denied.audit(AuditEntry{Denial: n, Action: "denied"})
	removed, failed := s.enforce(n)
	if err = errors.Join(err, failed); err != nil {
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
		s.spawn(func() { s.searchDigest(n) }) // of a closed store, at the next start
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
		r, err := decodeRecord(value)
		if err == nil && (r.ID.String() == id || r.Promised.String() == id) {
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
		if !ok {
			continue
		}
		s.denied.remove(num, n)
		if s.Evict(num) != nil {
			continue
		}
		removed = append(removed, info)
		err = errors.Join(err, s.denied.audit(AuditEntry{Denial: n, Action: "removed", Object: num, Title: info.Title}))
	}
	return removed, errors.Join(err, s.books.index.Commit(context.Background()))
}

// searchDigest reads every body to find those with a digest.
func (s *Store) searchDigest(n Denial) {
	for _, num := range s.numbersOf() {
		if s.ctx.Err() != nil {
			return
		}
		if err := s.searchBody(n, num); err != nil && !errors.Is(err, ErrNotFound) {
			s.log.Error("failed to look for what is taken down", "object", num, "err", err)
		}
	}
	if err := s.denied.settle(n); err != nil {
		s.log.Warn("failed to save the list of takedowns", "err", err)
	}
}

// searchBody removes an object if it has the digest. It is no request for the
// object.
func (s *Store) searchBody(n Denial, num uint64) error {
	e, ok := s.look(num)
	if !ok || !e.is(isComplete) {
		return nil // its fill will see to it
	}
	r, err := s.newReader(&e)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = r.WriteRange(s.ctx, h, content.Range{End: e.size})
	_ = r.Close() // opened for reading
	if err == nil && s.denied.checkSHA256(content.Hash(h.Sum(nil))) != nil {
		_, err = s.removeDenied(n, []uint64{num})
	}
	return err
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
	if n, err = s.denied.set(listed{Denial: n}); err != nil {
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
