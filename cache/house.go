package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// How often the store looks after itself.
const (
	flushSmallEvery = time.Second
	probeEvery      = 2 * time.Second
	saveEvery       = 5 * time.Second
)

// Run keeps house until ctx is done: it makes small objects durable, saves
// figures, makes room, watches the disks, sweeps away leftovers and scrubs.
func (s *Store) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { s.keepScrubbing(ctx) })
	tasks.Go(func() { s.sweep() })
	tasks.Go(func() { s.keepWatching(ctx) })
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
		case <-save.C:
			s.saveFigures()
			s.saveCards()
			s.trimSmall()
			s.tidy()
		}
	}
}

// keepWatching looks at the disks. One that is stuck holds up nothing but this.
func (s *Store) keepWatching(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.watchVolumes()
		}()
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.doubt:
		}
	}
}

// tidy evicts what is over the bounds, on each volume.
func (s *Store) tidy() {
	for _, v := range s.volumes {
		if sick, gone := v.state(); gone || sick != nil && !errors.Is(sick, content.ErrFull) {
			continue
		}
		err := s.evicting(func() ([]*entry, error) {
			_, victims, err := s.makeRoom(0, nil, v)
			return victims, err
		})
		if err != nil && !errors.Is(err, content.ErrFull) {
			s.log.Error("failed to make room", "volume", v.dir, "err", err)
		}
	}
}

// sweep removes bodies that the index does not know: leftovers of a create or an
// eviction that a crash cut short.
func (s *Store) sweep() {
	for _, v := range s.volumes {
		if _, gone := v.state(); gone {
			continue
		}
		n, err := v.Sweep(s.first, func(num uint64) bool {
			_, ok := s.look(num)
			return ok || s.ctx.Err() != nil
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
