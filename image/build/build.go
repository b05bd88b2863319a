// Package build makes the flashable image and the update file of the appliance
// out of Debian's signed kernel and boot loaders and our own programs.
//
// It needs no root, no loop device and no container: every file system but the
// empty ext4 is written by itself. The same lock, programs and date give the
// same bytes. It fetches nothing that the lock does not name by hash. Start
// reading at [Build].
package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"

	"github.com/cistern-edge/cistern/image"
)

// Config is what an image is made of. Every field is needed but Settings.
type Config struct {
	Arch     string // amd64, arm64
	Version  string // letters, digits, dots, dashes
	Date     time.Time
	Serial   uint64            // of the release; grows
	Packages map[string]string // file of each package of Lock
	Lock     Lock
	Programs map[string]string // file of each program, by its path in the image without a leading slash; "init" is PID 1
	Key      minisign.PrivateKey
	Settings map[string][]byte // files for the CONFIG partition
	Out      string            // folder for what is made
	Raw      bool              // leave the image as it is written to a disk, and make nothing beside it but the update
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if loaders[c.Arch] == nil {
		faults = append(faults, fmt.Errorf("arch: %q is neither amd64 nor arm64", c.Arch))
	}
	if c.Version == "" || strings.ContainsFunc(c.Version, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '.' && r != '-' && r != '+'
	}) {
		faults = append(faults, fmt.Errorf("version: %q is not made of letters, digits, dots and dashes", c.Version))
	}
	if c.Lock.Arch != c.Arch {
		faults = append(faults, fmt.Errorf("lock: it is for %q", c.Lock.Arch))
	}
	if c.Date.Year() < 1980 || c.Serial == 0 {
		faults = append(faults, errors.New("date, serial: not set"))
	}
	if c.Programs["init"] == "" {
		faults = append(faults, errors.New("programs: no init"))
	}
	return errors.Join(faults...)
}

// Build makes everything that a release of one architecture consists of and
// gives the names of the files in cfg.Out.
func Build(ctx context.Context, cfg Config, log *slog.Logger) ([]string, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	start := time.Now()
	packages, err := cfg.unpackAll(ctx)
	if err != nil {
		return nil, err
	}
	log.Info("unpacked packages", "took", time.Since(start))
	data, err := emptyData(ctx, cfg.Date)
	if err != nil {
		return nil, err
	}
	slot, err := cfg.slot(packages, data)
	if err != nil {
		return nil, err
	}
	log.Info("made slot", "bytes", len(slot), "took", time.Since(start))
	if err := os.MkdirAll(cfg.Out, 0o755); err != nil {
		return nil, fmt.Errorf("build the image: %w", err)
	}
	r := release{Config: cfg}
	if err := r.update(slot); err != nil {
		return nil, err
	}
	raw := filepath.Join(cfg.Out, r.stem()+".img")
	if err := cfg.disk(ctx, raw, packages, slot, data); err != nil {
		return nil, err
	}
	if cfg.Raw {
		return append(r.files, filepath.Base(raw)), nil
	}
	defer os.Remove(raw)
	if err := r.image(ctx, raw); err != nil {
		return nil, err
	}
	if err := r.papers(packages); err != nil {
		return nil, err
	}
	log.Info("built image", "took", time.Since(start))
	return r.files, nil
}

// unpackAll gives the files of all packages that an image may take.
func (c Config) unpackAll(ctx context.Context) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, p := range c.Lock.Packages {
		got, err := unpack(ctx, c.Packages[p.Name], func(name string) bool {
			return loader(c.Arch, name) != "" || strings.HasPrefix(name, "boot/vmlinuz-") || strings.Contains(name, ".ko") ||
				name == "usr/sbin/e2fsck.static" || strings.HasPrefix(name, "usr/share/ca-certificates/") ||
				strings.HasSuffix(name, "/copyright")
		})
		if err != nil {
			return nil, err
		}
		for name, body := range got {
			files[name] = body
		}
	}
	return files, nil
}

// slot makes the FAT volume of a slot.
func (c Config) slot(packages map[string][]byte, data []byte) ([]byte, error) {
	k, err := pickKernel(packages)
	if err != nil {
		return nil, err
	}
	t := tree{}
	for name, body := range k.modules {
		t.file(name, 0o644, body)
	}
	for name, from := range c.Programs {
		body, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("make the initial file system: %w", err)
		}
		t.file(name, 0o755, body)
	}
	public, err := c.Key.Public().(minisign.PublicKey).MarshalText()
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(k.index)
	if err != nil {
		return nil, err
	}
	about, err := json.Marshal(image.Release{Version: c.Version, Arch: c.Arch, Serial: c.Serial, Kernel: k.version})
	if err != nil {
		return nil, err
	}
	empty, err := squeeze(data, zstd.SpeedBestCompression)
	if err != nil {
		return nil, err
	}
	own := func(path string) string { return strings.TrimPrefix(path, "/") }
	t.file("sbin/e2fsck", 0o755, packages["usr/sbin/e2fsck.static"])
	t.file("etc/ssl/certs/ca-certificates.crt", 0o644, certificates(packages))
	t.file(own(image.KeyFile), 0o644, public)
	t.file(own(image.ModulesFile), 0o644, index)
	t.file(own(image.ReleaseFile), 0o644, about)
	t.file(own(image.DataImage), 0o644, empty)
	t.file("etc/passwd", 0o644, []byte("root:x:0:0::/:/\ncistern:x:100:100::/data:/\nssh:x:101:101::/tmp:/\n"))
	t.file("etc/group", 0o644, []byte("root:x:0:\ncistern:x:100:\nssh:x:101:\n"))
	t.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost cistern\n::1 localhost\n"))
	t.link("sbin/modprobe", "/init")
	if c.Programs["bin/cisternd"] != "" {
		t.link("bin/cistern", "/bin/cisternd") // one program by two names: less to load, and to keep in memory
	}
	t.link("etc/mtab", "/proc/mounts")
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "data", "boot/esp", "boot/config"} {
		t.dir(dir, 0o755)
	}
	var cpio bytes.Buffer
	if err := t.cpio(&cpio, c.Date); err != nil {
		return nil, err
	}
	initrd, err := squeeze(cpio.Bytes(), zstd.SpeedDefault) // the best takes six times as long for a tenth less
	if err != nil {
		return nil, err
	}
	return fat(image.SlotSize, "CISTERN", c.Date, map[string][]byte{image.KernelFile: k.image, image.InitrdFile: initrd})
}

// disk writes the raw image.
func (c Config) disk(ctx context.Context, raw string, packages map[string][]byte, slot, data []byte) error {
	f, err := os.Create(raw)
	if err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(image.DiskSize()); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	parts := image.Partitions()
	loader, err := esp(c.Arch, packages, c.Date)
	if err != nil {
		return err
	}
	settings := map[string][]byte{"README.TXT": configReadme}
	for name, body := range c.Settings {
		settings[name] = body
	}
	config, err := fat(parts[image.PartConfig-1].Size, "CONFIG", c.Date, settings)
	if err != nil {
		return err
	}
	writes := map[int64][]byte{
		parts[image.PartESP-1].Start: loader, parts[image.PartConfig-1].Start: config,
		parts[image.PartSlotA-1].Start: slot, parts[image.PartData-1].Start: data,
	}
	if c.Arch == "amd64" {
		boot, core, err := bios(ctx)
		if err != nil {
			return err
		}
		writes[0], writes[parts[image.PartBIOS-1].Start] = boot, core
	}
	for at, body := range writes {
		if err := writeSparse(f, body, at); err != nil {
			return fmt.Errorf("write the image: %w", err)
		}
	}
	table := image.Table{Disk: parts[0].ID, Partitions: parts}
	if c.Arch != "amd64" {
		table.Partitions = parts[:image.PartBIOS-1]
	}
	if err := table.Write(f, image.DiskSize()); err != nil {
		return err
	}
	return f.Close()
}

// writeSparse leaves out blocks of zeros: the file is new, and bmap counts what
// was written.
func writeSparse(f *os.File, body []byte, at int64) error {
	zeros := make([]byte, blockBytes)
	for len(body) > 0 {
		n := min(blockBytes, len(body))
		if !bytes.Equal(body[:n], zeros[:n]) {
			if _, err := f.WriteAt(body[:n], at); err != nil {
				return err
			}
		}
		body, at = body[n:], at+int64(n)
	}
	return nil
}

// squeeze compresses with one thread, so that it gives the same everywhere.
func squeeze(body []byte, level zstd.EncoderLevel) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return w.EncodeAll(body, nil), w.Close()
}

func sha256File(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func sha256Bytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
