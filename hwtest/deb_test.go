package hwtest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// debs are the packages that make deb makes: what is in each, beside its folders.
var debs = []struct {
	name, unit string
	conffiles  string
	programs   []string
	files      []string
}{
	{
		name: "cistern", unit: "cisternd.service", conffiles: "/etc/cistern/cistern.toml\n",
		programs: []string{"./usr/bin/cistern", "./usr/bin/cisternd"},
		files: []string{
			"./etc/cistern/cistern.toml", "./usr/lib/systemd/system/cisternd.service", "./usr/lib/sysusers.d/cistern.conf",
			"./usr/share/doc/cistern/changelog.gz", "./usr/share/doc/cistern/copyright", "./usr/share/doc/cistern/licences.gz",
			"./usr/share/doc/cistern/examples/router.conf", "./usr/share/man/man1/cistern.1.gz", "./usr/share/man/man8/cisternd.8.gz",
		},
	},
	{
		name: "cistern-agent", unit: "cistern-agent.service", conffiles: "/etc/default/cistern-agent\n",
		programs: []string{"./usr/bin/cistern-agent"},
		files: []string{
			"./etc/default/cistern-agent", "./usr/lib/systemd/system/cistern-agent.service", "./usr/lib/sysusers.d/cistern-agent.conf",
			"./usr/lib/sysctl.d/60-cistern-agent.conf", "./usr/share/doc/cistern-agent/changelog.gz",
			"./usr/share/doc/cistern-agent/copyright", "./usr/share/doc/cistern-agent/licences.gz", "./usr/share/man/man8/cistern-agent.8.gz",
		},
	},
}

// TestDebianPackages makes the packages twice, the second time with another umask
// and elsewhere, and looks at what is in them. Nothing is installed.
func TestDebianPackages(t *testing.T) {
	tools(t, "dpkg-deb", "systemd-analyze", "make")
	first, second := makeDebs(t, "022"), makeDebs(t, "077")
	for _, p := range debs {
		t.Run(p.name, func(t *testing.T) {
			file := p.name + "_1.2.0~rc1_amd64.deb"
			deb := filepath.Join(first, file)
			one, err := os.ReadFile(deb)
			if err != nil {
				t.Fatal(err)
			}
			if two, err := os.ReadFile(filepath.Join(second, file)); err != nil || !bytes.Equal(one, two) {
				t.Errorf("two builds of %s differ (%d and %d bytes, %v)", file, len(one), len(two), err)
			}
			t.Logf("figure: deb: %s: %.1f MB (measured)", p.name, float64(len(one))/1e6)

			want := map[string]string{}
			for _, name := range p.files {
				want[name] = "-rw-r--r-- root/root"
			}
			for _, name := range p.programs {
				want[name] = "-rwxr-xr-x root/root"
			}
			if got := packed(t, deb); !maps.Equal(got, want) {
				t.Errorf("holds %v\nwant %v", got, want)
			}
			if got := string(run(t, ".", nil, "dpkg-deb", "-f", deb, "Package", "Version", "Architecture")); got != fmt.Sprintf("Package: %s\nVersion: 1.2.0~rc1\nArchitecture: amd64\n", p.name) {
				t.Errorf("control says\n%s", got)
			}
			tree := filepath.Join(t.TempDir(), "tree")
			run(t, ".", nil, "dpkg-deb", "-R", deb, tree)
			if got, err := os.ReadFile(filepath.Join(tree, "DEBIAN/conffiles")); string(got) != p.conffiles || err != nil {
				t.Errorf("conffiles are %q, %v; want %q", got, err, p.conffiles)
			}
			scripts(t, filepath.Join(tree, "DEBIAN"))
			for _, name := range p.programs {
				static(t, filepath.Join(tree, name))
			}
			figure(t, "deb: exposure of "+p.unit, exposure(t, filepath.Join(tree, "usr/lib/systemd/system", p.unit)), 3, "of 10")
		})
	}
	t.Run("configuration", func(t *testing.T) {
		tree := t.TempDir()
		run(t, ".", nil, "dpkg-deb", "-x", filepath.Join(first, "cistern_1.2.0~rc1_amd64.deb"), tree)
		run(t, ".", nil, filepath.Join(tree, "usr/bin/cisternd"), "check-config", filepath.Join(tree, "etc/cistern/cistern.toml"))
	})
}

// makeDebs runs make deb and gives the folder of what it made.
func makeDebs(t *testing.T, umask string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "..", []string{"MAKEFLAGS=", "SOURCE_DATE_EPOCH=1700000000"}, "sh", "-c",
		`umask "$1" && exec make deb ARCH=amd64 VERSION=v1.2.0-rc1 BIN="$2" DIST="$2"`, "sh", umask, dir)
	return dir
}

// packed are the files of a package with mode and owner, and no folder that
// somebody but root may write to.
func packed(t *testing.T, deb string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for line := range strings.Lines(string(run(t, ".", []string{"TZ=UTC"}, "dpkg-deb", "-c", deb))) {
		f := strings.Fields(line)
		if len(f) != 6 {
			t.Fatalf("dpkg-deb -c says %q", line)
		}
		if at := f[3] + " " + f[4]; at != "2023-11-14 22:13" {
			t.Errorf("%s is of %s, not of SOURCE_DATE_EPOCH", f[5], at)
		}
		mode := f[0] + " " + f[1]
		if !strings.HasPrefix(mode, "d") {
			files[f[5]] = mode
		} else if mode != "drwxr-xr-x root/root" {
			t.Errorf("%s is %s", f[5], mode)
		}
	}
	return files
}

// scripts holds a package's scripts to what the shell can read, with every name
// filled in.
func scripts(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if bytes.ContainsRune(text, '@') {
			t.Errorf("%s has a name that was not filled in:\n%s", name, text)
		}
		run(t, ".", nil, "sh", "-n", path)
	}
}

// static says whether a program needs nothing of the system that it runs on.
func static(t *testing.T, path string) {
	t.Helper()
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("%s is not linked statically", path)
	}
}

var overall = regexp.MustCompile(`Overall exposure level for [^:]*: ([0-9.]+)`)

// exposure is what systemd-analyze makes of a unit: 0 is closed, 10 open.
func exposure(t *testing.T, unit string) float64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=30", unit).CombinedOutput()
	level := 10.0
	if m := overall.FindSubmatch(out); err != nil || m == nil {
		t.Fatalf("systemd-analyze: %v\n%s", err, out)
	} else if _, err := fmt.Sscan(string(m[1]), &level); err != nil {
		t.Fatal(err)
	}
	return level
}
