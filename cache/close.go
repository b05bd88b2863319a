package cache

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// closeWithin bounds each part of Close: a dead disk, or a Source that does not
// end, must not keep the process.
const closeWithin = 15 * time.Second

// Close stops every fill, started or not, makes what it has durable and closes
// the index. A second call does nothing. What does not end in time is left behind
// and told.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	fills := slices.Collect(maps.Values(s.active))
	s.mu.Unlock()
	err := within(closeWithin, "end the fills", func() error {
		for _, f := range fills {
			f.stop(ErrClosed)
		}
		for _, f := range fills {
			<-f.Done()
		}
		s.cancel()
		s.fills.Wait()
		return nil
	})
	err = errors.Join(err, within(closeWithin, "save what is left", func() error {
		s.flushSmall()
		s.saveFigures()
		s.saveCards()
		return nil
	}))
	return errors.Join(err, s.shut())
}

// shut closes what Open has opened.
func (s *Store) shut() error {
	s.cancel()
	var errs []error
	if s.books != nil {
		errs = append(errs, s.books.index.Close())
	}
	for _, v := range s.volumes {
		if !v.isOpen() {
			continue
		}
		err := within(closeWithin, "close volume "+v.dir, v.Close)
		if sick, _ := v.state(); sick == nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// within waits for work, but not for ever.
func within(limit time.Duration, what string, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("%s: not done within %v", what, limit)
	}
}
