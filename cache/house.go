package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// How often the store looks after itself.
const (
	flushSmallEvery = time.Second
	probeEvery      = 2 * time.Second
	saveEvery       = 5 * time.Second
	stuckAfter      = 10 * time.Second
)

// Run keeps house until ctx is done: it makes small objects durable, saves
// figures, makes room, watches the disks, sweeps away leftovers and scrubs.
func (s *Store) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { s.keepScrubbing(ctx) })
	tasks.Go(func() { s.sweep(ctx) })
	for _, v := range s.volumes {
		tasks.Go(func() { s.keepWatching(ctx, v) })
	}
	flush, save := time.NewTicker(flushSmallEvery), time.NewTicker(saveEvery)
	defer flush.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-flush.C:
			s.flushSmall()
		case <-s.kicked:
			s.trimSmall()
			s.tidy()
		case <-save.C:
			s.saveFigures()
			s.saveCards()
			s.trimSmall()
			s.tidy()
		}
	}
}

// keepWatching looks at a disk. One that is stuck takes nothing new, and holds up
// nothing but this.
func (s *Store) keepWatching(ctx context.Context, v *volume) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		done := make(chan struct{})
		go func() { // left behind if the disk never answers
			defer close(done)
			s.watch(v)
		}()
		stuck := time.NewTimer(stuckAfter)
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			case <-stuck.C:
				s.log.Error("a volume does not answer", "volume", v.dir)
				v.refuse(fmt.Errorf("volume %s has not answered for %v", v.dir, stuckAfter))
			case <-ctx.Done():
				stuck.Stop()
				return
			}
		}
		stuck.Stop()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-v.doubt:
		}
	}
}

// tidy evicts what is over the bounds, on each volume and of each service.
func (s *Store) tidy() {
	for _, v := range s.volumes {
		if sick, gone := v.state(); gone || sick != nil && !errors.Is(sick, content.ErrFull) {
			continue
		}
		s.trim(v, nil)
	}
	for _, svc := range s.services { // a quota may be smaller than it was
		if svc.quota > 0 {
			s.trim(nil, svc)
		}
	}
}

// trim evicts what is over the bounds of a volume or a service.
func (s *Store) trim(v *volume, svc *service) {
	err := s.evicting(func() ([]*entry, error) {
		_, victims, err := s.makeRoom(0, svc, v)
		return victims, err
	})
	if err != nil && !errors.Is(err, content.ErrFull) {
		s.log.Error("failed to make room", "err", err)
	}
}

// sweep removes bodies that the index does not know: leftovers of a create or an
// eviction that a crash cut short.
func (s *Store) sweep(ctx context.Context) {
	for _, v := range s.volumes {
		if v.isAlien() {
			continue
		}
		n, err := v.Sweep(s.first, func(num uint64) bool {
			e, ok := s.look(num)
			return ok && e.volume == v.num || ctx.Err() != nil || v.isAlien()
		})
		if err != nil {
			v.suspect(err)
			s.log.Warn("failed to sweep a volume", "volume", v.dir, "err", err)
		}
		if n > 0 {
			s.log.Info("swept away leftovers", "volume", v.dir, "objects", n)
		}
	}
}

// kick wants housekeeping before its time.
func (s *Store) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}
