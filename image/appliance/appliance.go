// Package appliance is life inside the image: what PID 1 does, from the first
// mount to the last reboot, and how a system replaces itself.
//
// A box has two slots for a system and one place for data. What runs lies in
// memory; the only things written are the data partition, the slot that does not
// run, and during an update the boot loader's environment. It refuses an update
// that is not signed, not whole or not newer before it writes a byte of the
// slot, and it stays with a new system only when that has shown that it works.
// Start reading at [Box.Run].
package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"aead.dev/minisign"

	"github.com/cistern-edge/cistern/image"
)

// Where things are in a running system.
const (
	dataDir   = "/data"
	espDir    = "/boot/esp"
	configDir = "/boot/config"
	stateDir  = "/data/appliance"
	storeDir  = "/data/cistern"
	Socket    = "/run/cistern/appliance.sock" // of the Box's API
)

// Config says what a Box runs.
type Config struct {
	// Daemon is the program that is kept running.
	Daemon string
	// Health is where the daemon's proxy answers, host:port; default
	// 127.0.0.1:3142.
	Health string
	// Patience is how long a system on trial has to show that it works; default
	// 4 minutes.
	Patience time.Duration
}

// Boot is what the boot loader said of this start.
type Boot struct {
	Slot   image.Slot // what runs
	Trial  image.Slot // what has still to show that it works; empty: none
	Left   string     // its remaining starts; "none": it used them all up
	Broken image.Slot // a slot that could not be loaded
}

// OnTrial says whether the running system has still to show that it works.
func (b Boot) OnTrial() bool { return b.Trial == b.Slot && b.Left != "none" }

// parseBoot reads the kernel's command line.
func parseBoot(line string) Boot {
	b := Boot{Slot: image.SlotA}
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		slot := image.Slot(value)
		switch {
		case key == "cistern.slot" && slot.Valid():
			b.Slot = slot
		case key == "cistern.trial" && slot.Valid():
			b.Trial = slot
		case key == "cistern.left":
			b.Left = value
		case key == "cistern.broken" && slot.Valid():
			b.Broken = slot
		}
	}
	return b
}

// State is what a Box says of itself.
type State struct {
	Release  image.Release `json:"release"`
	Slot     image.Slot    `json:"slot"`
	OnTrial  bool          `json:"on_trial"` // the running system has still to show that it works
	Healthy  bool          `json:"healthy"`
	Waiting  string        `json:"waiting,omitempty"` // for what, while it is not healthy
	Boots    uint64        `json:"boots"`             // starts of this box, counted on its data
	Started  time.Time     `json:"started"`
	Address  []string      `json:"addresses"`
	Restarts int           `json:"restarts"`       // of the daemon since the start
	Last     *Outcome      `json:"last,omitempty"` // what became of the last update
}

// Outcome is what became of an update.
type Outcome struct {
	Version string    `json:"version"`
	Serial  uint64    `json:"serial"`
	Slot    string    `json:"slot"`
	State   string    `json:"state"` // trial, committed, refused, failed
	Reason  string    `json:"reason,omitempty"`
	Stage   string    `json:"stage,omitempty"` // how far it came while on trial
	Starts  int       `json:"starts"`
	Time    time.Time `json:"time"`
}

// Box is the running system. Its methods are safe for concurrent use.
type Box struct {
	cfg     Config
	log     *slog.Logger
	ring    *Ring
	boot    Boot
	release image.Release
	key     minisign.PublicKey
	modules *modules
	disk    disk
	net     network
	started time.Time
	reboot  chan string // why
	state   string      // the Box's folder on the data partition

	// What touches the disk, so that tests need none.
	device func(partition int) string
	setEnv func(image.GrubEnv) error

	// updating is held by the one update that goes on.
	updating sync.Mutex

	// mu guards what follows.
	mu       sync.Mutex
	boots    uint64
	healthy  bool
	waiting  string
	restarts int
	last     *Outcome
}

// New builds a Box out of what the image says of itself; it touches no device.
func New(cfg Config, log *slog.Logger, ring *Ring) (*Box, error) {
	if cfg.Health == "" {
		cfg.Health = "127.0.0.1:3142"
	}
	if cfg.Patience == 0 {
		cfg.Patience = 4 * time.Minute
	}
	b := &Box{cfg: cfg, log: log, ring: ring, started: time.Now(), reboot: make(chan string, 1), waiting: "the start", state: stateDir}
	b.setEnv = b.writeGrubEnv
	if err := readJSON(image.ReleaseFile, &b.release); err != nil {
		return nil, fmt.Errorf("read what runs: %w", err)
	}
	key, err := os.ReadFile(image.KeyFile)
	if err == nil {
		err = b.key.UnmarshalText(key)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of updates: %w", err)
	}
	if b.modules, err = openModules(log); err != nil {
		return nil, err
	}
	b.net = network{log: log}
	return b, nil
}

// Run brings the system up and keeps it running until ctx is done or a reboot is
// asked for; it gives the reason. A system that cannot find its data goes on
// without, says so on its screen, and does not pass its trial.
func (b *Box) Run(ctx context.Context) (reason string, err error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("read the command line: %w", err)
	}
	b.boot = parseBoot(string(line))
	b.log.Info("started system", "version", b.release.Version, "slot", b.boot.Slot, "trial", b.boot.OnTrial())
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	dog := openWatchdog(b.modules, b.log)
	parts.Go(func() { dog.run(ctx) })
	parts.Go(func() { b.modules.watch(ctx) })
	parts.Go(func() { b.screen(ctx) })

	b.wait("the disk")
	if err := b.openDisk(ctx); err != nil {
		b.log.Error("failed to open the data", "err", err)
		b.wait("the disk: " + err.Error())
	} else {
		b.settle()
		b.stage("data mounted")
		b.wait("the network")
		settings, fault := readNetwork()
		parts.Go(func() { b.net.run(ctx, settings, fault) })
		parts.Go(func() { b.supervise(ctx) })
		parts.Go(func() { b.serve(ctx) })
	}
	parts.Go(func() { b.judge(ctx) })
	select {
	case <-ctx.Done():
		return "asked to stop", nil
	case reason := <-b.reboot:
		b.log.Info("rebooting", "reason", reason)
		return reason, nil
	}
}

// restart asks Run to end; the first reason stands.
func (b *Box) restart(reason string) {
	select {
	case b.reboot <- reason:
	default:
	}
}

func (b *Box) wait(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting, b.healthy = what, what == ""
}

// State is a snapshot.
func (b *Box) State() State {
	addresses := b.net.addresses()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := State{
		Release: b.release, Slot: b.boot.Slot, OnTrial: b.boot.OnTrial(), Healthy: b.healthy, Waiting: b.waiting,
		Boots: b.boots, Started: b.started, Address: addresses, Restarts: b.restarts,
	}
	if b.last != nil {
		last := *b.last
		s.Last = &last
	}
	return s
}

func readJSON(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// writeFile puts a file in place whole or not at all.
func writeFile(file string, body []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file+".new"))
	}
	return os.Rename(file+".new", file)
}
