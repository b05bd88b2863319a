package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// room watches over the disk: can it be written, is there space, and a reserve.
// It is not safe for concurrent use.
type room struct {
	dir     string
	reserve int64 // bytes of the reserve when it is held
	held    bool
	stamped uint64 // what the stamp on the disk says
	log     *slog.Logger
}

const (
	minReserve = 16 << 20
	maxReserve = 128 << 20
	ample      = 16 << 20 // bytes free beyond need and reserve before it is made again
)

// Room is how many bytes should be free on the disk for the index to be written
// whatever it does next, and to hold its reserve. With less it still works for a
// while; with so much less that it does not, Health is ErrFull.
func (x *Index) Room() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	room := profileOf(x.cfg.Small).need() + ample
	if !x.stats.Reserve {
		room += x.room.reserve
	}
	return room
}

func newRoom(cfg Config, log *slog.Logger) (*room, error) {
	r := &room{dir: cfg.Dir, reserve: cfg.Reserve, log: log}
	if r.reserve == 0 {
		_, total, err := space(cfg.Dir)
		if err != nil {
			return nil, err
		}
		r.reserve = min(max(total/16, minReserve), maxReserve)
	}
	if info, err := os.Stat(r.path()); err == nil {
		r.held = info.Size() >= r.reserve
	}
	return r, nil
}

func (r *room) path() string { return filepath.Join(r.dir, "reserve") }

// ready finds out by writing whether the disk takes writes and syncs, and whether
// need bytes are free. What it writes is the stamp: the version up to which
// everything is on the disk.
func (r *room) ready(version uint64, need int64) error {
	if err := writeStamp(r.dir, version); err != nil {
		return classify(err)
	}
	r.stamped = version
	return r.fits(need)
}

// fits tells whether need bytes are free, if need be with those of the reserve.
func (r *room) fits(need int64) error {
	free, _, err := space(r.dir)
	if err == nil && free < need && r.held {
		if err := r.giveBack(); err != nil {
			return err
		}
		free, _, err = space(r.dir)
	}
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("%w: %d bytes free, the index needs %d to work", ErrFull, free, need)
	}
	return nil
}

func (r *room) giveBack() error {
	if err := os.Remove(r.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("give back the reserve: %w", classify(err))
	}
	r.held = false
	r.log.Warn("index gave its reserve back", "bytes", r.reserve)
	if err := syncDir(r.dir); err != nil { // the space is free when that is on the disk
		return fmt.Errorf("give back the reserve: %w", classify(err))
	}
	return nil
}

// refill makes the reserve again when there is ample space.
func (r *room) refill(need int64) {
	if r.held {
		return
	}
	free, _, err := space(r.dir)
	if err != nil || free < need+r.reserve+ample {
		return
	}
	if err := makeReserve(r.path(), r.reserve); err != nil {
		r.log.Warn("index reserve could not be made", "bytes", r.reserve, "err", err)
		_ = os.Remove(r.path()) // tried again in the next turn
		return
	}
	r.held = true
}

// The stamp: magic, version, CRC-32C of both. It is written in place, within one
// sector.
const (
	stampMagic = "CISINDX1"
	stampSize  = len(stampMagic) + 8 + 4
)

func stampPath(dir string) string { return filepath.Join(dir, "stamp") }

func writeStamp(dir string, version uint64) error {
	f, err := os.OpenFile(stampPath(dir), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	stamp := binary.BigEndian.AppendUint64([]byte(stampMagic), version)
	stamp = binary.BigEndian.AppendUint32(stamp, crc32.Checksum(stamp, castagnoli))
	_, err = f.WriteAt(stamp, 0)
	return errors.Join(err, syncData(f), f.Close())
}

// readStamp is the version up to which everything was on the disk; 0 if nothing
// sound says so.
func readStamp(dir string) uint64 {
	stamp, err := os.ReadFile(stampPath(dir))
	if err != nil {
		return 0
	}
	version, _ := parseStamp(stamp)
	return version
}

func parseStamp(stamp []byte) (version uint64, ok bool) {
	if len(stamp) != stampSize || string(stamp[:len(stampMagic)]) != stampMagic ||
		binary.BigEndian.Uint32(stamp[stampSize-4:]) != crc32.Checksum(stamp[:stampSize-4], castagnoli) {
		return 0, false
	}
	return binary.BigEndian.Uint64(stamp[len(stampMagic):]), true
}

// setAside moves an index that cannot be trusted out of the way, for whoever
// wants to look at it, and keeps the last two of them.
func setAside(dir, db string) (string, error) {
	old, err := filepath.Glob(globQuoted(dir) + ".damaged-*")
	if err != nil {
		return "", fmt.Errorf("set index aside: %w", err)
	}
	number := func(path string) int {
		n, _ := strconv.Atoi(path[strings.LastIndexByte(path, '-')+1:])
		return n
	}
	slices.SortFunc(old, func(a, b string) int { return number(a) - number(b) })
	last := 0
	if len(old) > 0 {
		last = number(old[len(old)-1])
	}
	for _, path := range old[:max(0, len(old)-1)] {
		if err := os.RemoveAll(path); err != nil {
			return "", fmt.Errorf("set index aside: %w", err)
		}
	}
	to := dir + ".damaged-" + strconv.Itoa(last+1)
	if err := os.Rename(db, to); err != nil {
		return "", fmt.Errorf("set index aside: %w", err)
	}
	return to, errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// globQuoted keeps Glob from finding a meaning in a name.
func globQuoted(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
