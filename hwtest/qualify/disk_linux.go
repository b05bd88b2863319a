package qualify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/admin/client"
)

// readers is how many read or write at once where many clients are stood for,
// and clientBlock how much each of them wants at a time.
const (
	readers     = 8
	clientBlock = 256 << 10
)

// aligned gives memory that disks take without a copy. It is Go's, so that a call
// that a disk does not answer keeps it.
func aligned(n int) []byte {
	b := make([]byte, n+markBytes)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % markBytes
	return b[skip:][:n]
}

// disk measures the disk under cfg.Dir, or the one that is to be erased.
func (q *Qualifier) disk(ctx context.Context) {
	d := &q.report.Disk
	d.Path = q.cfg.Dir
	var err error
	if q.cfg.Erase != "" {
		d.Path = q.cfg.Erase
		err = q.device(ctx)
	} else {
		err = q.scratch(ctx)
	}
	if err != nil && ctx.Err() == nil {
		d.Err, d.Failed = noRight(err), broken(err)
	}
	describe(d, errors.Is(err, errHangs))
}

// broken reports whether an error is one of a disk that does not work.
func broken(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, errHangs)
}

// scratch measures on a file that has no name any more: nothing is left of it
// however this ends.
func (q *Qualifier) scratch(ctx context.Context) error {
	var room unix.Statfs_t
	if err := unix.Statfs(q.cfg.Dir, &room); err != nil {
		return fmt.Errorf("look for room: %w", err)
	}
	free := int64(room.Bavail) * room.Bsize
	span := min(free/8*7, free-q.cfg.Spare)
	if q.cfg.MaxBytes > 0 {
		span = min(span, q.cfg.MaxBytes)
	}
	if span -= span % chunkBytes; span < minSpan {
		return fmt.Errorf("%d bytes are free in %s: too few to measure with", free, q.cfg.Dir)
	}
	f, err := nameless(q.cfg.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	p := &patient{disk: f}
	if err := q.rates(ctx, p, min(span, q.budget.scratch)); err != nil {
		return err
	}
	q.progress("capacity", q.report.Percent)
	if err := p.reserve(span); err != nil {
		q.report.Disk.Capacity.Err = "reserve room: " + err.Error()
		return nil
	}
	return q.capacity(ctx, p, span)
}

// nameless makes a file without a name that is read and written past the cache.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".qualify-*")
	if err != nil {
		return nil, fmt.Errorf("make a scratch file: %w", err)
	}
	direct, err := os.OpenFile(f.Name(), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		err = fmt.Errorf("go past the cache: %w", err)
	}
	return direct, errors.Join(err, os.Remove(f.Name()), f.Close())
}

// rates takes all rates on the first n bytes of f.
func (q *Qualifier) rates(ctx context.Context, f *patient, n int64) (err error) {
	d := &q.report.Disk
	n -= n % chunkBytes
	if d.SequentialWrite, err = sequential(ctx, n, q.budget.disk, f.WriteAt, f.Sync); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	// What the time did not suffice to write must be there all the same.
	if info, err := f.disk.Stat(); err == nil && info.Mode().IsRegular() {
		n = min(n, info.Size()/chunkBytes*chunkBytes)
	}
	none := func() error { return nil }
	if d.SequentialRead, err = sequential(ctx, n, q.budget.disk, f.ReadAt, none); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	reads, err := scattered(ctx, n, markBytes, q.budget.disk/2, f.ReadAt)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	d.ReadIOPS = reads
	if reads, err = scattered(ctx, n, clientBlock, q.budget.disk/2, f.ReadAt); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	d.RandomRead = int64(reads * clientBlock)
	if d.WriteIOPS, err = scattered(ctx, n, markBytes, q.budget.disk, f.WriteAt); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	d.Fsync, err = q.fsync(ctx, f)
	return err
}

// sequential moves n bytes from the front, again and again until the time is up,
// but at most once if it writes; it gives bytes a second.
func sequential(ctx context.Context, n int64, limit time.Duration, move func([]byte, int64) (int, error), sync func() error) (int64, error) {
	buf := aligned(chunkBytes)
	if _, err := rand.Read(buf); err != nil { // what cannot be compressed
		return 0, err
	}
	start, moved := time.Now(), int64(0)
	for moved < n && (moved == 0 || time.Since(start) < limit) && ctx.Err() == nil {
		if _, err := move(buf, moved); err != nil {
			return 0, err
		}
		moved += chunkBytes
	}
	if err := sync(); err != nil {
		return 0, err
	}
	return int64(float64(moved) / time.Since(start).Seconds()), nil
}

// scattered moves blocks at random places of the first n bytes, several at once;
// it gives blocks a second.
func scattered(ctx context.Context, n, block int64, limit time.Duration, move func([]byte, int64) (int, error)) (float64, error) {
	var count atomic.Int64
	var wait sync.WaitGroup
	faults := make([]error, readers)
	start := time.Now()
	for i := range readers {
		wait.Go(func() {
			buf := aligned(int(block))
			for ctx.Err() == nil && time.Since(start) < limit {
				if _, err := move(buf, mrand.Int64N(n/block)*block); err != nil {
					faults[i] = err
					return
				}
				count.Add(1)
			}
		})
	}
	wait.Wait()
	return float64(count.Load()) / time.Since(start).Seconds(), errors.Join(faults...)
}

// fsync takes the time of small writes that have to be safe.
func (q *Qualifier) fsync(ctx context.Context, f *patient) (client.Fsync, error) {
	buf := aligned(markBytes)
	var took []float64
	for start := time.Now(); len(took) < q.syncs && time.Since(start) < q.budget.disk && ctx.Err() == nil; {
		one := time.Now()
		if _, err := f.WriteAt(buf, int64(len(took))*markBytes); err != nil {
			return client.Fsync{}, fmt.Errorf("write: %w", err)
		}
		if err := f.syncData(); err != nil {
			return client.Fsync{}, fmt.Errorf("sync: %w", err)
		}
		took = append(took, float64(time.Since(one).Microseconds())/1000)
	}
	if len(took) == 0 {
		return client.Fsync{}, nil
	}
	slices.Sort(took)
	return client.Fsync{Count: len(took), Median: took[len(took)/2], P99: took[len(took)*99/100], Max: took[len(took)-1]}, nil
}

// capacity spreads marks over the first n bytes of f. Its error is that the disk
// does not work; what else went wrong is said in the report.
func (q *Qualifier) capacity(ctx context.Context, f *patient, n int64) error {
	c := &q.report.Disk.Capacity
	buf := aligned(chunkBytes)
	run, err := rand.Int(rand.Reader, new(big.Int).SetUint64(1<<63))
	if err != nil {
		c.Err = err.Error()
		return nil
	}
	s, err := newSurvey(f, n, run.Uint64(), buf)
	if err != nil {
		c.Err = err.Error()
		return nil
	}
	before := q.report.Percent
	share := 100 * q.budget.capacity.Seconds() / q.whole().Seconds()
	*c, err = s.look(ctx, q.budget.capacity, func(done float64) { q.progress("capacity", before+done*share) })
	switch {
	case f.hung.Load(): // marks that were not answered for say nothing of its size
		*c = client.Capacity{Bytes: c.Bytes, Planned: c.Planned, Err: errHangs.Error()}
		return errHangs
	case err != nil && ctx.Err() == nil:
		c.Err = err.Error()
	}
	return nil
}
