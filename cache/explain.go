package cache

import (
	"fmt"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// Explanation says what the store knows of an object and why it keeps it.
type Explanation struct {
	Info
	// Here lists the byte ranges that readers may have.
	Here []content.Range `json:"here"`
	// Parts says which Source brought which range.
	Parts []Part `json:"parts"`
	// Vouched says who vouches for the bytes.
	Vouched string `json:"vouched"`
	// Volume is the directory of the disk that has the body. Small objects share
	// segments.
	Volume  string `json:"volume"`
	Small   bool   `json:"small"`
	Segment uint32 `json:"segment"`
	// Checked is how many bytes were hashed since the start.
	Checked int64 `json:"checked"`
	// Eviction says when it would go, in a sentence.
	Eviction string `json:"eviction"`
}

// Explain says what is here of an object, which Source brought each range, who
// vouches for it and when it would be evicted.
func (s *Store) Explain(num uint64) (Explanation, error) {
	r := s.books.record(num)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[num]
	if !ok || r == nil {
		return Explanation{}, fmt.Errorf("explain object %d: %w", num, ErrNotFound)
	}
	x := Explanation{Info: s.info(e, r), Parts: r.Parts, Volume: s.volumeOf(e).dir, Small: e.is(isSmall), Segment: e.place.Segment}
	f := s.active[num]
	switch {
	case f != nil:
		x.Here, x.Parts = f.presence()
	case e.is(isComplete):
		x.Here = []content.Range{{End: e.size}}
	}
	switch set := s.checked[num]; {
	case e.is(isChecked) || e.is(isSmall):
		x.Checked = x.Readable
	case set != nil:
		x.Checked = set.Len()
	}
	x.Vouched = vouched(e, r)
	x.Eviction = s.fate(e, f != nil)
	return x, nil
}

// presence is what readers may have of a fill, and who brought it.
func (f *Fill) presence() ([]content.Range, []Part) {
	parts := f.parts()
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]content.Range(nil), f.readable...), parts
}

// vouched says who vouches for an object's bytes.
func vouched(e *entry, r *record) string {
	by := r.Vouched
	if by == "" {
		by = "whoever named it"
	}
	switch trust := content.Trust(e.trust); {
	case trust == content.TrustPieces && !e.is(isComplete):
		return "every piece is proved as it comes in, against hashes from " + by
	case trust == content.TrustPieces:
		return "every piece was proved, against hashes from " + by
	case trust == content.TrustWhole:
		return "a digest of the whole from " + by
	}
	return "nothing but the connection that it came by"
}

// fate says when an object would be evicted; s.mu is held.
func (s *Store) fate(e *entry, filling bool) string {
	svc := s.services[e.service]
	pool := "the store"
	if svc.name != "" {
		pool = fmt.Sprintf("%s (%d of %d bytes)", svc.name, svc.bytes, svc.quota)
	}
	idle := time.Since(time.Unix(e.used, 0)).Round(time.Second)
	place := s.queueOf(e).Place(&e.node)
	switch {
	case e.is(isPinned):
		return "never: it is pinned"
	case filling:
		return "not while it is being filled"
	case e.is(isSmall):
		var small int64
		for _, v := range s.volumes {
			small += v.small
		}
		verdict := "goes with it"
		if place.Freq > 0 {
			verdict = "moves on, for it was asked for again"
		}
		return fmt.Sprintf("with its segment, when small objects need room (%d of %d bytes, all volumes): then it %s; last asked for %v ago",
			small, s.cfg.SmallBytes, verdict, idle)
	case place.Freq > 0:
		return fmt.Sprintf("not at its next turn in the %s queue of %s, for it was asked for %d times since the last; %d bytes have their turn before; last asked for %v ago",
			place.Queue, pool, place.Freq, place.Ahead, idle)
	}
	return fmt.Sprintf("when %s needs room and its turn in the %s queue comes: after %d bytes; last asked for %v ago", pool, place.Queue, place.Ahead, idle)
}
