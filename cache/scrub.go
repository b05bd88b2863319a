package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// ScrubReport says what a pass over all bodies has found, so far or in all.
type ScrubReport struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// TotalObjects and TotalBytes are what there was to check at the beginning.
	TotalObjects int   `json:"total_objects"`
	TotalBytes   int64 `json:"total_bytes"`
	// Damaged counts blocks and small objects that were not what came in.
	Damaged int64         `json:"damaged"`
	Took    time.Duration `json:"took"`
}

// leastScrub is how fast the scrub goes at least, in bytes a second.
const leastScrub = 1 << 20

// mendPatience is how long the scrub waits for a repair before it goes on with
// the next object: a swarm may be without seeds for days.
const mendPatience = time.Minute

// Scrub reads every complete body from the disk once and checks it. What is
// damaged is fetched again. perSecond bounds the bytes read in a second; 0 is no
// bound. tell, if there is one, hears after each object how far it is.
func (s *Store) Scrub(ctx context.Context, perSecond int64, tell ...func(ScrubReport)) (ScrubReport, error) {
	return s.scrub(ctx, perSecond, 0, func(_ uint64, sofar ScrubReport) {
		for _, f := range tell {
			f(sofar)
		}
	})
}

// scrub is Scrub from an object on; it says which was done after each.
func (s *Store) scrub(ctx context.Context, perSecond int64, from uint64, done func(num uint64, sofar ScrubReport)) (report ScrubReport, err error) {
	start := time.Now()
	limit := rate.NewLimiter(rate.Inf, content.BlockSize)
	if perSecond > 0 {
		limit = rate.NewLimiter(rate.Limit(perSecond), content.BlockSize)
	}
	nums := s.numbersOf()
	s.mu.Lock()
	before := s.counts.Damaged
	report.TotalObjects, report.TotalBytes = len(nums), s.used
	s.mu.Unlock()
	look := func() {
		s.mu.Lock()
		report.Damaged = s.counts.Damaged - before
		s.mu.Unlock()
		report.Took = time.Since(start)
	}
	for _, num := range nums {
		if num < from {
			continue
		}
		n, err := s.scrubObject(ctx, num, limit)
		if ctx.Err() != nil {
			return report, fmt.Errorf("scrub: %w", ctx.Err())
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			s.log.Warn("failed to scrub an object", "object", num, "err", err)
		}
		report.Bytes += n
		report.Objects++
		look()
		done(num, report)
	}
	look()
	return report, nil
}

// pace waits until so many bytes may be read. The limiter gives up at once if ctx
// would end before; that is no word on the object.
func pace(ctx context.Context, limit *rate.Limiter, bytes int64) error {
	if err := limit.WaitN(ctx, int(bytes)); err == nil {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// scrubObject checks one body.
func (s *Store) scrubObject(ctx context.Context, num uint64, limit *rate.Limiter) (int64, error) {
	e, ok := s.look(num)
	switch {
	case !ok || !e.is(isComplete) || e.size == 0:
		return 0, nil
	case e.is(isSmall):
		if err := pace(ctx, limit, e.size); err != nil {
			return 0, err
		}
		s.bodies.drop(num) // what memory has is no proof of the disk
		_, err := s.smallBody(&e)
		if f := s.mending(num); err != nil && f != nil {
			awaitMend(ctx, f)
		}
		return e.size, err
	}
	b, err := s.volumeOf(&e).Open(num)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	s.scrubHead(b, &e)
	for i := range content.Blocks(e.size) {
		block := content.Block(i, e.size)
		if err := pace(ctx, limit, block.Len()); err != nil {
			return block.Off, err
		}
		if err := b.Drop(block); err != nil {
			return block.Off, err
		}
		if now, ok := s.look(num); !ok || !now.is(isComplete) {
			return block.Off, nil // it is gone, or is being mended
		}
		err := s.inspect(&e, block)
		if errors.Is(err, disk.ErrDamaged) {
			if f, err := s.mend(num); err == nil {
				awaitMend(ctx, f)
			}
			continue
		}
		if err != nil {
			return block.Off, err
		}
		s.noteChecked(num, block)
	}
	return e.size, nil
}

// scrubHead writes what lies beside a body, but for the hashes, anew if it is
// damaged. No reader needs it: it is for the day when the index is lost.
func (s *Store) scrubHead(b *disk.Blob, e *entry) {
	size, err := b.Size()
	if errors.Is(err, disk.ErrDamaged) || err == nil && size != e.size {
		s.noteDamage(e.num(), 0)
		err = b.SetSize(e.size)
	}
	if err == nil {
		if _, err = b.Card(); errors.Is(err, disk.ErrDamaged) {
			s.noteDamage(e.num(), 0)
			err = s.saveCard(e)
		}
	}
	if err == nil {
		err = b.SyncTree()
	}
	if err != nil {
		s.log.Warn("failed to scrub an object", "object", e.num(), "err", err)
	}
}

// awaitMend waits for a repair, but not for ever.
func awaitMend(ctx context.Context, f *Fill) {
	patience := time.NewTimer(mendPatience)
	defer patience.Stop()
	select {
	case <-f.Done():
	case <-patience.C:
	case <-ctx.Done():
	}
}

// scrubState is how far the scrub is. It is kept over restarts: a box that is
// restarted every day must get to its last object too.
type scrubState struct {
	Began time.Time `json:"began"` // of the last pass
	Next  uint64    `json:"next"`  // object to go on with; 0 if the pass is done
}

// saveScrubEvery is how much of a scrub is done again after a kill.
const saveScrubEvery = time.Minute

// keepScrubbing checks every body once in each period, until ctx is done.
func (s *Store) keepScrubbing(ctx context.Context) {
	if s.cfg.ScrubPeriod < 0 {
		return
	}
	var at scrubState
	if err := s.books.setting("scrub", &at); err != nil {
		s.log.Warn("failed to read how far the scrub was", "err", err)
	}
	for {
		if at.Next == 0 {
			wait := time.NewTimer(time.Until(at.Began.Add(s.cfg.ScrubPeriod)))
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
			at.Began = time.Now()
		}
		if at = s.pass(ctx, at); at.Next != 0 {
			return
		}
	}
}

// pass goes on with a pass of the scrub until its end or that of ctx, and keeps
// how far it got.
func (s *Store) pass(ctx context.Context, at scrubState) scrubState {
	save := func() {
		ed := s.books.edit()
		ed.setting("scrub", at)
		ed.done()
	}
	s.mu.Lock()
	perSecond := max(leastScrub, int64(float64(s.used)/s.cfg.ScrubPeriod.Seconds()))
	s.mu.Unlock()
	at.Next = max(at.Next, 1)
	saved := time.Now()
	report, err := s.scrub(ctx, perSecond, at.Next, func(num uint64, _ ScrubReport) {
		if at.Next = num + 1; time.Since(saved) >= saveScrubEvery {
			save()
			saved = time.Now()
		}
	})
	if err == nil {
		at.Next = 0
		s.mu.Lock()
		s.counts.Scrubs++
		s.mu.Unlock()
		s.log.Info("scrubbed the store", "objects", report.Objects, "bytes", report.Bytes, "damaged", report.Damaged, "took", report.Took)
	}
	save()
	return at
}
