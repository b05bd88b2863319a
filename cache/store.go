// Package cache is the store: one sparse file for each object, an index in
// Badger, and one Fill for each object that is on its way in, however many
// readers drink from it.
//
// The way of a byte through it: a content.Source writes to a [Fill] (a
// content.Sink), which makes ranges readable, wakes every [Reader] and later
// makes them durable; a complete object earns its identity. The store knows
// nothing of HTTP, torrents or multicast, and refuses to call anything complete
// that has not been hashed. Start reading at [Store.Create] and [Fill.Start].
package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Config says where the store lives and how large it may grow.
type Config struct {
	// Dir is the data directory; it is made if it is not there.
	Dir string
	// MaxBytes bounds the bytes of all objects; 0 means 50 GB.
	MaxBytes int64
	// MinFree is how many bytes of the volume stay free, so that the index
	// never meets a full disk; 0 means 256 MiB.
	MinFree int64
	// Small keeps the index light, for agents on machines of 128 MB.
	Small bool
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("store.dir: no directory named"))
	}
	if c.MaxBytes < 0 {
		faults = append(faults, fmt.Errorf("store.max_bytes: %d is negative", c.MaxBytes))
	}
	if c.MinFree < 0 {
		faults = append(faults, fmt.Errorf("store.min_free: %d is negative", c.MinFree))
	}
	return errors.Join(faults...)
}

// Errors that callers tell apart.
var (
	// ErrNotFound says that the store has no such object or name.
	ErrNotFound = errors.New("not in the store")
	// ErrIncomplete says that an object is not whole and nothing is filling it.
	ErrIncomplete = errors.New("object is incomplete and nothing is filling it")
	// ErrClosed says that the store has been closed.
	ErrClosed = errors.New("store is closed")
)

// Store keeps objects. All methods are safe for concurrent use.
type Store struct {
	cfg   Config
	log   *slog.Logger
	index *index
	lock  *os.File

	ctx    context.Context // ends at Close; fills live in it
	cancel context.CancelFunc
	fills  sync.WaitGroup

	// mu guards what follows. It is taken before a Fill's own lock, never after.
	mu      sync.Mutex
	objects map[uint64]*record
	names   map[string]uint64
	ids     map[content.ID]uint64
	active  map[uint64]*Fill
	closed  bool
	gone    totals
	used    int64 // bytes that objects take or have reserved
	next    uint64
	dirty   map[uint64]bool // records with figures that the index has not got
}

// Spec says what a new object is.
type Spec struct {
	content.Object
	// Title is what people see: a file name or an address.
	Title string
	// Public objects may be had under other names than the one they came by.
	Public bool
}

// check makes sure that size, identity and layer are of one object, and takes
// the size from the identity if it was not said.
func (spec *Spec) check() error {
	spec.Size = max(spec.Size, content.UnknownSize)
	if !spec.ID.IsZero() {
		if spec.Size == content.UnknownSize {
			spec.Size = spec.ID.Size
		}
		if spec.Size != spec.ID.Size || spec.Size < 0 {
			return fmt.Errorf("size is said to be %d, its identity says %d", spec.Size, spec.ID.Size)
		}
	}
	if spec.Layer != nil {
		return spec.Layer.Check(spec.ID)
	}
	return nil
}

// Create makes an empty object under a name and returns the Fill that brings it
// in; the caller starts it. An older object loses the name. meta is kept with
// the name and means nothing to the store. The error wraps content.ErrFull if
// there is no room.
func (s *Store) Create(spec Spec, name string, meta []byte) (*Fill, error) {
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("create %s: %w", spec.Title, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("create %s: %w", spec.Title, ErrClosed)
	}
	if err := s.makeRoom(max(spec.Size, 0)); err != nil {
		return nil, fmt.Errorf("create %s: %w", spec.Title, err)
	}
	now := time.Now()
	r := &record{
		Num: s.next, Size: spec.Size, Promised: spec.ID, Trust: spec.Trust, Public: spec.Public, Title: spec.Title,
		Created: now, Used: now, Names: map[string][]byte{}, From: map[string]int64{}, Served: map[string]int64{},
	}
	s.next++
	b, err := createBlob(s.cfg.Dir, r.Num, spec.Size)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", spec.Title, err)
	}
	s.objects[r.Num] = r
	s.used += r.reserved()
	if err := s.bind(r, name, meta); err != nil {
		b.close()
		return nil, errors.Join(err, s.remove(r.Num))
	}
	f := newFill(s, r, b, spec.Layer, nil)
	s.active[r.Num] = f
	return f, nil
}

// OpenFill returns the fill of an incomplete object: the running one, or a new
// one that goes on from the durable blocks and that the caller starts. layer
// proves the blocks; it may be nil, and a running fill keeps the one it has.
func (s *Store) OpenFill(num uint64, layer *content.Layer) (*Fill, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("resume object %d: %w", num, ErrClosed)
	}
	if f := s.active[num]; f != nil {
		return f, nil
	}
	r, ok := s.objects[num]
	if !ok || r.Complete {
		return nil, fmt.Errorf("resume object %d: %w", num, ErrNotFound)
	}
	if layer != nil {
		if err := s.promise(r, layer); err != nil {
			return nil, fmt.Errorf("resume %s: %w", r.Title, err)
		}
	}
	b, err := openBlob(s.cfg.Dir, num)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(ErrNotFound, err, s.remove(num))
	}
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", r.Title, err)
	}
	have, err := b.resume(r.Size, layer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("resume %s: %w", r.Title, err), b.close())
	}
	f := newFill(s, r, b, layer, have)
	s.active[num] = f
	return f, nil
}

// promise takes the identity that a layer adds up to for a partial object, or
// checks it against the one promised before; s.mu is held.
func (s *Store) promise(r *record, layer *content.Layer) error {
	if !r.Promised.IsZero() {
		return layer.Check(r.Promised)
	}
	id := content.ID{Root: layer.Root(), Size: r.Size}
	if err := layer.Check(id); err != nil {
		return err
	}
	r.Promised = id
	return s.index.put(r)
}

// Read opens a reader on an object that is complete or being filled. The error
// wraps ErrNotFound or ErrIncomplete.
func (s *Store) Read(num uint64) (*Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.objects[num]
	if !ok {
		return nil, fmt.Errorf("read object %d: %w", num, ErrNotFound)
	}
	f := s.active[num]
	if f == nil && !r.Complete {
		return nil, fmt.Errorf("read %s: %w", r.Title, ErrIncomplete)
	}
	r.Used = time.Now()
	s.dirty[num] = true
	return s.newReader(r, f)
}

// newReader opens a reader with a descriptor of its own. An object whose body
// is gone or cut short is forgotten, to be fetched again. s.mu is held.
func (s *Store) newReader(r *record, f *Fill) (*Reader, error) {
	file, err := os.Open(blobPath(s.cfg.Dir, r.Num))
	if err == nil && f == nil {
		var st os.FileInfo
		if st, err = file.Stat(); err == nil && st.Size() != r.Size {
			err = fmt.Errorf("body has %d bytes, not %d: %w", st.Size(), r.Size, fs.ErrNotExist)
		}
		if err != nil {
			file.Close()
		}
	}
	if err == nil {
		return &Reader{file: file, fill: f, size: r.Size}, nil
	}
	err = fmt.Errorf("read %s: %w", r.Title, err)
	if errors.Is(err, fs.ErrNotExist) && f == nil {
		s.log.Warn("dropped an object whose body is gone", "object", r.Num, "title", r.Title)
		return nil, errors.Join(ErrNotFound, err, s.remove(r.Num))
	}
	return nil, err
}

// Lookup finds the object that a name stands for, and what was kept with the
// name.
func (s *Store) Lookup(name string) (info Info, meta []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	num, ok := s.names[name]
	if !ok {
		return Info{}, nil, false
	}
	r := s.objects[num]
	return s.info(r), slices.Clone(r.Names[name]), true
}

// ByID finds a complete public object by its identity.
func (s *Store) ByID(id content.ID) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	num, ok := s.ids[id]
	if !ok {
		return Info{}, false
	}
	return s.info(s.objects[num]), true
}

// Get gives what is known of an object.
func (s *Store) Get(num uint64) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.objects[num]
	if !ok {
		return Info{}, false
	}
	return s.info(r), true
}

// List gives every object, newest first.
func (s *Store) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Info, 0, len(s.objects))
	for _, num := range slices.Backward(slices.Sorted(maps.Keys(s.objects))) {
		all = append(all, s.info(s.objects[num]))
	}
	return all
}

// Layer gives the proof of a complete object, block by block.
func (s *Store) Layer(num uint64) (*content.Layer, error) {
	info, ok := s.Get(num)
	if !ok || !info.Complete {
		return nil, fmt.Errorf("layer of object %d: %w", num, ErrNotFound)
	}
	b, err := openBlob(s.cfg.Dir, num)
	if err != nil {
		return nil, fmt.Errorf("layer of %s: %w", info.Title, err)
	}
	defer b.close()
	return b.layer(info.Size)
}
