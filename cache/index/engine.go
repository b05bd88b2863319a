package index

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
)

// profile is how much memory and room Badger takes.
type profile struct {
	memTable int64 // bytes of a table in memory, and of its write-ahead log
	chunk    int64 // bytes of a transaction, before its last Update
	ops      int   // operations of a transaction, before its last Update
}

// tableSize is the bytes of a merged table. A merge has up to thirteen at work in
// memory, each in twice its size.
const tableSize = 1 << 20

func profileOf(small bool) profile {
	// Badger refuses transactions over 15 % of the table in memory.
	if small {
		return profile{memTable: 2 << 20, chunk: 96 << 10, ops: 1000}
	}
	return profile{memTable: 4 << 20, chunk: 384 << 10, ops: 3000}
}

// need is how much free space Badger can take, merging aside, between one look at
// the disk and the next, in bytes: there are up to two full tables in memory
// that wait to be written and the one that is being filled. Each has its
// write-ahead log, of which only the last can still grow (the files are twice as
// long, but sparse), and becomes a table of at most its own size and a fifth for
// index and filter. The log of a new one, MANIFEST, the one empty value log and
// the file system's own tables are within the last 4 MiB.
func (p profile) need() int64 { return 3*p.memTable*6/5 + p.memTable + 4<<20 }

// engine is Badger, with keys that may be anything and versions that are ours.
// One goroutine writes; any number read.
type engine struct {
	db      *badger.DB
	dir     string
	profile profile
}

// keyPrefix keeps our keys apart from Badger's own.
const keyPrefix = 'k'

func inner(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), keyPrefix), key...)
}

// openEngine opens what check finds sound, if it has all up to version acked.
func openEngine(dir string, small bool, acked uint64, log *slog.Logger) (e *engine, err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	if err := check(dir); err != nil {
		return nil, err
	}
	p := profileOf(small)
	opt := badger.DefaultOptions(dir).WithLogger(quiet{log}).WithMetricsEnabled(false).
		WithBypassLockGuard(lockIsOurs).WithDetectConflicts(false).
		// The log is synced with each transaction: Sync would only sync the last.
		WithSyncWrites(true).
		WithNumMemtables(2).WithMemTableSize(p.memTable).
		WithBlockCacheSize(0).WithIndexCacheSize(0).WithCompression(0).
		// Values stay in the tree: nothing reclaims a value log in use.
		WithValueThreshold(128 << 10).WithValueLogFileSize(1 << 20).
		// Merging is ours to begin (merge.go), when there is room for it; all
		// tables then go to the last level at once.
		WithNumCompactors(0).WithNumLevelZeroTablesStall(math.MaxInt32).
		WithBaseLevelSize(1 << 40).WithBaseTableSize(tableSize)
	db, err := badger.OpenManaged(opt)
	if err != nil {
		return nil, err
	}
	e = &engine{db, dir, p}
	if v := e.version(); v < acked {
		err := fmt.Errorf("it ends at version %d, and %d was on the disk", v, acked)
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// close may take as long as the disk does.
func (e *engine) close() (err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	if err := e.db.Close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// version is that of the last transaction.
func (e *engine) version() uint64 { return e.db.MaxVersion() }

// get is a copy of the record under key.
func (e *engine) get(key []byte) ([]byte, error) {
	tx := e.db.NewTransactionAt(math.MaxUint64, false)
	defer tx.Discard()
	item, err := tx.Get(inner(key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

// put writes changes as one transaction, and returns when it is on the disk.
func (e *engine) put(changes []change, version uint64) (err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	tx := e.db.NewTransactionAt(version, true)
	defer tx.Discard()
	for _, c := range changes {
		if c.record == nil {
			err = tx.Delete(inner([]byte(c.key)))
		} else {
			err = tx.Set(inner([]byte(c.key)), c.record)
		}
		if err != nil {
			return err
		}
	}
	return tx.CommitAt(version, nil)
}

// rows is a walk over records. Whoever opened it closes it.
type rows struct {
	tx   *badger.Txn
	it   *badger.Iterator
	from []byte
	to   []byte // nil: no end
	err  error
}

// scan begins a walk over the records of a version.
func (e *engine) scan(version uint64, from, to []byte) (r *rows, err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	tx := e.db.NewTransactionAt(version, false)
	// No prefetching: it reads in goroutines of Badger's own, where a fault kills.
	it := tx.NewIterator(badger.IteratorOptions{Prefix: inner(common(from, to))})
	r = &rows{tx: tx, it: it, from: inner(from)}
	if to != nil {
		r.to = inner(to)
	}
	return r, nil
}

// common is the prefix of all keys from from to to.
func common(from, to []byte) []byte {
	n := 0
	for n < len(from) && n < len(to) && from[n] == to[n] {
		n++
	}
	return from[:n]
}

// all is the records in order. The slices hold until the next. It ends early with
// r.err set if they cannot be read.
func (r *rows) all() iter.Seq[pair] {
	return func(yield func(pair) bool) {
		reading := true // and not in the caller's code, whose panics are its own
		before := debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(before)
			if reading {
				if p := recover(); p != nil {
					r.err = panicked(p)
				}
			}
		}()
		for r.it.Seek(r.from); r.it.Valid(); r.it.Next() {
			item := r.it.Item()
			if r.to != nil && bytes.Compare(item.Key(), r.to) >= 0 {
				return
			}
			p := pair{key: item.Key()[1:]}
			err := item.Value(func(record []byte) error { p.record = record; return nil })
			if err != nil || p.record == nil {
				p.record = []byte{} // too short: damaged
			}
			reading = false
			if !yield(p) {
				return
			}
			reading = true
		}
	}
}

func (r *rows) close() {
	defer caught(&r.err, debug.SetPanicOnFault(true))
	r.it.Close()
	r.tx.Discard()
}

// tables says how many tables were not merged yet, their bytes, and the bytes of
// all others.
func (e *engine) tables() (loose int, looseBytes, merged int64) {
	for _, l := range e.db.Levels() {
		if l.Level == 0 {
			loose, looseBytes = l.NumTables, l.Size
		} else {
			merged += l.Size
		}
	}
	return loose, looseBytes, merged
}

// middle is the last key of the table in the middle of those that end between from
// and to; nil if none does.
func (e *engine) middle(from, to []byte) []byte {
	var ends [][]byte
	for _, t := range e.db.Tables() {
		// A key of Badger's has a version of eight bytes at its end.
		if n := len(t.Right) - 8; n > 0 && t.Right[0] == keyPrefix && bytes.Compare(t.Right[1:n], from) > 0 && bytes.Compare(t.Right[1:n], to) < 0 {
			ends = append(ends, t.Right[1:n])
		}
	}
	if len(ends) == 0 {
		return nil
	}
	slices.SortFunc(ends, bytes.Compare)
	return ends[len(ends)/2]
}

// checkTables proves the files of the tables anew.
func (e *engine) checkTables() error {
	var ids []uint64
	for _, info := range e.db.Tables() {
		ids = append(ids, info.ID)
	}
	return checkTables(e.dir, ids)
}

// flatten merges all tables, and drops what was overwritten up to version.
func (e *engine) flatten(version uint64) error {
	e.db.SetDiscardTs(version)
	return e.db.Flatten(1)
}

// fingerprint is a hash over all keys of a version and when they were set.
func (e *engine) fingerprint(version uint64, seed maphash.Seed) (sum uint64, err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	tx := e.db.NewTransactionAt(version, false)
	defer tx.Discard()
	it := tx.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	var h maphash.Hash
	h.SetSeed(seed)
	for it.Rewind(); it.Valid(); it.Next() {
		maphash.WriteComparable(&h, it.Item().Version())
		_, _ = h.Write(it.Item().Key()) // never fails
	}
	return h.Sum64(), nil
}

// walFiles is the names of Badger's write-ahead logs, a line each.
func (e *engine) walFiles() (string, error) {
	names, err := filepath.Glob(globQuoted(e.dir) + "/*.mem")
	return strings.Join(names, "\n"), err
}

// holdLogs takes room for what may yet be written to logs. Badger writes to them
// through mappings: when others take the last of the disk just then, that would
// kill the process. Without room to take there is none to lose either: the next
// turn finds out.
func (e *engine) holdLogs(files string) {
	for name := range strings.Lines(files) {
		_ = takeRoom(strings.TrimSuffix(name, "\n"), e.profile.memTable)
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// quiet hands on what Badger complains about, and nothing else.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(format string, args ...any)   { q.complain(format, args) }
func (q quiet) Warningf(format string, args ...any) { q.complain(format, args) }
func (q quiet) Infof(string, ...any)                {}
func (q quiet) Debugf(string, ...any)               {}

func (q quiet) complain(format string, args []any) {
	q.log.Warn("index engine complained", "err", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
