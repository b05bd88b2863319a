package peering

import (
	"fmt"
	"slices"
)

// denied says whether an infohash of a torrent was taken down.
func (s *Swarm) denied(spec *Spec) error {
	for _, key := range spec.keys() {
		if err := s.store.Denied("btih:" + key); err != nil {
			return fmt.Errorf("torrent %q: %w", clip(spec.Name), err)
		}
	}
	return nil
}

// takeDown leaves a torrent that was taken down by one of its infohashes. The
// other stands for the same files, so it is taken down with it, and first: nobody
// may join by it meanwhile.
func (s *Swarm) takeDown(sh *share, denied error) {
	keys := sh.specNow().keys()
	known := s.store.Denials()
	for _, n := range known {
		if !slices.ContainsFunc(keys, func(key string) bool { return n.What == "btih:"+key }) {
			continue
		}
		for _, key := range keys {
			if s.store.Denied("btih:"+key) != nil {
				continue
			}
			if _, err := s.store.Purge("btih:"+key, n.Why, n.By); err != nil {
				s.log.Error("failed to take a torrent down by its other infohash", "torrent", key, "err", err)
			}
		}
	}
	s.log.Info("left a torrent that was taken down", "title", sh.title(), "torrent", sh.key(), "err", denied)
	if err := s.remove(sh); err != nil {
		s.log.Warn("failed to forget a torrent that was taken down", "torrent", sh.key(), "err", err)
	}
}
