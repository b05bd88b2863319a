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
	if bytes <= 0 {
		return
	}
	s.totals.Served[outlet] += bytes
	s.counted = true
	if e, ok := s.objects[num]; ok {
		e.touch(time.Now())
		s.countServed(num, outlet, bytes)
	}
}

// countServed keeps a figure until the record is next saved; s.mu is held.
func (s *Store) countServed(num uint64, outlet string, bytes int64) {
	sums := s.served[num]
	if sums == nil {
		sums = map[string]int64{}
		s.served[num] = sums
	}
	sums[outlet] += bytes
	s.stale[num] = true
}

// use notes a request for an object; s.mu is held.
func (s *Store) use(e *entry, now time.Time) {
	e.touch(now)
	s.stale[e.num()] = true
	if s.active[e.num()] == nil { // the requests that a fill answers are one burst
		s.queueOf(e).Hit(&e.node)
	}
}

// countFilled notes what a fill that ends has brought; s.mu is held. Sources
// lose the host in their name, or the totals would grow with every host there
// ever was.
func (s *Store) countFilled(f *Fill) {
	for source, n := range f.gained() {
		s.totals.Filled[kindOf(source)] += n
		s.counted = true
	}
}

// kindOf is the first word of a Source's name.
func kindOf(source string) string {
	kind, _, _ := strings.Cut(source, " ")
	return kind
}

// gained is what this fill has brought, beside what was here when it began.
func (f *Fill) gained() map[string]int64 {
	sums := f.from()
	for source, n := range f.base {
		if sums[source] -= n; sums[source] <= 0 {
			delete(sums, source)
		}
	}
	return sums
}

// saveFigures writes the entries and records whose figures have changed, some at
// a time: a hundred thousand may have been asked for since the last time.
func (s *Store) saveFigures() {
	s.mu.Lock()
	left := len(s.stale)
	if s.counted {
		ed := s.books.edit()
		ed.setting("totals", s.totals.clone())
		ed.done()
		s.counted = false
	}
	s.mu.Unlock()
	for ; left > 0; left -= figuresAtOnce {
		s.saveSome()
		if s.books.index.Pending() > figuresPending {
			_ = s.books.index.Commit(s.ctx) // what the disk does not take now stays in memory
		}
	}
}

// What saveFigures writes at a time, in objects, and how many bytes of it may
// wait for the disk.
const (
	figuresAtOnce  = 256
	figuresPending = 1 << 20
)

// saveSome writes the figures of some objects.
func (s *Store) saveSome() {
	s.editing.Lock()
	defer s.editing.Unlock()
	ed := s.books.edit()
	sums := make(map[uint64]map[string]int64, figuresAtOnce)
	s.mu.Lock()
	for num := range s.stale {
		if len(sums) == figuresAtOnce {
			break
		}
		if e, ok := s.objects[num]; ok {
			ed.entry(e)
		}
		sums[num] = s.served[num]
		delete(s.stale, num)
		delete(s.served, num)
	}
	if len(s.stale) == 0 { // or they would keep the room that they have had
		s.stale, s.served = map[uint64]bool{}, map[uint64]map[string]int64{}
	}
	s.mu.Unlock()
	for num, served := range sums {
		if len(served) == 0 {
			continue
		}
		if r := s.books.record(num); r != nil {
			r = r.clone()
			for outlet, n := range served {
				r.Served[outlet] += n
			}
			ed.record(num, r)
		}
	}
	ed.done()
}

// Stats are the store's figures. Bytes are of bodies.
type Stats struct {
	Objects  int   `json:"objects"`
	Complete int   `json:"complete"`
	Fills    int   `json:"fills"`
	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes"`
	// Filled and Served count bytes by kind of Source and by outlet since the
	// store was made.
	Filled map[string]int64 `json:"filled"`
	Served map[string]int64 `json:"served"`
	counts
	Volumes  []VolumeStats  `json:"volumes"`
	Services []ServiceStats `json:"services"`
}

// counts are figures since the start.
type counts struct {
	Evicted      int64 `json:"evicted"`
	EvictedBytes int64 `json:"evicted_bytes"`
	// Damaged counts blocks and small objects that were not what came in;
	// Repaired counts objects that are whole again.
	Damaged  int64 `json:"damaged"`
	Repaired int64 `json:"repaired"`
	Scrubs   int64 `json:"scrubs"`
}

// VolumeStats are the figures of one disk, in bytes.
type VolumeStats struct {
	Dir   string `json:"dir"`
	Bytes int64  `json:"bytes"`
	Small int64  `json:"small"`
	Free  int64  `json:"free"`
	Total int64  `json:"total"`
	// Sick says why nothing can be written; Gone that nothing can be read.
	Sick string `json:"sick,omitempty"`
	Gone bool   `json:"gone,omitempty"`
}

// ServiceStats are the figures of one service; the one without a name is for
// whatever has no quota.
type ServiceStats struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Quota int64  `json:"quota,omitempty"`
}

// Stats gives a snapshot.
func (s *Store) Stats() Stats {
	var volumes []VolumeStats
	for _, v := range s.volumes {
		vs := VolumeStats{Dir: v.dir}
		sick, gone := v.state()
		if vs.Gone = gone; sick != nil {
			vs.Sick = sick.Error()
		}
		if !gone {
			vs.Free, vs.Total, _ = v.Space() // 0 if the disk does not say
		}
		volumes = append(volumes, vs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sums := s.totals.clone()
	for _, f := range s.active {
		for source, n := range f.gained() {
			sums.Filled[kindOf(source)] += n
		}
	}
	st := Stats{
		Objects: len(s.objects), Complete: s.whole, Fills: len(s.active), Bytes: s.used, MaxBytes: s.cfg.MaxBytes,
		Filled: sums.Filled, Served: sums.Served, counts: s.counts, Volumes: volumes,
	}
	for i, v := range s.volumes {
		st.Volumes[i].Bytes, st.Volumes[i].Small = v.bytes, v.small
	}
	st.Volumes = append(st.Volumes, s.absent...)
	for _, svc := range s.services {
		st.Services = append(st.Services, ServiceStats{Name: svc.name, Bytes: svc.bytes, Quota: svc.quota})
	}
	return st
}

// totals count since the store was made.
type totals struct {
	Filled map[string]int64 `json:"filled"`
	Served map[string]int64 `json:"served"`
}

func (t totals) clone() totals {
	return totals{Filled: maps.Clone(t.Filled), Served: maps.Clone(t.Served)}
}
