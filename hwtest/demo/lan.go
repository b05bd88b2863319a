package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// lanCommand is `make demo`.
type lanCommand struct {
	Size     string  `default:"200MB" help:"Size of the HTTP file and of the torrent."`
	Bin      string  `default:"bin" help:"Where cisternd and cistern-agent are."`
	Agents   int     `default:"8" help:"Hosts with an agent."`
	Plain    int     `default:"3" help:"Hosts with nothing but curl."`
	Seeds    int     `default:"60" help:"Seeds of the torrent."`
	SeedRate int     `default:"300000" help:"Upload limit of a seed, bytes a second."`
	Loss     float64 `default:"0.02" help:"Share of frames that each agent's link loses."`
	Down     int     `default:"200" help:"Downlink, Mbit/s."`
	Up       int     `default:"100" help:"Uplink, Mbit/s."`
	Rate     string  `default:"100Mbit" help:"Rate of a cast."`
	Baseline bool    `default:"true" negatable:"" help:"Play it without the box first."`
	Keep     bool    `help:"Keep the directory with the logs."`
}

// errShort says that the demo ran and a figure did not hold.
var errShort = errors.New("a figure does not hold")

// Run plays release day twice and prints the table.
func (c *lanCommand) Run(ctx context.Context, log *slog.Logger) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("lan: making network namespaces needs root")
	}
	size, err := parseSize(c.Size)
	if err != nil {
		return err
	}
	say("building the stage: %d agents with %.0f %% loss, %d plain hosts, %d seeds, %s twice", c.Agents, 100*c.Loss, c.Plain, c.Seeds, c.Size)
	s, err := build(ctx, c, size, log)
	if s != nil {
		defer func() {
			if c.Keep {
				say("logs are in %s", s.dir)
				err = errors.Join(err, s.lab.Close())
				return
			}
			err = errors.Join(err, s.close())
		}()
	}
	if err != nil {
		return err
	}
	var without figures
	if c.Baseline {
		say("without the box: every host downloads both with curl and aria2")
		if without, err = s.measure(ctx, s.withoutBox); err != nil {
			return fmt.Errorf("without the box: %w", err)
		}
		say("without the box: last host done after %.1f s", without.took.Seconds())
	}
	box, err := s.startBox(ctx, c)
	if err != nil {
		return err
	}
	say("with the box: the same wishes at the same time")
	with, err := s.measureBox(ctx, box)
	if err != nil {
		return fmt.Errorf("with the box: %w", err)
	}
	say("with the box: last host done after %.1f s", with.took.Seconds())
	return report(s, without, with)
}

// say prints a line of progress.
func say(format string, args ...any) { fmt.Printf("demo: "+format+"\n", args...) }

// parseSize reads "200MB".
func parseSize(text string) (int64, error) {
	n, ok := strings.CutSuffix(text, "MB")
	mb, err := strconv.ParseInt(n, 10, 64)
	if !ok || err != nil || mb < 1 || mb > 10000 {
		return 0, fmt.Errorf("size %q: want a whole number of megabytes from 1MB to 10000MB", text)
	}
	return mb * 1e6, nil
}

// figures are what one performance cost.
type figures struct {
	took                 time.Duration
	httpBody, httpLink   int64
	pieceBody, swarmLink int64
	peakPeers            int
	agentsBytes          int64 // link bytes of the box towards its agents
	casts                map[string]int64
}

// measure runs a performance and reads every counter before and after.
func (s *stage) measure(ctx context.Context, play func(context.Context) error) (figures, error) {
	before, err := s.read(ctx)
	if err != nil {
		return figures{}, err
	}
	start := time.Now()
	if err := play(ctx); err != nil {
		return figures{}, err
	}
	took := time.Since(start)
	after, err := s.read(ctx)
	if err != nil {
		return figures{}, err
	}
	return figures{
		took:     took,
		httpBody: after.httpBody - before.httpBody, httpLink: after.httpLink - before.httpLink,
		pieceBody: after.pieceBody - before.pieceBody, swarmLink: after.swarmLink - before.swarmLink,
		agentsBytes: after.agentsBytes - before.agentsBytes,
	}, nil
}

// read takes a reading of every counter.
func (s *stage) read(ctx context.Context) (f figures, err error) {
	f.httpBody = s.origin.Body()
	if f.pieceBody, err = s.seeds.Uploaded(ctx); err != nil {
		return f, err
	}
	for counter, into := range map[*lab.IPCounter]*int64{s.counters.http: &f.httpLink, s.counters.swarm: &f.swarmLink} {
		n, err := counter.Read()
		if err != nil {
			return f, err
		}
		*into = int64(n.Bytes)
	}
	all, err := s.boxLAN.Counters()
	if err != nil {
		return f, err
	}
	f.agentsBytes = int64(all.FromHost.Bytes)
	for _, c := range s.counters.boxOthers {
		n, err := c.Read()
		if err != nil {
			return f, err
		}
		const ethernetHeader = 14
		f.agentsBytes -= int64(n.Bytes + ethernetHeader*n.Packets)
	}
	return f, nil
}

// withoutBox is the LAN as it is everywhere: each host for itself.
func (s *stage) withoutBox(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range s.hosts() {
		g.Go(func() error { return s.curl(ctx, h, "", s.fileURL, s.fileSum) })
		g.Go(func() error {
			dir := filepath.Join(s.dir, "without", h.Name())
			if err := actors.FetchTorrent(ctx, h, s.torrent.V1.Path, dir); err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			sum, err := actors.Digest(filepath.Join(dir, s.torrent.Name))
			return agrees(h, s.torrent.Name, sum, s.torrent.Sum, err)
		})
	}
	return g.Wait()
}

// curl fetches a URL on a host and compares the digest.
func (s *stage) curl(ctx context.Context, h *lab.Host, proxy, url, want string) error {
	sum, err := actors.Curl(ctx, h, proxy, url)
	return agrees(h, url, sum, want, err)
}

func agrees(h *lab.Host, what, got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("%s on %s: SHA-256 is %s, want %s", what, h.Name(), got, want)
	}
	return err
}
