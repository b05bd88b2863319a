package peering

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

func (s *Swarm) limits() Limits { return Limits{Files: s.cfg.MaxFiles, Bytes: s.cfg.MaxBytes} }

// Add joins a torrent: a magnet URI, an infohash, the bytes of a .torrent file or
// of a metalink that names one (RFC 5854), or the http(s) URL of any of these or
// of a file whose server names them (RFC 6249). The mirrors that come with a
// torrent bring its files beside its peers. It returns at once, for a magnet in StateMetadata and without files. A
// torrent that is here already gets the further trackers, web seeds and peers
// until the next start, and the further mirrors of single files for good.
// An error that wraps ErrSpec, content.ErrFull or cache.ErrDenied says what was
// wrong; nothing has changed then.
func (s *Swarm) Add(ctx context.Context, input []byte) (Torrent, error) {
	sh, err := s.accept(ctx, input, s.limits())
	if err != nil {
		return Torrent{}, err
	}
	return sh.snapshot(), nil
}

// addFrom is Add for a torrent that nobody chose by hand, of at most maxBytes if
// that is more than 0.
func (s *Swarm) addFrom(ctx context.Context, input []byte, maxBytes int64) error {
	limits := s.limits()
	if maxBytes > 0 {
		limits.Bytes = min(limits.Bytes, maxBytes)
	}
	_, err := s.accept(ctx, input, limits)
	return err
}

func (s *Swarm) accept(ctx context.Context, input []byte, limits Limits) (*share, error) {
	spec, err := s.specOf(ctx, input, limits)
	if err != nil {
		return nil, err
	}
	spec.limits = limits
	if err := s.running(ctx); err != nil {
		return nil, err
	}
	return s.add(spec, false, time.Now(), s.save)
}

// downloadTime bounds how long a .torrent file may take to come.
const downloadTime = 30 * time.Second

// add joins a torrent unless it is here. save keeps it for the next start.
func (s *Swarm) add(spec *Spec, made bool, added time.Time, save func(*Spec, bool) error) (*share, error) {
	for s.adding.Lock(); ; s.adding.Lock() {
		sh := s.leavingOf(spec)
		if sh == nil {
			break
		}
		s.adding.Unlock()
		<-sh.gone // the client takes an infohash once
	}
	defer s.adding.Unlock()
	if s.stopped {
		return nil, ErrNotRunning
	}
	if err := s.denied(spec); err != nil {
		return nil, errors.Join(err, s.forget(spec.keys()))
	}
	if sh := s.find(spec); sh != nil {
		if sh.stateNow() != StateFailed {
			if err := s.saveMirrors(spec); err != nil {
				return nil, err
			}
			sh.contact(spec)
			return sh, nil
		}
		s.drop(sh) // and try again
		sh.close()
	}
	if len(s.list()) >= s.cfg.MaxTorrents+maxMade {
		return nil, fmt.Errorf("%w: there are %d torrents here, no more are taken", content.ErrFull, s.cfg.MaxTorrents)
	}
	var files []*file
	if spec.layout != nil {
		var err error
		if files, err = s.bind(spec); err != nil {
			return nil, err
		}
		if made && files[0].fill != nil { // evicted in this moment
			return nil, errors.Join(fmt.Errorf("share %q: %w", clip(spec.Name), cache.ErrNotFound), s.unbind(files))
		}
	}
	if err := errors.Join(save(spec, made), s.saveMirrors(spec)); err != nil {
		return nil, errors.Join(err, s.unbind(files))
	}
	sh, err := s.join(spec, files, made, added)
	if err != nil {
		return nil, errors.Join(err, s.unbind(files), s.forget(spec.keys()))
	}
	s.put(sh, spec)
	s.rebalance()
	return sh, nil
}

// find gives the share that has an infohash of spec.
func (s *Swarm) find(spec *Spec) *share { return s.findIn(s.shares, spec) }

// leavingOf gives the share that is on its way out and has an infohash of spec.
func (s *Swarm) leavingOf(spec *Spec) *share { return s.findIn(s.leaving, spec) }

func (s *Swarm) findIn(shares map[string]*share, spec *Spec) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range spec.keys() {
		if sh := shares[key]; sh != nil {
			return sh
		}
	}
	return nil
}

func (s *Swarm) put(sh *share, spec *Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range spec.keys() {
		s.shares[key] = sh
	}
}

// drop takes a share off the list and returns its infohashes. It is to be closed
// then.
func (s *Swarm) drop(sh *share) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key, other := range s.shares {
		if other == sh {
			keys = append(keys, key)
			delete(s.shares, key)
			s.leaving[key] = sh
		}
	}
	return keys
}

// left notes that a share has been closed.
func (s *Swarm) left(sh *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.leaving)
	maps.DeleteFunc(s.leaving, func(_ string, other *share) bool { return other == sh })
	if len(s.leaving) < before {
		close(sh.gone)
	}
}

// bind gives every file of a torrent its object. If one cannot have it, the
// objects made for the others are removed again.
func (s *Swarm) bind(spec *Spec) ([]*file, error) {
	var files []*file
	for _, p := range spec.layout.files {
		if p.pad {
			files = append(files, &file{part: p, left: make(chan struct{})})
			continue
		}
		f, err := newFile(s.store, spec.Key(), p)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("torrent %q: %w", clip(spec.Name), err), s.unbind(files))
		}
		files = append(files, f)
	}
	return files, nil
}

// unbind removes the objects of a torrent that is not joined after all. What
// was there before stays.
func (s *Swarm) unbind(files []*file) error {
	var failed []error
	for _, f := range files {
		if f.fresh {
			failed = append(failed, s.store.Evict(f.fill.Num()))
		}
	}
	return errors.Join(failed...)
}

// Remove leaves a torrent. Files that are complete stay in the store, under all
// their names; those that are not stay as far as they are, until their room is
// needed.
func (s *Swarm) Remove(ctx context.Context, infohash string) error {
	if err := s.running(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	sh := s.shares[infohash]
	s.mu.Unlock()
	if sh == nil {
		return fmt.Errorf("remove torrent %q: %w", clip(infohash), ErrUnknown)
	}
	return s.remove(sh)
}

func (s *Swarm) remove(sh *share) error {
	s.adding.Lock()
	sh.cancel() // it keeps nothing any more
	err := s.forget(s.drop(sh))
	s.adding.Unlock()
	sh.close()
	s.rebalance()
	return err
}

// isListed says whether the share is still one of the swarm's.
func (sh *share) isListed() bool {
	sh.swarm.mu.Lock()
	defer sh.swarm.mu.Unlock()
	return sh.swarm.shares[sh.key()] == sh
}

// relabel gives a share whose info has just arrived its full names.
func (s *Swarm) relabel(sh *share, spec *Spec) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	if err := sh.ctx.Err(); err != nil {
		return err // removed meanwhile: nothing is kept of it
	}
	old := sh.specNow().keys()
	if err := s.denied(spec); err != nil {
		return err
	}
	if other := s.find(spec); other != nil && other != sh {
		return fmt.Errorf("torrent is here already as %s", other.key())
	}
	if err := s.save(spec, sh.made); err != nil {
		return err
	}
	s.put(sh, spec)
	sh.mu.Lock()
	sh.spec = spec
	sh.mu.Unlock()
	if old[0] != spec.Key() {
		return s.forget(old[:1])
	}
	return nil
}
