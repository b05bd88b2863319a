package cache

import (
	"slices"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Info is a snapshot of what the store knows of an object.
type Info struct {
	Num uint64 `json:"num"`
	// ID is the identity that the bytes have earned, or that was promised for
	// an object still incomplete; zero if neither.
	ID content.ID `json:"id,omitzero"`
	// Size in bytes, or content.UnknownSize.
	Size     int64         `json:"size"`
	Complete bool          `json:"complete"`
	Filling  bool          `json:"filling"`
	Trust    content.Trust `json:"trust"`
	Public   bool          `json:"public"`
	Pinned   bool          `json:"pinned"`
	Title    string        `json:"title"`
	Names    []string      `json:"names"`
	// Service is the quota that the object counts for; "" for none.
	Service string    `json:"service,omitempty"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`
	// Readable is how many bytes readers may have now.
	Readable int64 `json:"readable"`
	// From counts the bytes that each Source brought, by its name.
	From map[string]int64 `json:"from"`
	// Served counts the bytes that each outlet handed out, by its name.
	Served map[string]int64 `json:"served"`
}

// info makes the snapshot; s.mu is held.
func (s *Store) info(e *entry, r *record) Info {
	i := Info{
		Num: e.num(), ID: r.ID, Size: e.size, Complete: e.is(isComplete), Trust: content.Trust(e.trust),
		Public: e.is(isPublic), Pinned: e.is(isPinned), Title: r.Title, Names: slices.Sorted(slices.Values(r.Names)),
		Service: s.services[e.service].name, Created: r.Created, Used: time.Unix(e.used, 0),
		From: cloneCounts(r.From), Served: cloneCounts(r.Served),
	}
	if i.ID.IsZero() {
		i.ID = r.Promised
	}
	for outlet, n := range s.served[e.num()] {
		i.Served[outlet] += n
	}
	if i.Complete {
		i.Readable = e.size
	}
	if f := s.active[e.num()]; f != nil {
		f.describe(&i)
	}
	return i
}
