package proxy

import (
	"context"
	"errors"
	"net/http"
	"path"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// objectName is the store's name for an object of /o/: that of the torrent's
// file, or one made of the identity while it is on its way in.
func objectName(id content.ID, name string) string {
	if name != "" {
		return name
	}
	return "id:" + id.String()
}

// bring finds an object elsewhere and starts to fill it; everybody who asks for
// it meanwhile waits for the same answer.
func (s *Server) bring(ctx context.Context, id content.ID, name string) (*found, error) {
	answer := s.bringing.DoChan(objectName(id, name), func() (any, error) {
		if !s.begin() {
			return nil, errEnding
		}
		defer s.tasks.Done()
		if f, err := s.objectBy(id, name); err == nil && f.usable() {
			return nil, nil // started since the caller looked
		}
		return nil, s.start(id, name)
	})
	select {
	case a := <-answer:
		if a.Err != nil {
			return nil, a.Err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.objectBy(id, name)
}

// start asks for an object and starts its fill, or goes on with the part that is
// here.
func (s *Server) start(id content.ID, name string) error {
	s.count.upstream.Add(1)
	offer, err := s.cfg.OpenObject(s.life, id, name)
	if err != nil {
		return &fault{status: http.StatusNotFound, why: "no such object here, and " + err.Error()}
	}
	if name == "" && offer.Object.ID != id {
		closeBody(offer)
		return &fault{status: http.StatusBadGateway, why: "another object was offered: " + offer.Object.ID.String()}
	}
	key := objectName(id, name)
	if twin, ok := s.store.ByID(offer.Object.ID); ok {
		closeBody(offer)
		return s.store.SetName(twin.Num, key, nil)
	}
	if part, _, ok := s.store.Lookup(key); ok {
		fill, err := s.store.OpenFill(part.Num, offer.Object.Layer)
		if err == nil {
			if !fill.Start(offer.Sources...) {
				closeBody(offer)
			}
			return nil
		}
	}
	title := path.Base(name)
	if name == "" {
		title = id.String()
	}
	fill, err := s.store.Create(cache.Spec{Object: offer.Object, Title: title, Public: true, Vouched: s.cfg.Vouched}, key, nil)
	if err != nil {
		closeBody(offer)
	}
	if errors.Is(err, content.ErrFull) {
		return &fault{status: http.StatusInsufficientStorage, why: "the object has no room here: " + err.Error()}
	}
	if err != nil {
		return err
	}
	fill.Start(offer.Sources...)
	return nil
}

// twin gives the names of an answer to an object that is here already, if
// upstream has promised its identity. An answer that is not for everybody shares
// no object: once it is taken back, the others' would go with it.
func (s *Server) twin(q *query, offer *content.Offer, f *found, meta []byte) bool {
	if offer.Object.ID.IsZero() || f.head.Status != http.StatusOK || !httpcache.Public(f.head) {
		return false
	}
	info, ok := s.store.ByID(offer.Object.ID)
	if !ok || s.store.SetName(info.Num, f.name, meta) != nil {
		return false
	}
	closeBody(offer)
	f.info = info
	if f.name != q.key {
		if err := s.store.SetName(info.Num, q.key, meta); err != nil {
			s.log.Error("failed to name an answer", "title", q.key, "err", err)
		}
	}
	return true
}
