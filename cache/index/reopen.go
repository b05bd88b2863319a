package index

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// After a failed write Badger is closed and opened anew, once the disk takes
// writes again: what it has not got is still pending. Nobody reads meanwhile, for
// Badger unmaps its tables as it closes.

const (
	// How long reopen waits for a moment in which nobody reads. It is tried
	// again in the next turn.
	lullWait = 500 * time.Millisecond
	// How long readers are let wait since Badger was closed.
	shutWait = 5 * time.Second
)

// errShut is the answer to readers that waited too long.
var errShut = errors.New("index is being opened anew")

// reopen opens Badger anew if it failed in a write. Only the committer calls it.
func (x *Index) reopen() error {
	x.mu.RLock()
	failed := x.failed
	x.mu.RUnlock()
	if failed == nil {
		return nil
	}
	if err := x.room.ready(x.version, x.need()); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if !x.shutOut() {
		return failed // somebody reads, or tables are being merged
	}
	if x.engine != nil {
		if err := x.engine.close(); err != nil {
			x.log.Warn("failed to close the index engine", "err", err)
		}
		x.engine = nil // whatever became of it: what is on the disk is looked at anew
	}
	e, err := openEngine(filepath.Join(x.cfg.Dir, "db"), x.cfg.Small, x.version, x.log)
	if err != nil {
		return fmt.Errorf("open index anew: %w", classify(err))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.engine, x.version, x.walFiles = e, e.version(), ""
	x.failed = nil
	x.stats.Reopens++
	close(x.shut)
	x.shut = nil
	x.log.Info("index opened anew", "err", failed)
	return nil
}

// shutOut keeps readers out, if there comes a moment without any. Who is inside
// may have to read more before it leaves, so nobody is kept waiting for that.
func (x *Index) shutOut() bool {
	for deadline := time.Now().Add(lullWait); ; {
		x.mu.Lock()
		if x.shut != nil { // an earlier turn did, and could not open it
			x.mu.Unlock()
			return true
		}
		if x.readers.Load() == 0 && x.merging == 0 {
			x.shut, x.shutAt = make(chan struct{}), time.Now()
			x.mu.Unlock()
			return true
		}
		x.mu.Unlock()
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-x.left:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// enter begins to read from Badger, with x.mu held for reading; it is let go
// while Badger is being opened anew. Unless it fails, leave follows.
func (x *Index) enter() error {
	for x.shut != nil && !x.closed {
		shut, wait := x.shut, shutWait-time.Since(x.shutAt)
		if wait <= 0 {
			return errShut
		}
		x.mu.RUnlock()
		timer := time.NewTimer(wait)
		select {
		case <-shut:
		case <-x.stop:
		case <-timer.C:
		}
		timer.Stop()
		x.mu.RLock()
	}
	if x.closed {
		return ErrClosed
	}
	x.readers.Add(1)
	return nil
}
