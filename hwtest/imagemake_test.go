package hwtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// applianceToken is on the CONFIG partition of the images that are started here.
const applianceToken = "a-token-that-only-this-test-knows"

// applianceConfig is the configuration there.
const applianceConfig = `version = 1
[proxy]
listen = ":3142"
allow_destinations = ["10.0.2.0/24"]
[admin]
listen = ":80"
[multicast]
interfaces = []
`

// foundry makes images and update files, all with one key. What it made stays
// for the next part of make soak as long as the programs in it are the same.
type foundry struct {
	arch, dir, init, daemon string
	more                    string // further programs, each ";PATH=FILE"
}

// newFoundry makes images of amd64.
func newFoundry(t *testing.T) *foundry {
	t.Helper()
	tools(t, "qemu-system-x86_64")
	return foundryOf(t, "amd64")
}

func foundryOf(t *testing.T, arch string) *foundry {
	t.Helper()
	programs, err := filepath.Abs(filepath.Join(bin, "appliance", arch))
	if err != nil {
		t.Fatal(err)
	}
	f := &foundry{arch: arch, init: filepath.Join(programs, "cistern-init"), daemon: filepath.Join(programs, "cisternd")}
	compile(t, arch, f.init, "../cmd/cistern-init")
	compile(t, arch, f.daemon, "../cmd/cisternd")
	sum := sha256.New()
	for _, name := range []string{f.init, f.daemon, filepath.Join(bin, "mkimage"), f.lock(), "testdata/init/hang.go", "testdata/init/deaf.go", "testdata/init/panic.go"} {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("what goes into the image is not built (make build): %v", err)
		}
		fmt.Fprintln(sum, len(body))
		_, _ = sum.Write(body)
	}
	all, err := filepath.Abs(filepath.Join(bin, "images", arch))
	if err != nil {
		t.Fatal(err)
	}
	f.dir = filepath.Join(all, hex.EncodeToString(sum.Sum(nil)[:8]))
	old, err := os.ReadDir(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range old {
		if e.Name() != filepath.Base(f.dir) {
			if err := os.RemoveAll(filepath.Join(all, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f.settings(t)
	return f
}

// settings writes what goes on the CONFIG partition.
func (f *foundry) settings(t *testing.T) {
	t.Helper()
	for name, body := range map[string]string{"cistern.toml": applianceConfig, "token": applianceToken} {
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// compile builds a program as make image does, without what debuggers want; one
// that is up to date is left as it is.
func compile(t *testing.T, arch, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
}

// lock is the list of packages that belongs to the tree.
func (f *foundry) lock() string { return "../image/packages-" + f.arch + ".json" }

// base is the image of release 1.0, serial 100.
func (f *foundry) base(t *testing.T) string {
	t.Helper()
	return f.make(t, "1.0", 100, "", "key") + ".img"
}

// good is the update to release 1.2, serial 102.
func (f *foundry) good(t *testing.T) string {
	t.Helper()
	return f.make(t, "1.2", 102, "", "key") + ".update"
}

// broken is an update to a release, serial 101, with an init of testdata/init.
func (f *foundry) broken(t *testing.T, kind string) string {
	t.Helper()
	return f.make(t, "1.1-"+kind, 101, kind, "key") + ".update"
}

// make makes a raw image and an update file and gives their name without its
// end. Packages that the archive has no longer are replaced by what it has now.
func (f *foundry) make(t *testing.T, version string, serial int, kind, key string) string {
	t.Helper()
	machine := map[string]string{"amd64": "generic-x86-64", "arm64": "generic-aarch64"}[f.arch]
	stem := filepath.Join(f.dir, "cistern_"+machine+"-"+version)
	if _, err := os.Stat(stem + ".done"); err == nil {
		return stem
	}
	init, programs := f.init, []string{"--program", "bin/cisternd=" + f.daemon + f.more}
	if kind != "" {
		programs = nil // no broken release comes so far as to need the daemon
		init = filepath.Join(t.TempDir(), kind)
		compile(t, f.arch, init, filepath.Join("testdata", "init", kind+".go"))
	}
	lock, fresh := f.lock(), filepath.Join(f.dir, "lock.json")
	if _, err := os.Stat(fresh); err == nil {
		lock = fresh
	}
	build := func(lock string) ([]byte, error) {
		args := append([]string{
			"build", "--raw", "--arch", f.arch, "--lock", lock, "--version", version, "--serial", fmt.Sprint(serial),
			"--key", filepath.Join(f.dir, key), "--init", init, "--out", f.dir,
			"--setting", "cistern.toml=" + filepath.Join(f.dir, "cistern.toml") + ";admin.token=" + filepath.Join(f.dir, "token"),
		}, programs...)
		return exec.Command(filepath.Join(bin, "mkimage"), args...).CombinedOutput()
	}
	text, err := build(lock)
	if err != nil && strings.Contains(string(text), "image-lock") {
		t.Logf("the archive has not all that the lock pins; made a throw-away lock:\n%s", text)
		if text, err = exec.Command(filepath.Join(bin, "mkimage"), "lock", "--arch", f.arch, "--lock", fresh).CombinedOutput(); err == nil {
			text, err = build(fresh)
		}
	}
	if err == nil {
		err = os.WriteFile(stem+".done", nil, 0o600)
	}
	if err != nil {
		t.Fatalf("mkimage: %v\n%s", err, text)
	}
	return stem
}
