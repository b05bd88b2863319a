package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/index"
)

// Open opens the store, or makes it. Only one process may have it open. A store
// of an older format is migrated; one of a newer format is refused. Volumes
// beside the first may be missing: what was on them is forgotten. The error wraps
// ErrFull or ErrReadOnly of the index or of the disk if that is to blame and there
// is no Config.Spare.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := newStore(cfg.filled(), log)
	err := s.open()
	if err == nil {
		return s, nil
	}
	err = errors.Join(err, s.shut())
	if cfg.Spare != "" && takesNothing(err) {
		return openSpare(cfg, err, log)
	}
	return nil, err
}

// takesNothing tells an error of a disk that can be read but not written.
func takesNothing(err error) bool {
	for _, one := range []error{index.ErrFull, index.ErrReadOnly, disk.ErrFull, disk.ErrReadOnly} {
		if errors.Is(disk.Classify(err), one) {
			return true
		}
	}
	return false
}

// openSpare opens the store that stands in, and has its figures say for what. What
// was taken down stays so.
func openSpare(cfg Config, why error, log *slog.Logger) (*Store, error) {
	log.Error("the store cannot be opened: an empty one stands in until the next start", "err", why, "file", cfg.Spare)
	var absent []VolumeStats
	for _, dir := range append([]string{cfg.Dir}, cfg.Volumes...) {
		absent = append(absent, VolumeStats{Dir: dir, Sick: why.Error(), Gone: true})
	}
	cfg.Dir, cfg.Volumes, cfg.Spare, cfg.Small = cfg.Spare, nil, "", true
	s := newStore(cfg.filled(), log)
	s.absent = absent
	if err := s.open(); err != nil {
		return nil, errors.Join(why, err, s.shut())
	}
	return s, nil
}

func newStore(cfg Config, log *slog.Logger) *Store {
	s := &Store{
		cfg: cfg, asked: cfg, log: log, apart: disk.Apart, kicked: make(chan struct{}, 1), hashing: make(chan struct{}, 1),
		objects: map[uint64]*entry{}, active: map[uint64]*Fill{}, checked: map[uint64]*content.Ranges{},
		proofs: map[uint64]*content.Layer{}, served: map[uint64]map[string]int64{}, stale: map[uint64]bool{},
		cards: map[uint64]bool{}, bodies: newRAM[uint64, []byte](cfg.RAM / 2),
	}
	s.editing.discard = s.discard
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *Store) open() error {
	if err := migrate(s.cfg, s.log); err != nil {
		return err
	}
	home, err := s.openVolumes()
	if err != nil {
		return err
	}
	ix, err := index.Open(index.Config{Dir: filepath.Join(home.dir, "index"), Small: s.cfg.Small}, s.log)
	if err != nil {
		return fmt.Errorf("open the store's index: %w", err)
	}
	home.index = ix
	s.books = &books{
		index: ix, log: s.log, moving: map[uint64]disk.Place{},
		records: newRAM[uint64, *record](s.cfg.RAM / 4), names: newRAM[string, *name](s.cfg.RAM / 4),
	}
	var dirs []string
	for _, v := range s.volumes {
		if v.isOpen() {
			dirs = append(dirs, v.dir)
		}
	}
	var absent []string
	for _, v := range s.absent {
		absent = append(absent, v.Dir)
	}
	if s.denied, err = openDenials(dirs, absent); err != nil {
		return err
	}
	fresh, why := ix.Fresh()
	if fresh && why != "" {
		s.log.Warn("made the index anew from what lies beside the bodies", "err", why)
	}
	if err := s.load(fresh); err != nil {
		return err
	}
	s.enforcePending()
	return nil
}

// openVolumes opens every disk. The first that is well is home: the index is
// there.
func (s *Store) openVolumes() (home *volume, err error) {
	var failed []error
	dirs := append([]string{s.cfg.Dir}, s.cfg.Volumes...)
	apart := apartBefore(dirs)
	for i, dir := range dirs {
		v := &volume{
			num: uint8(i), dir: dir, doubt: make(chan struct{}, 1), apart: apart[dir], gone: true, alien: true,
			segments: map[uint32]*segment{}, fresh: map[uint64]bool{}, torn: map[uint64]bool{},
		}
		s.volumes = append(s.volumes, v)
		err := s.openVolume(v)
		switch {
		case errors.Is(err, disk.ErrInUse) || errors.Is(err, disk.ErrNewer):
			return nil, err
		case err != nil:
			v.sick = err
			failed = append(failed, err)
			s.log.Error("a volume is not there; what was on it will be fetched again", "volume", dir, "err", err)
		case home == nil:
			home = v
		}
	}
	if home == nil {
		return nil, fmt.Errorf("open the store: %w", errors.Join(failed...))
	}
	return home, nil
}

// openVolume opens a disk, at the start or when it has come later.
func (s *Store) openVolume(v *volume) error {
	mounted := s.apart(v.dir)
	if v.apart && !mounted && !disk.Holds(v.dir) {
		return fmt.Errorf("nothing is mounted at %s: the volume there was on a file system of its own", v.dir)
	}
	d, err := disk.Open(v.dir, s.log)
	if err != nil {
		return err
	}
	free, total, err := d.Space()
	if err != nil {
		return errors.Join(err, d.Close())
	}
	s.mu.Lock()
	v.total = total
	s.bound()
	s.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Volume, v.apart, v.free = d, mounted, free
	v.minFree = cmp.Or(s.cfg.MinFree, minFreeOf(total))
	v.sick, v.gone = nil, false
	return nil
}

// bound keeps the bounds of the configuration within what the disks have that
// are there; s.mu is held.
func (s *Store) bound() {
	sum := int64(0)
	for _, v := range s.volumes {
		sum += v.total
	}
	s.cfg.MaxBytes = min(s.asked.MaxBytes, sum)
	s.cfg.SmallBytes = cmp.Or(s.asked.SmallBytes, s.cfg.MaxBytes/16)
}

// begin makes sure, durably, that the numbers given out from now on are new.
func (s *Store) begin() error {
	s.first = s.next
	s.numbers = s.next + numberStep
	if s.name == "" {
		s.name = rand.Text()
	}
	ed := s.books.edit()
	ed.setting("numbers", s.numbers)
	ed.setting("index", s.name)
	ed.setting("services", s.serviceNames())
	ed.done()
	s.noteVolumes()
	if err := s.books.index.Commit(s.ctx); err != nil {
		s.log.Warn("the index cannot be written; what is here is served, the rest passes through", "err", err)
		return nil
	}
	s.claimVolumes()
	return nil
}

// loadServices makes the services of the configuration, under the numbers that
// they had.
func (s *Store) loadServices() {
	var before []string
	if err := s.books.setting("services", &before); err != nil {
		s.log.Warn("failed to read the services", "err", err)
	}
	s.services = []*service{newService("", nil, 0, s.cfg.MaxBytes)}
	for i := 1; i < len(before); i++ { // places that are no longer used stay empty
		s.services = append(s.services, newService(before[i], nil, 0, s.cfg.MaxBytes))
	}
	for _, q := range s.cfg.Quotas {
		i := slices.IndexFunc(s.services, func(svc *service) bool { return svc.name == q.Name })
		svc := newService(q.Name, q.Match, q.MaxBytes, q.MaxBytes)
		switch {
		case i > 0:
			s.services[i] = svc
		case len(s.services) < maxServices:
			s.services = append(s.services, svc)
		}
	}
}

func (s *Store) serviceNames() []string {
	names := make([]string, len(s.services))
	for i, svc := range s.services {
		names[i] = svc.name
	}
	return names
}

// numOf reads the number in a key.
func numOf(key []byte) uint64 {
	if len(key) != 9 {
		return 0
	}
	return binary.BigEndian.Uint64(key[1:])
}

// isThere reports whether a path leads to something.
func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
