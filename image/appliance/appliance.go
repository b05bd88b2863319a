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
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
	// Patience is how long a system on trial has to show that it works, not
	// counting the check of the data; default 4 minutes.
	Patience time.Duration
}

// Boot is what the boot loader said of this start.
type Boot struct {
	Slot   image.Slot // what runs
	Trial  image.Slot // what has still to show that it works; empty: none
	Left   string     // its remaining starts; "none": it used them all up
	Broken image.Slot // a slot that could not be loaded
	ESP    image.GUID // the partition that the boot loader was loaded from; zero: it did not say
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
		case key == "cistern.boot":
			b.ESP, _ = image.ParseGUID(value) // one that is none is not said
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
	ReadyIn  float64       `json:"ready_in,omitempty"` // seconds from the kernel's start until it worked
	Address  []string      `json:"addresses"`
	Restarts int           `json:"restarts"`            // of the daemon since the start
	TimeFrom string        `json:"time_from,omitempty"` // the server that the clock was set by; empty: none has answered yet
	Last     *Outcome      `json:"last,omitempty"`      // what became of the last update
	Took     []string      `json:"took,omitempty"`      // settings that this start took from the CONFIG partition

	HostKey      string `json:"host_key,omitempty"`      // fingerprint, while SSH is answered
	Firmware     string `json:"firmware"`                // BIOS, UEFI, or UEFI, Secure Boot
	MemAvailable int64  `json:"mem_available,omitempty"` // bytes
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
	updates following
	started time.Time
	reboot  chan string // why
	state   string      // the Box's folder on the data partition

	// What touches the disk, so that tests need none.
	device func(partition int) string
	setEnv func(image.GrubEnv) error

	// editing is held while who may come in by SSH is changed.
	editing sync.Mutex

	// updating is held by the one update that goes on.
	updating sync.Mutex

	mounted  atomic.Bool  // the data or what stands in is there, and disk, device and updates are set
	checking atomic.Bool  // the file system of the data is being checked
	judged   atomic.Int64 // when the health was last judged, in nanoseconds since started: the clock may be set meanwhile

	// mu guards what follows.
	mu       sync.Mutex
	boots    uint64
	healthy  bool
	waiting  string
	absent   string // what there is instead of the data; empty: they are there
	readyIn  float64
	hostKey  string // fingerprint; empty: there is none yet
	sshOpen  bool
	stages   string // of the start, each with its seconds since the kernel's
	timeFrom string
	firmware string
	restarts int
	last     *Outcome
	took     []string
}

// New builds a Box out of what the image says of itself; it touches no device.
func New(cfg Config, log *slog.Logger, ring *Ring) (*Box, error) {
	if cfg.Health == "" {
		cfg.Health = "127.0.0.1:3142"
	}
	if cfg.Patience == 0 {
		cfg.Patience = 4 * time.Minute
	}
	b := &Box{cfg: cfg, log: log, ring: ring, started: time.Now(), reboot: make(chan string, 1), waiting: "the disk", absent: "the disk", state: stateDir}
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

// Off is the reason that Run gives when the machine is to be turned off.
const Off = "power off"

// Run brings the system up and keeps it running until ctx is done or a reboot is
// asked for; it gives the reason. A system that cannot use its data goes on
// without, says so on its screen and in the panel, and does not pass its trial.
func (b *Box) Run(ctx context.Context) (reason string, err error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("read the command line: %w", err)
	}
	b.boot = parseBoot(string(line))
	b.reached("init")
	b.log.Info("started system", "version", b.release.Version, "slot", b.boot.Slot, "trial", b.boot.OnTrial())
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	b.judged.Store(int64(time.Since(b.started)))
	parts.Go(func() { b.modules.watch(ctx) })
	parts.Go(func() { openWatchdog(ctx, b.modules, b.log).run(ctx, b.alive) })
	parts.Go(func() { b.screen(ctx) })
	parts.Go(func() { b.judge(ctx) })

	err = b.openDisk(ctx)
	switch {
	case ctx.Err() != nil:
		return "asked to stop", nil
	case err == nil:
		b.lack("")
	default:
		err = b.standIn(err)
	}
	if err != nil {
		b.log.Error("failed to do without the data", "err", err)
	} else {
		for _, part := range b.settleIn() {
			parts.Go(func() { part(ctx) })
		}
	}
	select {
	case <-ctx.Done():
		return "asked to stop", nil
	case reason := <-b.reboot:
		b.log.Info("rebooting", "reason", reason)
		return reason, nil
	}
}

// settleIn takes what people left on the CONFIG partition, finds out about the
// last update, and gives what is to run.
func (b *Box) settleIn() []func(context.Context) {
	b.seed()
	if err := b.adopt(); err != nil {
		b.log.Error("failed to hand the data over to the daemon", "err", err)
	}
	b.settle()
	started := firmware(b.modules)
	b.mu.Lock()
	b.firmware = started
	b.mu.Unlock()
	if b.absence() == "" {
		b.stage("data mounted")
	}
	b.mounted.Store(true)
	return b.services()
}

// services are what runs once the data is there. Settings with a fault are left
// out, and said.
func (b *Box) services() []func(context.Context) {
	settings, err := readSettings[networkSettings](networkFile)
	if err != nil {
		b.log.Error("failed to read network.toml, so DHCP is asked", "err", err)
	}
	name := cmp.Or(settings.Name, defaultName)
	if err := setHostname(name); err != nil {
		b.log.Error("failed to set the name", "err", err)
	}
	updates, err := readSettings[updateSettings](updateFile)
	if err != nil {
		b.log.Error("failed to read update.toml, so no channel is looked at", "err", err)
	}
	b.updates.set(updates)
	return []func(context.Context){
		func(ctx context.Context) { b.net.run(ctx, settings) },
		b.supervise,
		b.serve,
		b.console,
		b.ssh,
		b.followChannel,
		b.watchSticks,
		func(ctx context.Context) { b.keepTime(ctx, settings.NTP) },
		func(ctx context.Context) { b.announce(ctx, name) },
		func(ctx context.Context) { b.syslog(ctx, settings.Syslog) },
	}
}

// restartSoon lets the answer to whoever asked go first.
func (b *Box) restartSoon(reason string) {
	time.AfterFunc(2*time.Second, func() { b.restart(reason) })
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

func (b *Box) absence() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.absent
}

// State is a snapshot.
func (b *Box) State() State {
	addresses := b.net.addresses()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := State{
		Release: b.release, Slot: b.boot.Slot, OnTrial: b.boot.OnTrial(), Healthy: b.healthy, Waiting: b.waiting,
		Boots: b.boots, Started: time.Now().Add(-time.Since(b.started)), ReadyIn: b.readyIn, Address: addresses, Restarts: b.restarts,
		Firmware: b.firmware, MemAvailable: meminfo("MemAvailable"), TimeFrom: b.timeFrom, Took: b.took,
	}
	if b.sshOpen {
		s.HostKey = b.hostKey
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

// writeFile puts a file in place whole or not at all, where it outlives a power
// cut.
func writeFile(file string, body []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file+".new"))
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
