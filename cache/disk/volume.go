package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// Volume is one directory of blobs and segments. All methods are safe for
// concurrent use.
type Volume struct {
	dir      string
	id       string
	lock     *os.File
	segments *Segments

	mu     sync.Mutex // guards shards
	shards [256]bool  // folders of blobs whose own entry is known to be durable
}

// Open opens the volume in dir, or makes it. One process may have it open: the
// error wraps ErrInUse for the others. It wraps ErrNewer or ErrFormat1 if the
// volume is of another format. A volume whose marker is damaged gets a new
// identity; what lies on it can still be walked. A read-only file system can be
// opened if the volume was made before.
func Open(dir string, log *slog.Logger) (*Volume, error) {
	v, err := open(dir, log)
	if err != nil {
		return nil, within("open volume "+dir, err)
	}
	return v, nil
}

func open(dir string, log *slog.Logger) (*Volume, error) {
	if err := makeDir(filepath.Clean(dir)); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	m, err := identify(dir, log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	segments, err := openSegments(filepath.Join(dir, "segments"), log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Volume{dir: dir, id: m.ID, lock: lock, segments: segments}, nil
}

// identify reads the marker. A directory without a sound one gets a new one,
// unless it holds blobs of format 1.
func identify(dir string, log *slog.Logger) (marker, error) {
	m, err := readMarker(dir)
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, ErrDamaged):
		path := filepath.Join(dir, markerName)
		if err := os.Rename(path, path+".damaged"); err != nil {
			return m, err
		}
		log.Warn("gave a volume with a damaged marker a new identity", "dir", dir, "err", err)
	case !missing(err):
		return m, err
	}
	old, err := holdsV1(dir)
	if err != nil {
		return m, err
	}
	if old {
		return m, ErrFormat1
	}
	return writeMarker(dir)
}

// Holds reports whether there is a volume in dir, of whatever format.
func Holds(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, markerName))
	return err == nil
}

// ID is the random name that the volume got when it was made.
func (v *Volume) ID() string { return v.id }

// Dir is where the volume is.
func (v *Volume) Dir() string { return v.dir }

// Segments are the small objects of the volume.
func (v *Volume) Segments() *Segments { return v.segments }

// Close makes the segments durable and lets other processes have the volume.
// Blobs are closed by whoever opened them.
func (v *Volume) Close() error {
	return within("close volume "+v.dir, errors.Join(v.segments.close(), v.lock.Close()))
}

// Space reads how many bytes of the file system this process may still use, and
// how many it has.
func (v *Volume) Space() (free, total int64, err error) {
	free, total, err = space(v.dir)
	return free, total, within("read free space of "+v.dir, err)
}

// probeRoom is how many bytes must be free for Probe to pass.
const probeRoom = 64 << 10

// Probe finds out whether the volume can be read and written now. The error
// wraps ErrFull, ErrReadOnly or ErrGone; the last also if another file system
// is mounted in its place. Full and read-only volumes can still be read. It costs
// one small write to the device. On a disk that
// is stuck it does not return: give it a goroutine of its own.
func (v *Volume) Probe() error { return within("probe volume "+v.dir, v.probe()) }

func (v *Volume) probe() error {
	m, err := readMarker(v.dir)
	if missing(err) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrNewer) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err != nil {
		return err
	}
	if m.ID != v.id {
		return fmt.Errorf("%w: volume %s is in its place", ErrGone, m.ID)
	}
	f, err := os.OpenFile(filepath.Join(v.dir, "probe"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt([]byte(v.id), 0); err == nil {
		err = syncData(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Writing over the same bytes needs no room, so ask for it.
	if free, _, err := space(v.dir); err != nil || free >= probeRoom {
		return err
	}
	return ErrFull
}

// shard makes the folder that blob num lives in.
func (v *Volume) shard(num uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shards[byte(num)] {
		return nil
	}
	dir := filepath.Dir(blobPath(v.dir, num))
	if err := makeDir(dir); err != nil {
		return err
	}
	// A process that died may have made it without getting to the sync.
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	v.shards[byte(num)] = true
	return nil
}
