package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Lock pins the Debian packages that an image is made of.
type Lock struct {
	Suite    string    `json:"suite"`
	Arch     string    `json:"arch"`
	Date     time.Time `json:"date"` // of the refresh
	Packages []Package `json:"packages"`
}

// Package is one Debian package. Path begins at the root of its archive, which
// is "main" or "security".
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"` // name and version of the source package
	Archive string `json:"archive"`
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	SHA256  string `json:"sha256"`
}

// suite is the Debian release whose signed kernel and loaders are taken.
const suite = "trixie"

// wanted are the packages of an image. The kernel's is what the first depends
// on: its name holds its version.
func wanted(arch string) []string {
	if arch == "arm64" {
		return []string{"linux-image-arm64", "grub-efi-arm64-signed", "shim-signed", "e2fsck-static", "ca-certificates", "raspi-firmware", "u-boot-rpi"}
	}
	return []string{"linux-image-amd64", "grub-efi-amd64-signed", "shim-signed", "e2fsck-static", "ca-certificates"}
}

// ReadLock reads a lock file.
func ReadLock(file string) (l Lock, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return l, fmt.Errorf("read the lock: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, fmt.Errorf("read the lock %s: %w", file, err)
	}
	for _, p := range l.Packages {
		if p.Path != filepath.Clean(p.Path) || strings.HasPrefix(p.Path, "/") || strings.Contains(p.Path, "..") || len(p.SHA256) != 64 {
			return l, fmt.Errorf("read the lock %s: %s has no path or hash", file, p.Name)
		}
	}
	return l, nil
}

// Save writes a lock file.
func (l Lock) Save(file string) error {
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("save the lock: %w", err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("save the lock: %w", err)
	}
	return nil
}

// Archive fetches from the Debian archive with apt's own programs. No address is
// built in: Mirrors come from whoever calls, or from the sources that this
// machine's apt is configured with.
type Archive struct {
	Cache   string            // where packages are kept, by their hash
	Mirrors map[string]string // "main" and "security": roots of the archives
	Log     *slog.Logger
}

// ErrVanished says that the archive no longer has a package that the lock names.
var ErrVanished = errors.New("the archive does not have it (any more): make image-lock pins what it has now")

// Configured gives the roots of the archives that apt on this machine uses.
func Configured(ctx context.Context) (map[string]string, error) {
	out, err := run(ctx, "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	roots := map[string]string{}
	for line := range strings.Lines(string(out)) {
		label, uri, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch label {
		case "Debian":
			roots["main"] = uri
		case "Debian-Security":
			roots["security"] = uri
		}
	}
	if roots["main"] == "" || roots["security"] == "" {
		return nil, errors.New("apt on this machine has no Debian archive with its security updates: name both with --mirror and --security-mirror")
	}
	return roots, nil
}

// Fetch gives the file of each package by its name, proved, from the cache or
// the archive.
func (a Archive) Fetch(ctx context.Context, l Lock) (map[string]string, error) {
	if err := os.MkdirAll(a.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("fetch packages: %w", err)
	}
	files := map[string]string{}
	for _, p := range l.Packages {
		file := filepath.Join(a.Cache, p.SHA256+".deb")
		files[p.Name] = file
		if sum, err := sha256File(file); err == nil && sum == p.SHA256 {
			continue
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("fetch %s: %w", p.Name, err)
		}
		if a.Mirrors[p.Archive] == "" {
			return nil, fmt.Errorf("fetch %s: no mirror is known of the archive %q", p.Name, p.Archive)
		}
		uri := strings.TrimSuffix(a.Mirrors[p.Archive], "/") + "/" + p.Path
		if _, err := run(ctx, "/usr/lib/apt/apt-helper", "-o", "APT::Sandbox::User=", "download-file", uri, file+".part", "SHA256:"+p.SHA256); err != nil {
			return nil, fmt.Errorf("fetch %s %s: %w: %w", p.Name, p.Version, ErrVanished, err)
		}
		if sum, err := sha256File(file + ".part"); err != nil || sum != p.SHA256 {
			return nil, fmt.Errorf("fetch %s: its hash is %s, %w", p.Name, sum, errors.Join(ErrVanished, err))
		}
		if err := os.Rename(file+".part", file); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", p.Name, err)
		}
		a.Log.Info("fetched package", "package", p.Name, "version", p.Version)
	}
	return files, nil
}

// Resolve makes a lock of what the archive has now: apt reads and proves its
// indexes, in a private folder.
func (a Archive) Resolve(ctx context.Context, arch string, now time.Time) (Lock, error) {
	l := Lock{Suite: suite, Arch: arch, Date: now.UTC().Truncate(time.Second)}
	root, err := os.MkdirTemp("", "cistern-apt-")
	if err != nil {
		return l, fmt.Errorf("resolve packages: %w", err)
	}
	defer os.RemoveAll(root)
	options, err := a.aptRoot(root, arch)
	if err != nil {
		return l, fmt.Errorf("resolve packages: %w", err)
	}
	apt := func(program string, args ...string) ([]byte, error) {
		return run(ctx, program, append(append([]string{}, options...), args...)...)
	}
	if _, err := apt("apt-get", "update"); err != nil {
		return l, fmt.Errorf("resolve packages: %w", err)
	}
	for i, name := range wanted(arch) {
		if i == 0 {
			if name, err = firstDependency(apt, name); err != nil {
				return l, err
			}
		}
		p, err := a.locate(apt, name)
		if err != nil {
			return l, err
		}
		l.Packages = append(l.Packages, p)
	}
	return l, nil
}

// aptRoot makes a folder in which apt knows nothing but the archives.
func (a Archive) aptRoot(root, arch string) ([]string, error) {
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	sources := ""
	for _, line := range []struct{ archive, suite string }{{"main", suite}, {"main", suite + "-updates"}, {"security", suite + "-security"}} {
		sources += fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main non-free-firmware\n", arch, keyring, a.Mirrors[line.archive], line.suite)
	}
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "sources.list"), []byte(sources), 0o644); err != nil {
		return nil, err
	}
	var options []string
	for _, o := range []string{
		"Dir::State=" + root, "Dir::State::Lists=" + root + "/lists", "Dir::Cache=" + root + "/cache", "Dir::State::status=/dev/null",
		"Dir::Etc::SourceList=" + root + "/sources.list", "Dir::Etc::SourceParts=-", "Dir::Etc::Preferences=-", "Dir::Etc::PreferencesParts=-",
		"APT::Architecture=" + arch, "APT::Architectures=" + arch, "APT::Sandbox::User=", "Acquire::Languages=none",
		"APT::Update::Post-Invoke::=", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	} {
		options = append(options, "-o", o)
	}
	return options, nil
}

type aptProgram func(program string, args ...string) ([]byte, error)

// firstDependency is the package of the newest kernel.
func firstDependency(apt aptProgram, name string) (string, error) {
	out, err := apt("apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", name, err)
	}
	depends, _, _ := strings.Cut(field(out, "Depends"), " ")
	if depends == "" {
		return "", fmt.Errorf("resolve %s: it depends on nothing", name)
	}
	return strings.TrimSuffix(depends, ","), nil
}

// locate finds where a package lies and what it is made from.
func (a Archive) locate(apt aptProgram, name string) (Package, error) {
	uris, err := apt("apt-get", "download", "--print-uris", name)
	if err != nil {
		return Package{}, fmt.Errorf("resolve %s: %w", name, err)
	}
	shown, err := apt("apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return Package{}, fmt.Errorf("resolve %s: %w", name, err)
	}
	words := strings.Fields(string(uris))
	p := Package{Name: name, Version: field(shown, "Version"), SHA256: field(shown, "SHA256"), Path: field(shown, "Filename")}
	if p.Size, err = strconv.ParseInt(field(shown, "Size"), 10, 64); err != nil || len(words) < 3 {
		return p, fmt.Errorf("resolve %s: apt says %q", name, uris)
	}
	uri := strings.Trim(words[0], "'")
	for _, archive := range []string{"main", "security"} {
		if root := strings.TrimSuffix(a.Mirrors[archive], "/") + "/pool/"; strings.HasPrefix(uri, root) {
			p.Archive = archive
			p.Path = "pool/" + strings.TrimPrefix(uri, root)
		}
	}
	if p.Archive == "" {
		return p, fmt.Errorf("resolve %s: %s is in neither archive", name, uri)
	}
	source := strings.NewReplacer("(", "", ")", "").Replace(field(shown, "Source"))
	if source == "" {
		source = name
	}
	if !strings.Contains(source, " ") {
		source += " " + p.Version
	}
	p.Source = source
	return p, nil
}

// field reads one line of a control file.
func field(control []byte, name string) string {
	for line := range strings.Lines(string(control)) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// run runs a program of the machine and gives what it prints.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
