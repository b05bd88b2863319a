// Package digest knows the plain SHA-256 of objects and of their pieces, as
// Metalink (RFC 5854) and the Digest fields (RFC 3230, RFC 9530) want them. The
// store proves bodies by the tree of BEP 52, of which such digests do not
// follow: a body is read once for them, when somebody first asks, and what came
// out is kept.
//
// It refuses to read a body on a request's own time, to read two at once, and to
// believe a file of its directory whose checksum is wrong. Start reading at
// [Book.Sums].
package digest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Sums are the SHA-256 of an object and of its pieces. They are not changed once
// made.
type Sums struct {
	Whole content.Hash
	// PieceLength in bytes; the last piece may be shorter. Pieces has one entry
	// for each: none for an empty object.
	PieceLength int64
	Pieces      []content.Hash
}

// PieceLength is fixed by the size: 1 MiB, doubled until there are at most 2048
// pieces, or it is 16 MiB.
func PieceLength(size int64) int64 {
	n := int64(1 << 20)
	for size > 2048*n && n < 16<<20 {
		n *= 2
	}
	return n
}

// BusyError says that the digests are still being computed.
type BusyError struct{ Done, Total int64 } // bytes

func (e *BusyError) Error() string {
	return fmt.Sprintf("the digests are being computed: %d of %d bytes are read", e.Done, e.Total)
}

// Body is an object that is open: *cache.Reader.
type Body interface {
	io.ReaderAt
	io.Closer
}

// Bounds of what is held.
const (
	maxWhole  = 1 << 14 // digests of a whole, in memory
	maxRecent = 32      // Sums, in memory
	maxFiles  = 4096    // Sums, in the directory
	maxQueue  = 64      // objects that wait
)

// Book keeps the digests. All methods are safe for concurrent use.
type Book struct {
	dir  string
	open func(num uint64) (Body, error)
	log  *slog.Logger
	work chan *job

	// mu guards what follows.
	mu     sync.RWMutex
	whole  map[content.ID]content.Hash
	recent map[content.ID]*Sums
	jobs   map[content.ID]*job
	files  int
}

// job is an object that is read, or waits for it.
type job struct {
	id    content.ID
	num   uint64
	read  int64 // bytes; guarded by Book.mu
	ended chan struct{}
	sums  *Sums // set before ended is closed
	err   error // likewise
}

// New builds a Book that keeps what it has computed in dir; with "" it keeps the
// last few in memory. open opens a complete object.
func New(dir string, open func(num uint64) (Body, error), log *slog.Logger) *Book {
	return &Book{
		dir: dir, open: open, log: log, work: make(chan *job, maxQueue),
		whole: map[content.ID]content.Hash{}, recent: map[content.ID]*Sums{}, jobs: map[content.ID]*job{},
	}
}

// Whole gives the SHA-256 of an object if it is known. It takes no time: it is
// for every answer. Up to one leaf (16 KiB) the identity says it.
func (b *Book) Whole(id content.ID) (content.Hash, bool) {
	if id.Size <= content.LeafSize && id.Size > 0 {
		return id.Root, true
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	sum, ok := b.whole[id]
	return sum, ok
}

// Sums gives the digests of a complete object, which num is. What is not known
// is computed: then it waits until ctx is done, and the error is a *BusyError.
// Asking again later will do.
func (b *Book) Sums(ctx context.Context, id content.ID, num uint64) (*Sums, error) {
	if id.Size == 0 {
		return &Sums{Whole: sha256.Sum256(nil), PieceLength: PieceLength(0)}, nil
	}
	if sums := b.kept(id); sums != nil {
		return sums, nil
	}
	j := b.want(id, num)
	if j == nil { // enough wait already
		return nil, &BusyError{Total: id.Size}
	}
	select {
	case <-j.ended:
		return j.sums, j.err
	case <-ctx.Done():
		b.mu.RLock()
		defer b.mu.RUnlock()
		return nil, &BusyError{Done: j.read, Total: id.Size}
	}
}

// Ask has the digests of an object computed some time, if nobody has yet.
func (b *Book) Ask(id content.ID, num uint64) {
	if _, ok := b.Whole(id); !ok && id.Size > 0 {
		b.want(id, num)
	}
}

// want finds the job for an object or makes one; nil if there is no room.
func (b *Book) want(id content.ID, num uint64) *job {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[id]; j != nil {
		return j
	}
	j := &job{id: id, num: num, ended: make(chan struct{})}
	select {
	case b.work <- j:
		b.jobs[id] = j
		return j
	default:
		return nil
	}
}

// kept finds digests that were computed before; nil if there are none.
func (b *Book) kept(id content.ID) *Sums {
	b.mu.RLock()
	sums := b.recent[id]
	b.mu.RUnlock()
	if sums == nil {
		if sums = b.load(id); sums != nil {
			b.learn(id, sums)
		}
	}
	return sums
}

// learn keeps digests in memory.
func (b *Book) learn(id content.ID, sums *Sums) {
	b.mu.Lock()
	defer b.mu.Unlock()
	makeRoom(b.whole, maxWhole)
	b.whole[id] = sums.Whole
	makeRoom(b.recent, maxRecent)
	b.recent[id] = sums
}

// makeRoom drops any entry of a map that is full.
func makeRoom[V any](m map[content.ID]V, most int) {
	for id := range m {
		if len(m) < most {
			return
		}
		delete(m, id)
	}
}

// Run computes what is asked for until ctx is done.
func (b *Book) Run(ctx context.Context) error {
	b.loadAll(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-b.work:
			j.sums, j.err = b.compute(ctx, j)
			if j.err == nil {
				b.learn(j.id, j.sums)
				if err := b.save(j.id, j.sums); err != nil {
					b.log.Warn("failed to keep digests", "object", j.num, "err", err)
				}
			}
			b.mu.Lock()
			delete(b.jobs, j.id)
			b.mu.Unlock()
			close(j.ended)
		}
	}
}

// hasty is how many bytes are read without rest; after that each piece is
// followed by as long a rest.
const hasty = 64 << 20

// compute reads an object through.
func (b *Book) compute(ctx context.Context, j *job) (*Sums, error) {
	body, err := b.open(j.num)
	if err != nil {
		return nil, fmt.Errorf("open for digests: %w", err)
	}
	defer body.Close()
	sums := &Sums{PieceLength: PieceLength(j.id.Size)}
	whole, buf := sha256.New(), make([]byte, 256<<10)
	for off := int64(0); off < j.id.Size; {
		began, piece := time.Now(), sha256.New()
		for end := min(off+sums.PieceLength, j.id.Size); off < end; {
			part := buf[:min(int64(len(buf)), end-off)]
			n, err := body.ReadAt(part, off)
			if n < len(part) {
				return nil, fmt.Errorf("read for digests at %d: %w", off, errors.Join(err, io.ErrUnexpectedEOF))
			}
			whole.Write(part)
			piece.Write(part)
			off += int64(n)
		}
		sums.Pieces = append(sums.Pieces, content.Hash(piece.Sum(nil)))
		b.mu.Lock()
		j.read = off
		b.mu.Unlock()
		rest := time.Duration(0)
		if off > hasty {
			rest = time.Since(began)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(rest):
		}
	}
	sums.Whole = content.Hash(whole.Sum(nil))
	return sums, nil
}
