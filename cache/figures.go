package cache

import (
	"maps"
	"strings"
	"time"
)

// CountServed notes that an outlet ("http", "bittorrent", "multicast", …)
// handed out bytes of an object.
func (s *Store) CountServed(num uint64, outlet string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.objects[num]; ok && bytes > 0 {
		r.Served[outlet] += bytes
		r.Used = time.Now()
		s.dirty[num] = true
	}
}

// saveFigures writes the records whose figures have changed.
func (s *Store) saveFigures() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var changed []*record
	for num := range s.dirty {
		if r, ok := s.objects[num]; ok {
			changed = append(changed, r)
		}
	}
	if err := s.index.put(changed...); err != nil {
		return err // they stay dirty
	}
	clear(s.dirty)
	return nil
}

// Stats are the store's figures.
type Stats struct {
	Objects  int   `json:"objects"`
	Complete int   `json:"complete"`
	Fills    int   `json:"fills"`
	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes"`
	// Filled and Served count bytes by Source and by outlet since the store was
	// made; of objects that are gone by the first word of the Source's name.
	Filled map[string]int64 `json:"filled"`
	Served map[string]int64 `json:"served"`
}

// Stats gives a snapshot.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Objects: len(s.objects), Fills: len(s.active), Bytes: s.used, MaxBytes: s.cfg.MaxBytes,
		Filled: maps.Clone(s.gone.Filled), Served: maps.Clone(s.gone.Served),
	}
	for _, r := range s.objects {
		if r.Complete {
			st.Complete++
		}
		for name, n := range s.fromOf(r) {
			st.Filled[name] += n
		}
		for name, n := range r.Served {
			st.Served[name] += n
		}
	}
	return st
}

// fromOf counts the bytes of an object by Source, those of a running fill
// included; s.mu is held.
func (s *Store) fromOf(r *record) map[string]int64 {
	if f := s.active[r.Num]; f != nil {
		return f.from()
	}
	return r.From
}

// totals are the figures of objects that are gone, so that what was saved does
// not shrink when an object is evicted.
type totals struct {
	Filled map[string]int64 `json:"filled"`
	Served map[string]int64 `json:"served"`
}

func newTotals() totals { return totals{Filled: map[string]int64{}, Served: map[string]int64{}} }

// plus adds an object's figures. Sources lose the host in their name, or the
// totals would grow with every host there ever was.
func (t totals) plus(r *record) totals {
	sum := totals{Filled: maps.Clone(t.Filled), Served: maps.Clone(t.Served)}
	for name, n := range r.From {
		kind, _, _ := strings.Cut(name, " ")
		sum.Filled[kind] += n
	}
	for name, n := range r.Served {
		sum.Served[name] += n
	}
	return sum
}
