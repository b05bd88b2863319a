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

// scan loads for every device that was not seen before, and for what such
// devices bring, until nothing new comes.
func (m *modules) scan() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for fresh := true; fresh; {
		fresh = false
		files, err := filepath.Glob("/sys/bus/*/devices/*/modalias")
		if err != nil {
			return
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			alias := strings.TrimSpace(string(text))
			if err != nil || alias == "" || m.seen[alias] {
				continue
			}
			m.seen[alias], fresh = true, true
			if err := m.load(alias); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
				m.log.Warn("failed to load a module", "alias", alias, "err", err)
			}
		}
	}
}
