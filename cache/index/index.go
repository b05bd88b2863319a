// Package index keeps names and records: a map from keys to values, in order,
// on a disk that may be full, read-only, dying or flipping bits. It is the only
// door to Badger.
//
// What is set is seen at once by every reader and stays in memory until the
// committer has it on the disk (group commit). Nothing is written to Badger
// unless a probe has just shown that the disk takes writes and has room for all
// that Badger could do with them, for Badger writes through mappings, and a
// write to a mapping that the disk cannot take kills the process.
//
// It refuses to know what the records mean, to guess at what a damaged one said,
// and to repair: a record whose checksum is wrong is dropped, an index that
// cannot be trusted as a whole is set aside, and the store builds both again from
// what lies beside the bodies.
//
// Start reading at Open; then Index.turn (writing), Index.Scan (reading),
// check.go (what is proved of the files before Badger may see them).
package index

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// What an index takes.
const (
	MaxKey    = 1 << 10   // bytes of a key
	MaxValue  = 64 << 10  // bytes of a value
	MaxUpdate = 128 << 10 // bytes of the keys and values of one Update
	MaxOps    = 500       // operations of one Update

	// MaxPending is how much may wait for the disk, in bytes, before the store
	// should take no new objects; see Index.Pending.
	MaxPending = 32 << 20
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("not in the index")
	ErrDamaged  = errors.New("record is damaged")
	ErrTooLarge = errors.New("too large for the index")
	ErrClosed   = errors.New("index is closed")
	ErrLocked   = errors.New("index is in use by another process")
	ErrFull     = errors.New("disk is full")
	ErrReadOnly = errors.New("disk is read-only")
)

// Config says where an index lives.
type Config struct {
	// Dir is the directory of the index, made when missing. A damaged index is
	// set aside beside it, as <Dir>.damaged-<n>.
	Dir string
	// Small halves speed and takes a quarter of the memory and of the room: for
	// agents.
	Small bool
	// Reserve is how many bytes of the disk are held and given back when others
	// fill it. Zero: a sixteenth of the file system, 16 MiB to 128 MiB.
	Reserve int64
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: no directory"))
	}
	if c.Reserve < 0 {
		errs = append(errs, fmt.Errorf("reserve: %d bytes is negative", c.Reserve))
	}
	return errors.Join(errs...)
}

// Index is an open index. All methods may be called at the same time.
type Index struct {
	cfg   Config
	log   *slog.Logger
	lock  *os.File
	fresh bool
	why   string // why it is fresh, if something was there

	readers atomic.Int64   // who is inside Badger
	left    chan struct{}  // capacity 1: the last of them has left
	merges  sync.WaitGroup // the merge that is running
	kick    chan struct{}  // something is to be written
	hurry   chan struct{}  // somebody waits for it
	stop    chan struct{}
	stopped chan struct{} // the committer is gone

	// The committer alone uses these.
	room     *room
	engine   *engine // everybody's for reading, as long as nobody shut it
	walFiles string  // Badger's write-ahead logs when the directory was last synced
	resident int64   // bytes of files in memory when the tables were last given up

	mu       sync.RWMutex  // guards all below
	pending  *batch        // set, and not yet being written
	writing  *batch        // being written, or waiting for the disk to take it
	accepted uint64        // Updates that were accepted
	saved    uint64        // the first so many are on the disk
	version  uint64        // of the last transaction in Badger
	turns    uint64        // turns that began
	began    time.Time     // when the turn began that is under way; zero: none is
	fault    error         // why the last turn failed
	broken   error         // the tables are damaged: no more writes until a restart
	failed   error         // Badger failed in a write: no more of them until it is opened anew
	shut     chan struct{} // not nil while Badger is opened anew; closed after it
	shutAt   time.Time     // since when
	turned   chan struct{} // closed when a turn ends
	closed   bool
	merging  int64     // bytes of the tables that are being merged; 0: none are
	mergeDue time.Time // not to be merged before
	stats    Stats
}

// Stats is what an index has done since it was opened.
type Stats struct {
	Commits uint64 // group commits
	Damaged uint64 // records found damaged, and dropped
	Merges  uint64 // merges of tables
	Reserve bool   // the reserve is held
	Reopens uint64 // times that Badger was opened anew after it failed in a write
}

// Open opens the index in cfg.Dir, or makes one. What cannot be trusted is set
// aside, and a fresh index opened in its place; see Fresh. It fails with
// ErrLocked if another process has the index, and with ErrFull, ErrReadOnly or
// the I/O error if the disk cannot be written: Badger cannot open without.
func Open(cfg Config, log *slog.Logger) (*Index, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", classify(err))
	}
	lock, err := lockFile(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", cfg.Dir, err)
	}
	x := &Index{
		cfg: cfg, log: log, lock: lock,
		kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}), left: make(chan struct{}, 1), turned: make(chan struct{}),
		pending: newBatch(),
	}
	if err := x.load(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open index %s: %w", cfg.Dir, err)
	}
	go x.run()
	return x, nil
}

// load opens what is there, or sets it aside and opens a fresh one.
func (x *Index) load() error {
	var err error
	if x.room, err = newRoom(x.cfg, x.log); err != nil {
		return err
	}
	db := filepath.Join(x.cfg.Dir, "db")
	acked := readStamp(x.cfg.Dir)
	if x.fresh, err = missing(db); err != nil {
		return err
	}
	if x.fresh {
		acked = 0
	}
	if err := x.room.ready(acked, profileOf(x.cfg.Small).need()); err != nil {
		return err
	}
	x.engine, err = openEngine(db, x.cfg.Small, acked, x.log)
	if err == nil {
		x.version = x.engine.version()
		return nil
	}
	// Neither is damage: files of another user, and a disk that cannot be written
	// now, which explains any failure.
	if errors.Is(err, os.ErrPermission) {
		return err
	}
	if sick := x.room.ready(acked, 0); sick != nil {
		return errors.Join(sick, err)
	}
	to, aside := setAside(x.cfg.Dir, db)
	if aside != nil {
		return errors.Join(err, aside)
	}
	x.fresh, x.why = true, fmt.Sprintf("the index could not be trusted (%v) and was set aside as %s", err, to)
	x.log.Error("index was damaged and set aside", "err", err, "file", to)
	if err := x.room.ready(0, profileOf(x.cfg.Small).need()); err != nil {
		return err
	}
	x.engine, err = openEngine(db, x.cfg.Small, 0, x.log)
	return err
}

// Fresh tells that the index began empty: with no reason if nothing was there,
// else with why what was there could not be trusted, and where it is now. It says
// so once: a store that may be killed while it fills a fresh index again keeps a
// record that this was finished.
func (x *Index) Fresh() (bool, string) { return x.fresh, x.why }

// Stats is a snapshot.
func (x *Index) Stats() Stats {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.stats
}

// How long Close waits for the disk.
const closeWait = 10 * time.Second

// Close writes what is pending and closes the index. On a disk that takes no
// writes, or does not answer for ten seconds, it returns with what could not be
// done, and leaves a goroutine behind that tries to close Badger every second
// (Badger writes its last table as it closes: on a full disk that would kill the
// process) and holds the lock until that is done or the process ends, so that
// nobody opens files to which Badger may yet write. Nothing acknowledged is lost
// by that: it is in Badger's write-ahead log.
func (x *Index) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return ErrClosed
	}
	x.closed = true
	x.mu.Unlock()
	close(x.stop)

	result := make(chan error, 1)
	go x.finish(result)
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return fmt.Errorf("close index %s: the disk did not answer for %v", x.cfg.Dir, closeWait)
	}
}

// finish closes everything when everybody has left, and says once how it went.
func (x *Index) finish(result chan<- error) {
	<-x.stopped // after this nobody else uses what is the committer's
	x.merges.Wait()
	for x.readers.Load() > 0 { // nobody enters any more
		<-x.left
	}
	var lost error
	if bytes := x.Pending(); bytes > 0 {
		lost = fmt.Errorf("close index %s: %d bytes of records could not be written: %w", x.cfg.Dir, bytes, x.Health())
	}
	waited := false
	for {
		err := x.room.ready(x.version, profileOf(x.cfg.Small).need())
		if err == nil {
			break
		}
		if !waited {
			waited = true
			result <- errors.Join(lost, fmt.Errorf("close index %s: waiting for the disk: %w", x.cfg.Dir, err))
		}
		time.Sleep(retryEvery)
	}
	var err error
	if x.engine != nil {
		err = x.engine.close()
	}
	x.lock.Close()
	if waited {
		x.log.Info("index closed late", "err", err)
		return
	}
	result <- errors.Join(lost, err)
}
