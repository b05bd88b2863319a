package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Save writes what was slow or failed to a file, if something came since saved
// was returned, and returns what to pass the next time. It is not made durable: a
// crash costs what came since the last time at most.
func (j *Journal) Save(path string, saved uint64) (uint64, error) {
	j.slow.mu.Lock()
	added := j.slow.added
	list := slices.Clone(j.slow.entries)
	j.slow.mu.Unlock()
	if added == saved {
		return saved, nil
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return saved, fmt.Errorf("save the journal: %w", err)
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for i := range list {
		if err == nil {
			err = enc.Encode(&list[i])
		}
	}
	if err = errors.Join(err, w.Flush(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return saved, fmt.Errorf("save the journal: %w", err)
	}
	return added, nil
}

// Load reads what Save wrote, up to the first line that is not right. A file that
// is not there is empty.
func (j *Journal) Load(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load the journal: %w", err)
	}
	defer f.Close()
	var list []Entry
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(list) < maxSlow {
		var e Entry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			break
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b Entry) int { return a.At.Compare(b.At) })
	for i := range list {
		j.slow.add(&list[i], maxSlow)
	}
	return nil
}
