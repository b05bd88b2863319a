package index

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"time"
)

// When tables are merged: rarely enough that a byte is rewritten two or three
// times as an index grows, often enough that a look-up passes few filters.
const (
	mergeAfter = 8  // loose tables, and half of what is merged
	mergeAt    = 48 // loose tables, whatever their size

	mergePause = time.Minute // after a merge that failed
)

// startMerge merges tables in the background if it is time and there is room.
// Only the committer calls it.
func (x *Index) startMerge() {
	loose, looseBytes, merged := x.engine.tables()
	if loose < mergeAfter || loose < mergeAt && looseBytes < merged/2 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.merging > 0 || x.closed || x.broken != nil || x.failed != nil || time.Now().Before(x.mergeDue) {
		return
	}
	// The old tables go when the new ones are written; meanwhile a few more
	// loose ones may come.
	bytes := looseBytes + merged + 4*profileOf(x.cfg.Small).memTable
	if x.room.fits(profileOf(x.cfg.Small).need()+bytes) != nil {
		return
	}
	x.merging = bytes
	x.merges.Add(1)
	go func() {
		defer x.merges.Done()
		x.merge()
	}()
}

// merge has Badger merge its tables, checks them before, for a flipped bit can
// make it panic in a goroutine of its own, and its work after: it drops a table
// that it could not create without an error.
func (x *Index) merge() {
	began := time.Now()
	x.mu.RLock()
	version := x.version
	x.mu.RUnlock()
	seed := maphash.MakeSeed()
	err := x.engine.checkTables()
	var before, after uint64
	if err == nil {
		before, err = x.engine.fingerprint(version, seed)
	}
	if err == nil {
		x.mu.Lock()
		x.dropPages()
		x.mu.Unlock()
		err = x.engine.flatten(version)
	}
	if err == nil {
		after, err = x.engine.fingerprint(version, seed)
	}
	if err == nil && after != before {
		err = errors.Join(errLost, condemn(x.engine.dir, errLost))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.merging = 0
	x.stats.Merges++
	if err != nil {
		x.mergeDue = time.Now().Add(mergePause)
	}
	if errors.Is(err, errLost) || errors.Is(err, errTable) || errors.Is(err, ErrDamaged) {
		x.broken = fmt.Errorf("index is damaged and will be set aside at the next start: %w", err)
	}
	x.log.Info("index merged", "took", time.Since(began), "err", err)
}

var errLost = errors.New("records were lost in merging tables")

// condemned is a file that says that the index beside it must not be used.
const condemned = "CONDEMNED"

func condemn(dir string, why error) error {
	return os.WriteFile(filepath.Join(dir, condemned), []byte(why.Error()), 0o600)
}
