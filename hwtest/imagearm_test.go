//go:build soak

package hwtest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestImageStartsOnARM: the arm64 image starts on a machine with UEFI, with
// Secure Boot, and with U-Boot, which stands for a Raspberry Pi: there no
// emulator has the board, but what comes after U-Boot is the same.
func TestImageStartsOnARM(t *testing.T) {
	for _, row := range []struct{ name, firmware, says string }{
		{"uefi", "", "UEFI"},
		{"secure", "secure", "UEFI, Secure Boot"},
		{"uboot", "uboot", "UEFI"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newMachine(t, pc{arch: "arm64", firmware: row.firmware}, foundryOf(t, "arm64").base(t), diskSize)
			m.starts(t, "arm64 "+row.name, row.says)
		})
	}
}

// nobody is an ordinary user: Debian's user of that name.
const nobody = 65534

// TestImageMake: an ordinary user makes the image of each architecture twice, the
// second time soon, and the same.
func TestImageMake(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			u := newUser(t)
			u.make(t, arch, "first")
			began := time.Now()
			spent := u.make(t, arch, "second")
			took := time.Since(began)
			figure(t, "make image ARCH="+arch+" as an ordinary user, warm cache", took.Seconds(), 180, "s")
			t.Logf("figure: make image ARCH=%s, processor time: %.1f s (measured)", arch, spent.Seconds())
			same(t, filepath.Join(u.home, "tree", "first"), filepath.Join(u.home, "tree", "second"))
			images, err := filepath.Glob(filepath.Join(u.home, "tree", "second", "*.img.xz"))
			if err != nil || len(images) != 1 {
				t.Fatalf("made %v, %v", images, err)
			}
			info, err := os.Stat(images[0])
			if err != nil {
				t.Fatal(err)
			}
			figure(t, "compressed image of "+arch, float64(info.Size())/(1<<20), 64, "MiB")
		})
	}
}

// user has a home with a copy of the tree and of what was fetched and compiled.
type user struct{ home string }

// newUser links the files of the caches and owns the folders alone, so that
// nothing is copied and nothing of them can be changed.
func newUser(t *testing.T) user {
	t.Helper()
	home, err := os.MkdirTemp("", "cistern-user-") // nobody may pass through it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shell(t, `find "$1" -type d -exec chmod u+w {} + && rm -rf "$1"`, home) })
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	shell(t, `set -e
		mkdir -p "$1/tree" "$1/.cache/cistern" "$1/go"
		git -C .. ls-files -coz --exclude-standard | tar -C .. --null --ignore-failed-read -T - -cf - | tar -C "$1/tree" -xf -
		link() { cp -al "$1" "$2" 2>/dev/null || cp -a "$1" "$2"; }
		link "$(go env GOMODCACHE)" "$1/go/mod"
		link "$(go env GOCACHE)" "$1/.cache/go-build"
		if [ -d "$2/cistern/packages" ]; then link "$2/cistern/packages" "$1/.cache/cistern/packages"; fi
		chmod 755 "$1"
		if [ "$(id -u)" = 0 ]; then chown -R 65534:65534 "$1/tree"; find "$1" -path "$1/go/mod" -prune -o -type d -exec chown 65534:65534 {} +; fi`, home, cache)
	return user{home}
}

// make runs make image as the user, and gives the processor time that it took.
func (u user) make(t *testing.T, arch, dist string) time.Duration {
	t.Helper()
	cmd := exec.Command("make", "image", "ARCH="+arch, "DIST="+dist, "VERSION=1.0", "KEY=update.key")
	cmd.Dir = filepath.Join(u.home, "tree")
	cmd.Env = []string{
		"HOME=" + u.home, "PATH=" + os.Getenv("PATH"), "SOURCE_DATE_EPOCH=1760000000", "GOMODCACHE=" + u.home + "/go/mod",
		"GOFLAGS=-buildvcs=false", "GOPROXY=off",
	}
	for _, name := range []string{"CISTERN_MIRROR", "CISTERN_SECURITY_MIRROR"} {
		if value := os.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, text)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// same compares all files of two folders.
func same(t *testing.T, one, other string) {
	t.Helper()
	names, err := os.ReadDir(one)
	if err != nil {
		t.Fatal(err)
	}
	differ := 0
	for _, e := range names {
		first, err := os.ReadFile(filepath.Join(one, e.Name()))
		second, err2 := os.ReadFile(filepath.Join(other, e.Name()))
		if err = errors.Join(err, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err != nil || !bytes.Equal(first, second) {
			differ++
			t.Errorf("%s: %d and %d bytes, which differ", e.Name(), len(first), len(second))
		}
	}
	t.Logf("figure: make image twice, files that differ: %d of %d (bound 0): %s", differ, len(names), verdict(differ == 0 && len(names) == 9))
}

// shell runs a script with arguments.
func shell(t *testing.T, script string, args ...string) {
	t.Helper()
	if text, err := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.TrimSpace(script), err, text)
	}
}
