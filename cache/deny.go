package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// denials are what must not be here. The list lies on every volume, so that it
// outlives each of them. Safe for concurrent use.
type denials struct {
	dirs []string // of the volumes

	// mu guards what follows.
	mu    sync.Mutex
	list  map[string]Denial
	whole bool // there are digests of whole files
}

const (
	deniedFile = "denied.json"
	auditFile  = "audit.jsonl"
)

// openDenials reads the lists of all volumes. One that cannot be read stops the
// start: what was taken down must not come back because of a bad sector.
func openDenials(dirs []string) (*denials, error) {
	d := &denials{dirs: dirs, list: map[string]Denial{}}
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, deniedFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		list := map[string]Denial{}
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		if err != nil {
			return nil, fmt.Errorf("read the list of takedowns %s: %w", filepath.Join(dir, deniedFile), err)
		}
		for what, denial := range list {
			if old, ok := d.list[what]; !ok || denial.At.After(old.At) {
				d.list[what] = denial
			}
		}
	}
	for what, denial := range d.list {
		if denial.By == "" { // lifted; the mark outranks older lists
			continue
		}
		d.whole = d.whole || strings.HasPrefix(what, "sha256:")
	}
	return d, nil
}

// normalDenial checks what is to be denied and gives it its usual form.
func normalDenial(what string) (string, error) {
	what = strings.TrimSpace(what)
	kind, hash, _ := strings.Cut(what, ":")
	switch {
	case kind == "btih":
		hash = strings.ToLower(hash)
		if b, err := hex.DecodeString(hash); err != nil || len(b) != 20 && len(b) != 32 {
			return "", fmt.Errorf("infohash %q: want 40 or 64 hexadecimal digits", hash)
		}
		return "btih:" + hash, nil
	case kind == "sha256":
		var h content.Hash
		if err := h.UnmarshalText([]byte(strings.ToLower(hash))); err != nil {
			return "", err
		}
		return "sha256:" + h.String(), nil
	}
	if id, err := content.ParseID(what); err == nil {
		return id.String(), nil
	}
	if err := CheckPattern(what); err != nil {
		return "", err
	}
	if !strings.Contains(what, ".") && !strings.Contains(what, "://") {
		return "", fmt.Errorf("%q is no URL, pattern of hosts, btih:<infohash>, sha256:<digest> or identity", what)
	}
	return what, nil
}

// check says whether a name or an identity was taken down.
func (d *denials) check(called string, id content.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for what, denial := range d.list {
		if denial.By == "" {
			continue
		}
		hit := false
		switch {
		case strings.HasPrefix(what, "btih:"):
			hit = called == what || strings.HasPrefix(called, what+"/")
		case strings.HasPrefix(what, "sha256:"):
		default:
			hit = !id.IsZero() && what == id.String() || Match(what, called)
		}
		if hit {
			return denial.refusal()
		}
	}
	return nil
}

func (n Denial) refusal() error {
	return fmt.Errorf("%w: %s, by %s on %s: %s", ErrDenied, n.What, n.By, n.At.Format(time.DateOnly), n.Why)
}

// checkBody says whether the bytes were taken down. The digest of the whole is
// made only if somebody asked for one to be kept out.
func (d *denials) checkBody(id content.ID, body io.Reader) error {
	if err := d.check("", id); err != nil {
		return err
	}
	d.mu.Lock()
	whole := d.whole
	d.mu.Unlock()
	if !whole {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return fmt.Errorf("hash the whole: %w", err)
	}
	return d.checkSHA256(content.Hash(h.Sum(nil)))
}

func (d *denials) checkSHA256(sum content.Hash) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if denial, ok := d.list["sha256:"+sum.String()]; ok && denial.By != "" {
		return denial.refusal()
	}
	return nil
}

// set puts a denial on the list of every volume that can be written.
func (d *denials) set(n Denial) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list[n.What] = n
	d.whole = d.whole || strings.HasPrefix(n.What, "sha256:")
	text, err := json.MarshalIndent(d.list, "", "  ")
	if err != nil {
		return fmt.Errorf("write the list of takedowns: %w", err)
	}
	var failed []error
	for _, dir := range d.dirs {
		if err := replaceFile(filepath.Join(dir, deniedFile), append(text, '\n')); err != nil {
			failed = append(failed, fmt.Errorf("write the list of takedowns: %w", err))
		}
	}
	if len(failed) == len(d.dirs) {
		return errors.Join(failed...)
	}
	return nil
}

// replaceFile writes a file so that a crash leaves the old or the new one.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// audit appends a line, durably.
func (d *denials) audit(entry AuditEntry) error {
	f, err := os.OpenFile(filepath.Join(d.dirs[0], auditFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	_, err = f.Write(append(encode(entry), '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
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
			all = append(all, n)
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
	n := Denial{What: what, Why: why, By: by, At: time.Now().UTC().Truncate(time.Second)}
	if err := s.denied.set(n); err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	if err := s.denied.audit(AuditEntry{Denial: n, Action: "denied"}); err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	if strings.HasPrefix(what, "sha256:") {
		s.fills.Go(func() { s.searchDigest(n) })
		return nil, nil
	}
	nums := s.matching(func(called string) bool { return s.denied.check(called, content.ID{}) != nil })
	nums = append(nums, s.having(what)...)
	slices.Sort(nums)
	return s.removeDenied(n, slices.Compact(nums))
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
		if s.ctx.Err() != nil || !info.Complete {
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
		}
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
	if err := s.denied.set(n); err != nil {
		return fmt.Errorf("lift: %w", err)
	}
	n.By = by
	return s.denied.audit(AuditEntry{Denial: n, Action: "lifted"})
}

func (s *Store) denialOf(what string) Denial {
	s.denied.mu.Lock()
	defer s.denied.mu.Unlock()
	return s.denied.list[what]
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
