package appliance

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// configFile is the daemon's configuration.
const configFile = stateDir + "/cistern.toml"

// networkFile says how to reach the network, updateFile where updates come from.
const (
	networkFile = stateDir + "/network.toml"
	updateFile  = stateDir + "/update.toml"
)

// seedFile holds randomness for the next start.
const seedFile = stateDir + "/seed"

// defaultConfig is that of a box on whose CONFIG partition nobody has put one.
const defaultConfig = `version = 1
[proxy]
listen = ":3142"
[admin]
listen = ":80"
names = ["cistern", "cistern.local"]
`

// setting is a file that people may leave on the CONFIG partition.
type setting struct {
	name, to string
	mode     os.FileMode
}

// takenFile is what was on the CONFIG partition at the last start: of each file
// its SHA-256, or nothing.
const takenFile = stateDir + "/taken.json"

// adopt takes what people left on the CONFIG partition: at the first start all
// of it, later what they have changed there since, so that nobody is shut out by
// a wrong address. What cannot be taken is said, and does without.
func (b *Box) adopt() (err error) {
	dev := b.disk.part(image.PartConfig)
	if err := unix.Mount(dev, configDir, "vfat", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		b.log.Error("failed to mount the CONFIG partition", "err", err)
	} else {
		defer func() { err = errors.Join(err, unix.Unmount(configDir, 0)) }()
		took, err := take(configDir, takenFile, []setting{
			{"cistern.toml", configFile, 0o644},
			{"network.toml", networkFile, 0o644},
			{"update.toml", updateFile, 0o644},
			{"authorized_keys", loginKeysFile, 0o644},
			{"admin.password", storeDir + "/admin.password", 0o600},
			{"admin.token", storeDir + "/admin.token", 0o600},
		})
		if err != nil {
			b.log.Error("failed to take settings", "err", err)
		}
		for _, name := range took {
			b.log.Info("took setting", "file", name)
		}
		b.mu.Lock()
		b.took = took
		b.mu.Unlock()
	}
	if _, err := os.Stat(configFile); errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(configFile, []byte(defaultConfig), 0o644); err != nil {
			b.log.Error("failed to write a configuration", "err", err)
		}
	}
	return handOver()
}

// take takes the settings in a folder that are new or other than they were when
// it was last looked at. One of which nothing is known, since an older release
// took it, is left as it is.
func take(from, record string, settings []setting) (took []string, err error) {
	var before map[string]string
	if err := readJSON(record, &before); err != nil {
		before = nil // the first start, or damaged
	}
	now := map[string]string{}
	maps.Copy(now, before)
	var faults []error
	for _, s := range settings {
		body, err := os.ReadFile(filepath.Join(from, s.name))
		if errors.Is(err, fs.ErrNotExist) {
			now[s.name] = ""
			continue
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("take %s: %w", s.name, err))
			continue
		}
		sum := sha256.Sum256(body)
		old, known := before[s.name]
		_, missing := os.Stat(s.to)
		if missing != nil || known && old != hex.EncodeToString(sum[:]) {
			if err := writeFile(s.to, body, s.mode); err != nil {
				faults = append(faults, fmt.Errorf("take %s: %w", s.name, err))
				continue
			}
			took = append(took, s.name)
		}
		now[s.name] = hex.EncodeToString(sum[:])
	}
	if !maps.Equal(now, before) {
		text, err := json.Marshal(now)
		faults = append(faults, err, writeFile(record, text, 0o600))
	}
	return took, errors.Join(faults...)
}

// handOver gives the daemon what is its own. The folder of the Box stays
// readable for it and is not writable.
func handOver() error {
	if err := os.Chmod(stateDir, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(storeDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Uid != daemonID {
			return os.Lchown(path, daemonID, daemonID)
		}
		if info.IsDir() && path != storeDir {
			return fs.SkipDir // what it made itself is its own
		}
		return nil
	})
}

// seed credits the randomness that the last run left, and leaves some for the
// next: each is used once.
func (b *Box) seed() {
	old, err := os.ReadFile(seedFile)
	if err == nil && len(old) == seedBytes {
		if err := os.Remove(seedFile); err != nil {
			b.log.Error("failed to use up the seed", "err", err)
			return
		}
		if err := creditSeed(old); err != nil {
			b.log.Error("failed to credit the seed", "err", err)
		}
	}
	go func() { // it waits until there is randomness
		fresh := make([]byte, seedBytes)
		_, _ = rand.Read(fresh)
		if err := writeFile(seedFile, fresh, 0o600); err != nil {
			b.log.Error("failed to leave a seed", "err", err)
		}
	}()
}

const seedBytes = 64

// addEntropy is RNDADDENTROPY (linux/random.h).
const addEntropy = 0x40085203

func creditSeed(seed []byte) error {
	f, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	pool := struct {
		bits, size int32
		body       [seedBytes]byte
	}{bits: seedBytes * 8, size: seedBytes}
	copy(pool.body[:], seed)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), addEntropy, uintptr(unsafe.Pointer(&pool))); errno != 0 {
		return errno
	}
	return nil
}
