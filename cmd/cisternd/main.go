// Command cisternd is the box. This file is the map of the program: it reads
// the configuration, builds every part, and runs them until the first fails or
// somebody asks it to stop.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"github.com/cistern-edge/cistern/admin"
	"github.com/cistern-edge/cistern/admin/cli"
	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/origin"
	"github.com/cistern-edge/cistern/cache/proxy"
	"github.com/cistern-edge/cistern/multicast"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/peering"
)

// version is what /api/v1/status says; releases set it by the linker.
var version = "dev"

type commandLine struct {
	Run   runCommand   `cmd:"" default:"withargs" help:"Run the box (the default)."`
	Check checkCommand `cmd:"" name:"check-config" help:"Say every fault of a configuration file at once."`
	Print printCommand `cmd:"" name:"print-config" help:"Print a configuration file with every key explained."`
}

type runCommand struct {
	Config string `help:"Configuration file (TOML)." type:"existingfile"`
	Data   string `help:"Data directory; stands above store.dir."`
	Proxy  string `help:"Address of the proxy; stands above proxy.listen."`
	Admin  string `help:"Address of the panel and the API; stands above admin.listen."`
}

type checkCommand struct {
	File string `arg:"" help:"Configuration file (TOML)."`
}

type printCommand struct {
	File string `arg:"" optional:"" help:"Configuration file whose values to take; without it, the defaults."`
}

// gcPercent trades processor time, of which serving needs little, for memory: the
// heap grows by so much between two collections (GOGC stands above it).
const gcPercent = 40

func main() {
	if filepath.Base(os.Args[0]) == "cistern" { // the image has both in one file
		os.Exit(cli.Main(version))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var line commandLine
	k := kong.Parse(&line, kong.Name("cisternd"), kong.Description("An edge cache for a LAN."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "cisternd:", err)
		os.Exit(1)
	}
}

// Run prints the faults of a file, or that there are none.
func (c *checkCommand) Run() error {
	if _, err := config.Load(c.File); err != nil {
		return err
	}
	fmt.Println(c.File, "is well.")
	return nil
}

// Run prints every key with its value and what it means.
func (c *printCommand) Run() error {
	cfg := config.Default()
	if c.File != "" {
		var err error
		if cfg, err = config.Load(c.File); err != nil {
			return err
		}
	}
	text, err := cfg.Encode()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

// Run builds the box and runs it.
func (c *runCommand) Run(ctx context.Context) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	log := newLog(cfg.Log)
	allow, err := destinations(cfg.Proxy.AllowDestinations)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Store.Dir, 0o700); err != nil {
		return advise(cfg.Store.Dir, fmt.Errorf("make the data directory: %w", err))
	}
	address := advertised(cfg.Proxy)

	// The only way out, and the store.
	dialer := &origin.Dialer{Allow: allow}
	uplink := origin.NewUplink(cfg.Origin.Offline, dialer, isLAN, log)
	mirrors, err := origin.NewMirrors(originConfig(cfg, uplink), log)
	if err != nil {
		return err
	}
	defer mirrors.Close()
	store, err := cache.Open(storeConfig(cfg.Store, os.Getenv("CISTERN_APPLIANCE")), log)
	if err != nil {
		return advise(cfg.Store.Dir, err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			log.Error("failed to close the store", "err", err)
		}
	}()

	// The swarm: a Source and an outlet.
	var swarm *peering.Swarm
	var torrents proxy.Torrents
	if cfg.Peering.Enabled {
		if swarm, err = peering.New(swarmConfig(cfg, address, mirrors), store, dialer.DialContext, log); err != nil {
			return err
		}
		torrents = torrentMaker{swarm}
	}

	// Multicast: the key, who is enrolled, what is on air, and the desk where
	// agents ask.
	key, err := announce.LoadOrCreate(filepath.Join(cfg.Store.Dir, "box.key"))
	if err != nil {
		return err
	}
	certificate, err := key.Certificate()
	if err != nil {
		return err
	}
	roster, err := multicast.OpenRoster(filepath.Join(cfg.Store.Dir, "agents.json"))
	if err != nil {
		return err
	}
	caster, err := multicast.NewCaster(casterConfig(cfg.Multicast), key, store, roster, log)
	if err != nil {
		return err
	}
	wants := &finder{}
	desk, err := multicast.NewDesk(deskConfig(cfg.Multicast), key, roster, store, wants, caster, log)
	if err != nil {
		return err
	}

	// The HTTP outlet, which also carries the desk.
	server, err := proxy.New(proxyConfig(cfg.Proxy, cfg.Store.Dir, uplink, desk, certificate), log, store, mirrors, torrents)
	if err != nil {
		return err
	}
	wants.server = server
	ways := repairs{server}
	if swarm != nil {
		ways = append(ways, swarm)
	}
	store.SetRepairer(ways)

	// Torrent clients of the LAN, led to the swarm.
	lan, err := newNeighbours(cfg, address, swarm, server, log)
	if err != nil {
		return err
	}

	panel, err := admin.New(adminConfig(cfg), log, admin.Parts{
		Objects: store, Fetcher: fetcher{server}, Swarms: swarmsOf(swarm), Casts: casts{caster, int64(cfg.Multicast.Rate)},
		Agents: agents{roster, key}, Requests: server, System: systemOf(os.Getenv("CISTERN_APPLIANCE")), Hardware: newHardware(cfg.Store, log),
		Uplink: uplinkOf(uplink, cfg.Origin.Offline), TorrentClients: lan.clients,
		Stats: map[string]func() any{
			"store": func() any { return store.Stats() }, "proxy": func() any { return server.Stats() },
			"origin": func() any { return mirrors.Stats() }, "multicast": func() any { return caster.Stats() },
			"desk": func() any { return desk.Stats() }, "peering": func() any { return statsOf(swarm) },
			"uplink":  func() any { return uplink.Stats() },
			"tracker": func() any { st, _ := lan.stats(); return st }, "steer": func() any { _, st := lan.stats(); return st },
		},
	})
	if err != nil {
		return err
	}

	// Everything above only builds. Everything below touches the machine.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return store.Run(ctx) })
	g.Go(func() error { return uplink.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return panel.Run(ctx) })
	g.Go(func() error { return caster.Run(ctx) })
	g.Go(func() error { return lan.Run(ctx) })
	if swarm != nil {
		g.Go(func() error { return swarm.Run(ctx) })
	}
	greet(cfg, address)
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// settings reads the configuration and lays the flags over it.
func (c *runCommand) settings() (cfg config.Config, err error) {
	cfg = config.Default()
	if c.Config != "" {
		if cfg, err = config.Load(c.Config); err != nil {
			return cfg, err
		}
	}
	cfg.Store.Dir = cmp.Or(c.Data, cfg.Store.Dir)
	cfg.Proxy.Listen = cmp.Or(c.Proxy, cfg.Proxy.Listen)
	cfg.Admin.Listen = cmp.Or(c.Admin, cfg.Admin.Listen)
	return cfg, cfg.Validate()
}

func newLog(cfg config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // checked with the configuration
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// greet prints what a newcomer pastes next.
func greet(cfg config.Config, address string) {
	fmt.Printf(`
Cistern keeps its data in %s. Next:
  curl -x http://%s -O http://deb.debian.org/debian/README     # twice: the second comes from the box
  curl -O http://%s/get/https/deb.debian.org/debian/README      # HTTPS, by explicit address
  open http://%s/                                              # the panel

`, cfg.Store.Dir, address, address, cfg.Admin.Listen)
}
