package peering

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// errOthers says that others have brought what the client still looks for.
var errOthers = errors.New("others have brought the rest")

// rejoinAfter is how long a torrent whose files were not what it took them for
// waits before it begins anew.
const rejoinAfter = 2 * time.Second

// Repair implements cache.Repairer for files of torrents that are joined: their
// torrent looks for what was damaged in the swarm.
func (s *Swarm) Repair(ctx context.Context, info cache.Info) ([]content.Source, error) {
	select {
	case <-s.joined:
	case <-s.ended:
		return nil, ErrNotRunning
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for _, name := range info.Names {
		if sh := s.shareOf(name); sh != nil && !sh.made && sh.fileNamed(name) != nil {
			return []content.Source{&rejoiner{s, name}}, nil
		}
	}
	return nil, nil
}

// shareOf finds the torrent of a file by the file's name in the store.
func (s *Swarm) shareOf(name string) *share {
	rest, ok := strings.CutPrefix(name, "btih:")
	key, _, _ := strings.Cut(rest, "/")
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shares[key]
}

func (sh *share) fileNamed(name string) *file {
	for _, f := range sh.fileList() {
		if !f.pad && f.name == name {
			return f
		}
	}
	return nil
}

// rejoin leaves a torrent and joins it again: it then takes its files for what
// the store has of them now.
func (s *Swarm) rejoin(old *share) {
	s.adding.Lock()
	spec, current := old.specNow(), old.ctx.Err() == nil
	if current {
		old.cancel()
		s.drop(old)
	}
	s.adding.Unlock()
	old.keepGiven(1)
	if !current { // removed, or another has done it
		return
	}
	old.close()
	keep := func(*Spec, bool) error { return nil }
	if _, err := s.add(spec, old.made, old.added, keep); err != nil && !errors.Is(err, ErrNotRunning) {
		s.log.Warn("failed to join a torrent again", "title", spec.Name, "torrent", spec.Key(), "err", err)
	}
}

// rejoiner is the Source that brings a damaged file by way of its torrent, whose
// file is a Source of the same fill then.
type rejoiner struct {
	swarm *Swarm
	name  string
}

// Name implements content.Source.
func (r *rejoiner) Name() string { return "swarm" }

// Fill implements content.Source. It writes nothing itself.
func (r *rejoiner) Fill(ctx context.Context, sink content.Sink) error {
	if len(sink.Missing()) == 0 {
		return nil
	}
	if sh := r.swarm.shareOf(r.name); sh != nil {
		r.swarm.rejoin(sh)
	}
	sh := r.swarm.shareOf(r.name)
	if sh == nil || sh.fileNamed(r.name) == nil {
		return fmt.Errorf("%s is in no torrent: %w", r.name, content.ErrNotHere)
	}
	select {
	case <-sh.fileNamed(r.name).begun:
		return nil
	case <-sh.ended:
		return fmt.Errorf("repair %s: %w", r.name, errLeft)
	case <-ctx.Done():
		return ctx.Err()
	}
}
