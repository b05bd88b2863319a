package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/index"
)

// volume is one disk as the store sees it.
type volume struct {
	num   uint8
	dir   string
	index *index.Index  // if it is on this disk
	doubt chan struct{} // capacity 1: it is to be looked at

	// Volume is nil until the disk is there for the first time. That, and what
	// follows it, is set before gone is cleared, and then never again.
	*disk.Volume
	minFree int64
	apart   bool // on a file system of its own

	// Store.mu guards what follows.
	total    int64 // bytes that the file system has; 0 until it is there
	bytes    int64 // that objects take
	loose    int64 // of them what may be evicted
	small    int64 // bytes of segments
	segments map[uint32]*segment
	fresh    map[uint64]bool // small objects that came since the last flush
	torn     map[uint64]bool // small objects that a failed flush may have lost
	failures int             // of flushes
	left     uint32          // segments below it may have left

	// mu guards what follows.
	mu   sync.Mutex
	sick error // why nothing can be written
	gone bool  // nothing can be read either
	// alien says that the index does not know all that lies there: no body may be
	// taken for a leftover.
	alien   bool
	free    int64 // bytes, when last measured, and what was evicted since
	pledged int64 // of them to bodies that are being made
}

// segment is what the store knows of a file of small objects. Store.mu guards
// it.
type segment struct {
	nums  []uint64 // of objects that were put there
	bytes int64
}

// floor is how much of the volume stays free, in bytes: never less than what the
// index needs, for without it nothing new can be kept.
func (v *volume) floor() int64 {
	if v.index == nil {
		return v.minFree
	}
	return max(v.minFree, v.index.Room())
}

// state says why the volume cannot be written, and whether it is gone.
func (v *volume) state() (sick error, gone bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sick, v.gone
}

// isOpen reports whether the disk has been there since the start.
func (v *volume) isOpen() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.Volume != nil
}

// isAlien reports whether the index may not know all that lies on the volume.
func (v *volume) isAlien() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.alien
}

// suspect takes note of an error that may mean that the disk is full, read-only
// or gone: the volume will be looked at.
func (v *volume) suspect(err error) {
	if err == nil {
		return
	}
	if err := disk.Classify(err); errors.Is(err, disk.ErrFull) || errors.Is(err, disk.ErrReadOnly) {
		v.refuse(err)
	} else if !errors.Is(err, disk.ErrGone) {
		return
	}
	select {
	case v.doubt <- struct{}{}:
	default:
	}
}

// measure asks the file system how much room it has. On a dead disk that may
// take for ever, so it is never done under Store.mu.
func (v *volume) measure() {
	free, _, err := v.Space()
	if v.suspect(err); err != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.free = free
}

// room is how many bytes of the volume may be given out.
func (v *volume) room() int64 {
	floor := v.floor()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.free - v.pledged - floor
}

// pledge takes bytes for a body that is about to be made, or gives them back
// once it is there.
func (v *volume) pledge(bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pledged += bytes
}

// regain counts what will be free when an evicted body is gone.
func (v *volume) regain(bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.free += bytes
}

// create makes a blob, with the room for all of it unless only a part of it is
// wanted.
func (v *volume) create(num uint64, size int64, part bool) (*disk.Blob, error) {
	defer v.measure()
	if sick, _ := v.state(); sick != nil {
		return nil, unwritable(v.dir, sick)
	}
	b, err := v.Create(num, size, nil)
	if err == nil && size > 0 && !part {
		if err = b.Reserve(size); err != nil {
			err = errors.Join(err, b.Close(), v.Remove(num))
		}
	}
	v.suspect(err)
	if err != nil {
		return nil, unwritable(v.dir, err)
	}
	return b, nil
}

// refused is suspect for an error of a write, and what a caller is told of it.
func (v *volume) refused(err error) error {
	v.suspect(err)
	if err = disk.Classify(err); errors.Is(err, disk.ErrReadOnly) || errors.Is(err, disk.ErrGone) {
		return unwritable(v.dir, err)
	}
	return err
}

// unwritable is the error for what a disk does not take now: for a caller it is
// as if the store were full.
func unwritable(dir string, err error) error {
	if errors.Is(err, content.ErrFull) {
		return err
	}
	return fmt.Errorf("%w: %s cannot be written: %w", content.ErrFull, dir, err)
}

// isLost says that a body is not there any more, the rest of the disk being
// well.
func isLost(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// volumeOf gives the volume that an entry's body is on.
func (s *Store) volumeOf(e *entry) *volume { return s.volumes[e.volume] }

// writable says why nothing can be added to an object's body now.
func (s *Store) writable(e *entry) error {
	v := s.volumeOf(e)
	if sick, _ := v.state(); sick != nil {
		return unwritable(v.dir, sick)
	}
	return s.indexTakes()
}

// indexTakes says why the index takes no more changes now.
func (s *Store) indexTakes() error {
	if err := s.books.index.Health(); err != nil {
		return fmt.Errorf("%w: index cannot be written: %w", content.ErrFull, err)
	}
	if s.books.index.Pending() > maxPending {
		return fmt.Errorf("%w: index is behind", content.ErrFull)
	}
	return nil
}

// minFreeOf is how much of a volume stays free, if the configuration does not
// say.
func minFreeOf(total int64) int64 { return min(max(total/16, 24<<20), 256<<20) }

// lose forgets what was on a volume. Readers that are open fail by themselves.
func (s *Store) lose(v *volume, why error) {
	v.mu.Lock()
	was := v.gone
	v.sick, v.gone, v.alien = why, true, true
	v.mu.Unlock()
	if was {
		return
	}
	s.noteVolumes() // first: after a crash, what is there is adopted and not swept away
	s.mu.Lock()
	var lost []uint64
	var fills []*Fill
	for num, e := range s.objects {
		if e.volume != v.num {
			continue
		}
		if f := s.active[num]; f == nil {
			lost = append(lost, num)
		} else if !f.body.inMemory() {
			fills = append(fills, f)
		}
	}
	s.mu.Unlock()
	s.log.Error("lost a volume; what was on it will be fetched again", "volume", v.dir, "objects", len(lost)+len(fills), "err", why)
	for _, f := range fills {
		f.stop(unwritable(v.dir, why))
		<-f.Done()
		lost = append(lost, f.num)
	}
	for _, num := range lost {
		s.editing.Lock()
		s.forget(num)
		s.editing.Unlock()
	}
	s.mu.Lock()
	v.small, v.segments, v.fresh, v.torn = 0, map[uint32]*segment{}, map[uint64]bool{}, map[uint64]bool{}
	s.mu.Unlock()
}

// noteVolumes writes down which volumes the index knows all of.
func (s *Store) noteVolumes() {
	s.editing.Lock()
	defer s.editing.Unlock()
	ids := map[string]uint8{}
	for _, v := range s.volumes {
		if !v.isAlien() {
			ids[v.ID()] = v.num
		}
	}
	ed := s.books.edit()
	ed.setting("volumes", ids)
	ed.done()
}

// refuse says that nothing can be written until the disk has been looked at.
func (v *volume) refuse(why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sick == nil {
		v.sick = why
	}
}

// appear opens a volume that was not there at the start, if it is by now.
func (s *Store) appear(v *volume) {
	list, err := readDenials(filepath.Join(v.dir, deniedFile))
	if err == nil {
		err = s.openVolume(v)
	}
	if err != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.sick = err
		return
	}
	s.log.Info("a volume that was missing is there", "volume", v.dir)
	if err := s.denied.join(v.dir, list); err != nil {
		s.log.Warn("failed to save the list of takedowns", "err", err)
	}
}

// watch looks at a volume, and brings it back if it is well again.
func (s *Store) watch(v *volume) {
	if !v.isOpen() {
		if s.appear(v); !v.isOpen() {
			return
		}
		defer s.claimVolumes()
	}
	err := v.Probe()
	if errors.Is(err, disk.ErrGone) {
		s.lose(v, err)
		return
	}
	v.measure()
	if v.isAlien() {
		s.log.Info("a lost volume is back", "volume", v.dir)
		s.takeIn(v)
		s.enforcePending()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if (v.sick == nil) != (err == nil) {
		if err != nil {
			s.log.Warn("a volume cannot be written; what is there is served on, the rest passes through", "volume", v.dir, "err", err)
			s.kick() // somebody else's files may have filled it
		} else {
			s.log.Info("a volume can be written again", "volume", v.dir)
		}
	}
	v.sick, v.gone = err, false
}
