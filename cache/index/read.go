package index

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Get is a copy of the value under key. It fails with ErrNotFound; with
// ErrDamaged if what is there cannot be trusted, and then removes it; with
// another error if the disk cannot be read.
func (x *Index) Get(key []byte) ([]byte, error) {
	x.mu.RLock()
	record, ok := x.waiting(key)
	if !ok && !x.closed {
		if err := x.enter(); err != nil {
			x.mu.RUnlock()
			return nil, fmt.Errorf("read record %q: %w", key, err)
		}
		if record, ok = x.waiting(key); ok { // it came while this waited
			x.leave()
		}
	}
	seen, closed := x.accepted, x.closed
	x.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case ok && record == nil:
		return nil, ErrNotFound
	case ok:
		return bytes.Clone(record[sumSize:]), nil
	}
	defer x.leave()
	value, err := x.read(key)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, ErrNotFound
	case errors.Is(err, ErrDamaged):
		x.drop(seen, key)
	}
	if err != nil {
		return nil, fmt.Errorf("read record %q: %w", key, err)
	}
	return value, nil
}

// waiting is what waits for the disk under a key; x.mu is held. A nil record is a
// removal.
func (x *Index) waiting(key []byte) (record []byte, ok bool) {
	if record, ok = x.pending.get(key); !ok {
		record, ok = x.writing.get(key)
	}
	return record, ok
}

func (x *Index) read(key []byte) (value []byte, err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	record, err := x.engine.get(key)
	if err != nil {
		return nil, err
	}
	return unseal(key, record)
}

// caught turns a panic into an error, and puts the goroutine's fault handling
// back. Badger panics on flipped bits, and a mapped page that cannot be read from
// the disk faults.
func caught(err *error, before bool) {
	p := recover()
	debug.SetPanicOnFault(before)
	if p != nil {
		*err = panicked(p)
	}
}

func panicked(p any) error {
	if fault, ok := p.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		return fmt.Errorf("read fault: %w", fault)
	}
	return fmt.Errorf("%w: %v", ErrDamaged, p)
}

// drop removes damaged records, unless something was set since they were read.
func (x *Index) drop(seen uint64, keys ...[]byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.Damaged += uint64(len(keys))
	if x.accepted != seen || x.closed || x.broken != nil || x.failed != nil {
		return // found again when it is read again
	}
	for _, key := range keys {
		x.accept([]change{{key: string(key)}})
	}
}

// Scan calls use with the records from from (included) to to (excluded; nil: to
// the end), in the order of their keys, as they were when Scan was called, what
// is pending included, until use says false. The slices are use's for the time
// of the call. Damaged records are counted in bad and removed. use may call the
// index; several Scans may run at once.
func (x *Index) Scan(from, to []byte, use func(key, value []byte) bool) (bad int, err error) {
	x.mu.RLock()
	if err := x.enter(); err != nil {
		x.mu.RUnlock()
		return 0, fmt.Errorf("scan index: %w", err)
	}
	defer x.leave()
	seen := x.accepted
	changes := within(x.pending, x.writing, from, to)
	stored, err := x.engine.scan(x.version, from, to)
	x.mu.RUnlock()
	if err != nil {
		return 0, fmt.Errorf("scan index: %w", err)
	}
	var damaged [][]byte
	for p := range over(changes, stored.all()) {
		value, err := unseal(p.key, p.record)
		if err != nil {
			damaged = append(damaged, bytes.Clone(p.key))
			continue
		}
		if !use(p.key, value) {
			break
		}
	}
	stored.close()
	if len(damaged) > 0 {
		x.drop(seen, damaged...)
	}
	if stored.err != nil {
		return len(damaged), fmt.Errorf("scan index: %w", stored.err)
	}
	return len(damaged), nil
}

// Middle is a key with about as many records from from to it as from it to to,
// for those who read all of them with two Scans at once; nil if they are too few
// to tell.
func (x *Index) Middle(from, to []byte) []byte {
	x.mu.RLock()
	if x.closed {
		x.mu.RUnlock()
		return nil
	}
	x.readers.Add(1)
	defer x.leave()
	x.mu.RUnlock()
	return x.engine.middle(from, to)
}

// leave takes note that a reader is out of Badger.
func (x *Index) leave() {
	if x.readers.Add(-1) == 0 {
		select {
		case x.left <- struct{}{}:
		default:
		}
	}
}
