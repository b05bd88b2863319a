package appliance

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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

// adopt takes what people left on the CONFIG partition, at the first start: a
// file that the data has already is not replaced.
func (b *Box) adopt() (err error) {
	dev := b.disk.part(image.PartConfig)
	if err := unix.Mount(dev, configDir, "vfat", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		b.log.Error("failed to mount the CONFIG partition", "err", err)
	} else {
		defer func() { err = errors.Join(err, unix.Unmount(configDir, 0)) }()
	}
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{"cistern.toml", configFile, 0o644},
		{"network.toml", networkFile, 0o644},
		{"update.toml", updateFile, 0o644},
		{"admin.password", storeDir + "/admin.password", 0o600},
		{"admin.token", storeDir + "/admin.token", 0o600},
	} {
		if _, err := os.Stat(f.to); err == nil {
			continue
		}
		body, err := os.ReadFile(filepath.Join(configDir, f.from))
		if errors.Is(err, fs.ErrNotExist) && f.to == configFile {
			body, err = []byte(defaultConfig), nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = writeFile(f.to, body, f.mode)
		}
		if err != nil {
			return fmt.Errorf("take %s: %w", f.from, err)
		}
		b.log.Info("took setting", "file", f.from)
	}
	return handOver()
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
