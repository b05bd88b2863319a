// Command mkimage makes the flashable image of the appliance: `make image` and
// `make image-lock` call it. What it does is in image/build.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"aead.dev/minisign"
	"github.com/alecthomas/kong"

	"github.com/cistern-edge/cistern/image/build"
)

type commandLine struct {
	Build buildCommand `cmd:"" help:"Make image, update file and what goes beside them."`
	Lock  lockCommand  `cmd:"" help:"Pin the packages that the Debian archive has now."`
}

// source is where packages come from.
type source struct {
	Arch           string `help:"amd64 or arm64." enum:"amd64,arm64" default:"amd64"`
	Lock           string `help:"Lock file." required:""`
	Mirror         string `help:"Root of the Debian archive; without it, that of this machine's apt." env:"CISTERN_MIRROR"`
	SecurityMirror string `help:"Root of its security updates; likewise." env:"CISTERN_SECURITY_MIRROR"`
	Cache          string `help:"Folder in which fetched packages stay; without it, one in the user's cache."`
}

type buildCommand struct {
	source
	Version string            `help:"Version of the release." default:"dev"`
	Serial  uint64            `help:"Number of the release, which grows; without it, the date in seconds."`
	Init    string            `help:"Program that is PID 1." required:""`
	Program map[string]string `help:"Further programs, each PATH=FILE." mapsep:";"`
	Key     string            `help:"Private minisign key, without a password or with that of CISTERN_KEY_PASSWORD; made if it is not there." required:""`
	Setting map[string]string `help:"Files for the CONFIG partition, each NAME=FILE." mapsep:";"`
	Raw     bool              `help:"Make the raw image and the update file alone, for an emulator."`
	Out     string            `help:"Folder for what is made." default:"dist"`
}

type lockCommand struct{ source }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var line commandLine
	k := kong.Parse(&line, kong.Name("mkimage"), kong.Description("Makes the image of the appliance."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func (s *source) archive(ctx context.Context, log *slog.Logger) (build.Archive, error) {
	a := build.Archive{Cache: s.Cache, Log: log, Mirrors: map[string]string{"main": s.Mirror, "security": cmp.Or(s.SecurityMirror, s.Mirror)}}
	if a.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return a, fmt.Errorf("find a folder for packages: %w", err)
		}
		a.Cache = filepath.Join(dir, "cistern", "packages")
	}
	if s.Mirror != "" {
		return a, nil
	}
	roots, err := build.Configured(ctx)
	a.Mirrors = roots
	return a, err
}

// Run pins packages.
func (c *lockCommand) Run(ctx context.Context) error {
	a, err := c.archive(ctx, slog.Default())
	if err != nil {
		return err
	}
	lock, err := a.Resolve(ctx, c.Arch, time.Now())
	if err != nil {
		return err
	}
	return lock.Save(c.Lock)
}

// Run builds.
func (c *buildCommand) Run(ctx context.Context) error {
	log := slog.Default()
	date := time.Now().UTC().Truncate(time.Second)
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0).UTC()
	}
	lock, err := build.ReadLock(c.Lock)
	if err != nil {
		return err
	}
	a, err := c.archive(ctx, log)
	if err != nil {
		return err
	}
	packages, err := a.Fetch(ctx, lock)
	if err != nil {
		return err
	}
	key, err := loadKey(c.Key, log)
	if err != nil {
		return err
	}
	cfg := build.Config{
		Arch: c.Arch, Version: c.Version, Date: date, Serial: cmp.Or(c.Serial, uint64(date.Unix())),
		Packages: packages, Lock: lock, Programs: map[string]string{"init": c.Init}, Key: key, Settings: map[string][]byte{}, Out: c.Out, Raw: c.Raw,
	}
	for name, file := range c.Program {
		cfg.Programs[name] = file
	}
	for name, file := range c.Setting {
		if cfg.Settings[name], err = os.ReadFile(file); err != nil {
			return fmt.Errorf("read a setting: %w", err)
		}
	}
	files, err := build.Build(ctx, cfg, log)
	for _, name := range files {
		fmt.Println(filepath.Join(c.Out, name))
	}
	return err
}

// loadKey reads the key that signs releases. One that is made here is good for
// trying things out: a box trusts only the key whose public half it was built
// with.
func loadKey(file string, log *slog.Logger) (key minisign.PrivateKey, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err = minisign.GenerateKey(rand.Reader)
		if err != nil {
			return key, fmt.Errorf("make a key: %w", err)
		}
		if text, err = key.MarshalText(); err != nil {
			return key, fmt.Errorf("make a key: %w", err)
		}
		log.Warn("made a throw-away key to sign with", "file", file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return key, fmt.Errorf("make a key: %w", err)
		}
		return key, os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return key, fmt.Errorf("read the key: %w", err)
	}
	if minisign.IsEncrypted(text) {
		return minisign.DecryptKey(os.Getenv("CISTERN_KEY_PASSWORD"), text)
	}
	return key, key.UnmarshalText(text)
}
