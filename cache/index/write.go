package index

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How the committer works: it gathers for a while what is set, and tries again
// every second when the disk takes nothing.
const (
	gather     = 20 * time.Millisecond
	enough     = 4 << 20 // bytes pending that are written without waiting for more
	retryEvery = time.Second
	probeEvery = 30 * time.Second // when nothing is to be written
	stuckAfter = 5 * time.Second
)

// Set puts value under key; it is seen at once. The error is ErrTooLarge, or
// ErrClosed: nothing else is known before Commit.
func (x *Index) Set(key, value []byte) error { return x.Update(Op{Key: key, Value: value}) }

// Delete removes key, if it is there. Errors as of Set.
func (x *Index) Delete(key []byte) error { return x.Update(Op{Key: key, Delete: true}) }

// Update does all of ops or, after a crash, none of them. Of several for one key
// the last counts. At most MaxOps operations and MaxUpdate bytes; errors as of
// Set.
func (x *Index) Update(ops ...Op) error {
	update, err := changes(ops)
	if err != nil || len(update) == 0 {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	x.accept(update)
	return nil
}

// accept takes an Update; x.mu is held.
func (x *Index) accept(update []change) {
	x.pending.add(update)
	x.accepted++
	poke(x.kick)
	if x.pending.bytes > enough {
		poke(x.hurry)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// changes checks and seals ops, the last for each key.
func changes(ops []Op) ([]change, error) {
	if len(ops) > MaxOps {
		return nil, fmt.Errorf("%w: %d operations in an update", ErrTooLarge, len(ops))
	}
	out := make([]change, 0, len(ops))
	size := 0
	for i, op := range ops {
		if len(op.Key) > MaxKey || len(op.Value) > MaxValue {
			return nil, fmt.Errorf("%w: key of %d bytes, value of %d", ErrTooLarge, len(op.Key), len(op.Value))
		}
		if size += len(op.Key) + len(op.Value); size > MaxUpdate {
			return nil, fmt.Errorf("%w: update of more than %d bytes", ErrTooLarge, MaxUpdate)
		}
		if !overwritten(op, ops[i+1:]) {
			c := change{key: string(op.Key)}
			if !op.Delete {
				c.record = seal(op.Key, op.Value)
			}
			out = append(out, c)
		}
	}
	return out, nil
}

func overwritten(op Op, later []Op) bool {
	for _, l := range later {
		if string(l.Key) == string(op.Key) {
			return true
		}
	}
	return false
}

// Pending is how many bytes wait for the disk. Over MaxPending the store should
// take nothing new.
func (x *Index) Pending() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.writing == nil {
		return x.pending.bytes
	}
	return x.pending.bytes + x.writing.bytes
}

// Health is nil, or why nothing can be written now: ErrFull, ErrReadOnly, an I/O
// error, a disk that does not answer, a failure that Badger has to be opened anew
// after, or more than MaxPending waiting.
func (x *Index) Health() error {
	pending := x.Pending()
	x.mu.RLock()
	defer x.mu.RUnlock()
	switch {
	case x.broken != nil:
		return x.broken
	case x.fault != nil:
		return x.fault
	case x.failed != nil:
		return x.failed
	case !x.began.IsZero() && time.Since(x.began) > stuckAfter:
		return fmt.Errorf("write index: the disk has not answered for %v", time.Since(x.began).Round(time.Second))
	case pending > MaxPending:
		return fmt.Errorf("write index: %d bytes are waiting for the disk", pending)
	}
	return nil
}

// Commit returns when everything set before the call is on the disk, or with the
// reason why it cannot be now; it will be tried again all the same. It waits for
// one attempt, as long as ctx allows.
func (x *Index) Commit(ctx context.Context) error {
	x.mu.RLock()
	target, before := x.accepted, x.turns
	for {
		saved, turned, fault, closed, ended := x.saved, x.turned, x.fault, x.closed, x.turns
		if !x.began.IsZero() {
			ended--
		}
		x.mu.RUnlock()
		switch {
		case saved >= target:
			return nil
		case fault != nil && ended > before: // it began after the call
			return fault
		case closed:
			return ErrClosed
		}
		poke(x.hurry)
		poke(x.kick)
		select {
		case <-turned:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), x.Health())
		}
		x.mu.RLock()
	}
}

// run is the committer.
func (x *Index) run() {
	defer close(x.stopped)
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	guard := time.NewTicker(100 * time.Millisecond)
	defer guard.Stop()
	looked := time.Now()
	for {
		select {
		case <-x.stop:
			x.turn()
			return
		case <-x.kick:
			x.gather()
			x.turn()
		case <-tick.C:
			if x.due() || time.Since(looked) > probeEvery {
				x.turn()
				looked = time.Now()
			}
			x.trimPages()
		case <-guard.C:
			x.guard()
		}
	}
}

// due tells that there is something to write, to stamp, or to find out anew.
func (x *Index) due() bool {
	pending := x.Pending()
	x.mu.RLock()
	sick := x.fault != nil
	x.mu.RUnlock()
	return pending > 0 || sick || x.room.stamped != x.version || x.room.fits(x.need()) != nil
}

// gather lets more come, unless somebody waits or there is enough.
func (x *Index) gather() {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-x.hurry:
	case <-timer.C:
	case <-x.stop:
	}
}

// guard gives the reserve back when a merge under way could run out of room.
func (x *Index) guard() {
	x.mu.RLock()
	merging := x.merging
	x.mu.RUnlock()
	if merging > 0 {
		_ = x.room.fits(x.need()) // the next turn says so
	}
}

// need is how much room Badger can take before the next look; see profile.need.
// A merge writes as much as it reads.
func (x *Index) need() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return profileOf(x.cfg.Small).need() + x.merging
}

// turn writes what is pending, or finds out that it cannot be.
func (x *Index) turn() {
	x.mu.Lock()
	if x.writing == nil && len(x.pending.updates) > 0 {
		x.writing, x.pending = x.pending, newBatch()
		x.writing.seq = x.accepted
	}
	batch, err := x.writing, x.broken
	x.began = time.Now()
	x.turns++
	x.mu.Unlock()

	if err == nil {
		err = x.reopen()
	}
	if err == nil {
		err = x.write(batch)
	}
	if err == nil {
		x.room.refill(profileOf(x.cfg.Small).need())
	}

	x.mu.Lock()
	if (err == nil) != (x.fault == nil) {
		x.log.Warn("index writing changed", "err", err)
	}
	x.fault, x.began = err, time.Time{}
	x.stats.Reserve = x.room.held
	if err == nil && batch != nil {
		x.writing, x.saved = nil, batch.seq
		x.stats.Commits++
	}
	close(x.turned)
	x.turned = make(chan struct{})
	x.mu.Unlock()
	if err == nil {
		x.startMerge()
	}
}

// write brings a batch to the disk; nil: only finds out whether it could.
func (x *Index) write(b *batch) error {
	if err := x.room.ready(x.version, x.need()); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if b == nil {
		return nil
	}
	p := profileOf(x.cfg.Small)
	for b.done < len(b.updates) {
		if err := x.room.fits(x.need()); err != nil {
			return fmt.Errorf("write index: %w", err)
		}
		changes, updates := b.next(p.chunk, p.ops)
		if err := x.engine.put(changes, x.version+1); err != nil {
			return x.fail(classify(err))
		}
		b.done += updates
		x.mu.Lock()
		x.version++
		x.mu.Unlock()
	}
	// A log that Badger began has to be found after a power cut.
	files, err := x.engine.walFiles()
	if err == nil && files != x.walFiles {
		x.engine.holdLogs(files)
		err = syncDir(x.engine.dir)
	}
	if err != nil {
		return fmt.Errorf("write index: %w", classify(err))
	}
	x.walFiles = files
	return nil
}

// fail stops all writing: after a failed write Badger's state is not known, and
// the next one may end the process. What was to be written stays pending.
func (x *Index) fail(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = fmt.Errorf("write index: %w", err)
	return x.failed
}
