// Command cistern-agent is the box's counterpart on a PC or a home gateway: the
// same store and proxy, filled from multicast first and then from the box.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/proxy"
	"github.com/cistern-edge/cistern/multicast"
	"github.com/cistern-edge/cistern/multicast/announce"
)

type commandLine struct {
	Enrol enrolCommand `cmd:"" help:"Pin a box's key and enrol with it. The box's panel prints this line."`
	Run   runCommand   `cmd:"" default:"withargs" help:"Run the agent (the default)."`
}

type enrolCommand struct {
	Box  string `required:"" help:"The box's proxy, http://HOST:3142."`
	Key  string `required:"" help:"Fingerprint of the box's key."`
	Name string `help:"What the box shall call this agent; the host's name if not given."`
	Data string `default:"/var/lib/cistern-agent" help:"Data directory."`
}

type runCommand struct {
	Data      string `default:"/var/lib/cistern-agent" help:"Data directory."`
	Listen    string `default:"127.0.0.1:3142" help:"Address of the proxy for this host."`
	MaxBytes  int64  `default:"20000000000" help:"How many bytes of objects are kept."`
	Interface string `help:"Interface to receive casts on; the one that leads to the box if not given."`
	Verbose   bool   `help:"Say more of what is done."`
}

// gcPercent trades processor time, of which serving needs little, for memory: the
// heap grows by so much between two collections (GOGC stands above it).
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var line commandLine
	k := kong.Parse(&line, kong.Name("cistern-agent"), kong.Description("Fills from the box's casts and serves this host."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "cistern-agent:", err)
		os.Exit(1)
	}
}

// scrubPeriod is longer than a box's: the machine is somebody's, and what is
// damaged shows at the first read after a start.
const scrubPeriod = 60 * 24 * time.Hour

// enrolment is where an agent keeps what it got from its box.
func enrolment(data string) string { return filepath.Join(data, "enrolment.json") }

// Run enrols.
func (c *enrolCommand) Run(ctx context.Context) error {
	pin, err := announce.ParseFingerprint(c.Key)
	if err != nil {
		return fmt.Errorf("--key: %w", err)
	}
	if c.Name == "" {
		if c.Name, err = os.Hostname(); err != nil {
			return fmt.Errorf("find this host's name: %w", err)
		}
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	enrolled, err := multicast.Enrol(ctx, c.Box, pin, c.Name, enrolment(c.Data))
	if err != nil {
		return err
	}
	fmt.Printf("Enrolled with %s as %s (node %d). Next: cistern-agent run --data %s\n", enrolled.Box(), enrolled.Name(), enrolled.Node(), c.Data)
	return nil
}

// Run builds the agent and runs it.
func (c *runCommand) Run(ctx context.Context) error {
	level := slog.LevelWarn
	if c.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	line, err := multicast.OpenLine(enrolment(c.Data))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("not enrolled yet (%s is not there): paste the enrol line of the box's panel", enrolment(c.Data))
	}
	if err != nil {
		return err
	}
	store, err := cache.Open(cache.Config{Dir: filepath.Join(c.Data, "store"), MaxBytes: c.MaxBytes, Small: true, ScrubPeriod: scrubPeriod}, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := store.Close(); err != nil {
			log.Error("failed to close the store", "err", err)
		}
	}()

	// Multicast first, then the box.
	catcher, err := multicast.NewCatcher(multicast.CatcherConfig{Interface: c.Interface}, line, log)
	if err != nil {
		return err
	}
	box, err := newBox(line.Box(), log)
	if err != nil {
		return err
	}
	defer box.plain.Close()
	box.member = multicast.NewMember(line, catcher, box.source, log)

	server, err := proxy.New(proxy.Config{
		Listen: c.Listen, Name: "cistern-agent", Dial: box.dial, OpenObject: box.openObject, CompleteRanges: true, Dir: c.Data, Vouched: "the box at " + line.Box(),
	}, log, store, box, nil)
	if err != nil {
		return err
	}

	store.SetRepairer(repairs{box, server})

	// Everything above only builds. Everything below touches the machine.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return store.Run(ctx) })
	g.Go(func() error { return catcher.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	fmt.Printf("Serving this host on http://%s, from the box %s.\n", c.Listen, line.Box())
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
