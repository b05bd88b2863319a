package proxy

import (
	"errors"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// denied says whether a URL was taken down, or had bytes that were: then it is
// not asked for again for a while.
func (s *Server) denied(key string) error {
	if err := s.store.Denied(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.passing[key]; ok && m.denied != nil && time.Now().Before(m.until) {
		return m.denied
	}
	return nil
}

// watch notes it if the bytes of a URL turn out to be taken down: what they are
// shows when all of them are here.
func (s *Server) watch(key string, fill *cache.Fill) {
	if len(s.store.Denials()) == 0 {
		return
	}
	s.spawn(func() {
		select {
		case <-fill.Done():
		case <-s.life.Done():
			return
		}
		if err := fill.Err(); errors.Is(err, cache.ErrDenied) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.passFrom(key, mark{denied: err})
		}
	})
}
