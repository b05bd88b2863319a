package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Open opens the store in cfg.Dir, or makes it. Only one process may have it
// open.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 50e9
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = 256 << 20
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "blobs"), 0o700); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	ix, err := openIndex(filepath.Join(cfg.Dir, "index"), cfg.Small)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: log, index: ix, lock: lock,
		objects: map[uint64]*record{}, names: map[string]uint64{}, ids: map[content.ID]uint64{},
		active: map[uint64]*Fill{}, dirty: map[uint64]bool{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.load(); err != nil {
		return nil, errors.Join(err, ix.close(), lock.Close())
	}
	return s, nil
}

// load reads the whole index into memory and sweeps away blobs that it does not
// know.
func (s *Store) load() error {
	bad, err := s.index.each(func(r *record) {
		s.objects[r.Num] = r
		s.next = max(s.next, r.Num+1)
		s.used += r.reserved()
		for name := range r.Names {
			s.names[name] = r.Num
		}
		if r.Complete && r.Public && !r.ID.IsZero() {
			s.ids[r.ID] = r.Num
		}
	})
	if err != nil {
		return fmt.Errorf("load index: %w", err)
	}
	if bad > 0 {
		s.log.Warn("dropped damaged index records", "records", bad)
	}
	if s.gone, err = s.index.gone(); err != nil {
		return fmt.Errorf("load index: %w", err)
	}
	return s.sweep()
}

// sweep removes blobs without a record, leftovers of a create or an eviction
// that a crash cut short, and records without a blob.
func (s *Store) sweep() error {
	files := blobFiles(s.cfg.Dir)
	for num := range files {
		if s.objects[num] == nil {
			if err := removeBlob(s.cfg.Dir, num); err != nil {
				return err
			}
		}
		s.next = max(s.next, num+1)
	}
	for num := range s.objects {
		if files[num] < 2 {
			s.log.Warn("dropped an object whose files are gone", "object", num, "title", s.objects[num].Title)
			if err := s.remove(num); err != nil {
				return err
			}
		}
	}
	return nil
}

// Run saves figures and makes room until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.saveFigures(); err != nil {
				s.log.Error("failed to save figures", "err", err)
			}
			s.mu.Lock()
			err := s.makeRoom(0)
			s.mu.Unlock()
			if err != nil && !errors.Is(err, content.ErrFull) {
				s.log.Error("failed to make room", "err", err)
			}
		}
	}
}

// Close stops every fill, started or not, makes what it has durable and closes
// the index. A second call does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	fills := slices.Collect(maps.Values(s.active))
	s.mu.Unlock()
	for _, f := range fills {
		f.stop(ErrClosed)
	}
	for _, f := range fills {
		<-f.Done()
	}
	s.cancel()
	s.fills.Wait()
	return errors.Join(s.saveFigures(), s.index.close(), s.lock.Close())
}
