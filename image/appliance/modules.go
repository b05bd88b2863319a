package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image"
)

// modules loads kernel modules for what the machine has.
type modules struct {
	index image.Modules
	log   *slog.Logger

	// mu guards what follows.
	mu   sync.Mutex
	seen map[string]bool // aliases that were asked for
}

func openModules(log *slog.Logger) (*modules, error) {
	m := &modules{log: log, seen: map[string]bool{}}
	if err := readJSON(image.ModulesFile, &m.index); err != nil {
		return nil, fmt.Errorf("read the index of modules: %w", err)
	}
	return m, nil
}

// load loads what serves a name or an alias. Nothing that serves it is no error.
func (m *modules) load(alias string) error {
	order, err := m.index.Order(alias)
	if err != nil {
		return err
	}
	for _, name := range order {
		if err := insert(m.index.Files[name]); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// fileSystems loads what the disk's partitions need, with what ext4 would else
// ask /sbin/modprobe for.
func (m *modules) fileSystems() error {
	for _, name := range []string{"crc32c_generic", "ext4", "vfat", "nls_cp437", "nls_ascii"} {
		if err := m.load(name); err != nil {
			return err
		}
	}
	return nil
}

// Modprobe is what the kernel calls when it wants a module: the arguments of
// /sbin/modprobe.
func Modprobe(args []string) error {
	m, err := openModules(slog.Default())
	if err != nil {
		return err
	}
	var faults []error
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			faults = append(faults, m.load(arg))
		}
	}
	return errors.Join(faults...)
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// watch loads modules for devices as they come, by looking: often while the
// machine starts, seldom later.
func (m *modules) watch(ctx context.Context) {
	for pause := 50 * time.Millisecond; ; pause = min(pause*5/4, 3*time.Second) {
		m.scan()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// atOnce is how many modules are loaded at a time: most of it is waiting for
// devices.
const atOnce = 4

// scan loads for every device that was not seen before, and for what such
// devices bring, until nothing new comes.
func (m *modules) scan() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for fresh := m.fresh(); len(fresh) > 0; fresh = m.fresh() {
		var loads sync.WaitGroup
		room := make(chan struct{}, atOnce)
		for _, alias := range fresh {
			room <- struct{}{}
			loads.Go(func() {
				defer func() { <-room }()
				if err := m.load(alias); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
					m.log.Warn("failed to load a module", "alias", alias, "err", err)
				}
			})
		}
		loads.Wait()
	}
}

// fresh are the devices' aliases that were not seen before. m.mu is held.
func (m *modules) fresh() (aliases []string) {
	files, err := filepath.Glob("/sys/bus/*/devices/*/modalias")
	if err != nil {
		return nil
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		alias := strings.TrimSpace(string(text))
		if err == nil && alias != "" && !m.seen[alias] {
			m.seen[alias] = true
			aliases = append(aliases, alias)
		}
	}
	return aliases
}
