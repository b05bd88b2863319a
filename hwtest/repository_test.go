package hwtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a small signed Debian repository of the test's own making.
type repository struct {
	dir     string // served at the root of the origin
	keyring string // what clients trust
}

// debPackage is the one package in it, and debFile what it installs.
const (
	debPackage = "cistern-story"
	debFile    = "usr/share/cistern-story/story.bin"
)

// makeRepository builds the package, the indices and their signature with
// Debian's own tools.
func makeRepository(t *testing.T, content []byte) repository {
	t.Helper()
	top := t.TempDir()
	r := repository{dir: filepath.Join(top, "www"), keyring: filepath.Join(top, "key.gpg")}

	tree := filepath.Join(top, "tree")
	write(t, filepath.Join(tree, "DEBIAN/control"), []byte("Package: "+debPackage+"\nVersion: 1.0\nArchitecture: all\n"+
		"Maintainer: Cistern <cistern@example.org>\nDescription: a file to carry through the box\n"))
	write(t, filepath.Join(tree, debFile), content)
	pool := filepath.Join(r.dir, "pool")
	mkdir(t, pool)
	run(t, top, nil, "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, filepath.Join(pool, debPackage+"_1.0_all.deb"))

	dist := filepath.Join(r.dir, "dists/stable")
	binary := filepath.Join(dist, "main/binary-all")
	mkdir(t, binary)
	packages := run(t, r.dir, nil, "apt-ftparchive", "packages", "pool")
	write(t, filepath.Join(binary, "Packages"), packages)
	release := run(
		t, r.dir, nil, "apt-ftparchive", "-o", "APT::FTPArchive::Release::Suite=stable", "-o", "APT::FTPArchive::Release::Codename=stable",
		"-o", "APT::FTPArchive::Release::Components=main", "-o", "APT::FTPArchive::Release::Architectures=all", "release", "dists/stable",
	)
	write(t, filepath.Join(dist, "Release"), release)

	// gpg wants a short path for its agent's socket.
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	env := []string{"GNUPGHOME=" + home}
	run(t, top, env, "gpg", "--batch", "--passphrase", "", "--quick-generate-key", "story@example.org", "default", "default", "never")
	write(t, r.keyring, run(t, top, env, "gpg", "--export", "story@example.org"))
	run(t, top, env, "gpg", "--batch", "--clearsign", "--output", filepath.Join(dist, "InRelease"), filepath.Join(dist, "Release"))
	run(t, top, env, "gpgconf", "--kill", "gpg-agent")
	return r
}

// aptMachine is a root directory that apt installs into, with the box as its
// proxy.
func aptMachine(t *testing.T, r repository, origin, proxy string) (root, config string) {
	t.Helper()
	root = t.TempDir()
	for _, d := range []string{
		"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
		"var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log/apt", "tmp",
	} {
		mkdir(t, filepath.Join(root, d))
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), nil)
	write(t, filepath.Join(root, "etc/apt/sources.list"), fmt.Appendf(nil, "deb [signed-by=%s arch=all] %s stable main\n", r.keyring, origin))
	config = filepath.Join(root, "apt.conf")
	write(t, config, fmt.Appendf(nil, `Dir "%s";
Dir::State::status "%s/var/lib/dpkg/status";
Dir::Bin::dpkg "/usr/bin/dpkg";
DPkg::Options { "--root=%s"; "--log=%s/var/log/dpkg.log"; "--force-all"; };
DPkg::Path "/usr/sbin:/usr/bin:/sbin:/bin";
APT::Architecture "all"; APT::Architectures { "all"; };
APT::Sandbox::User "root";
Acquire::http::Proxy "%s";
Acquire::Languages "none";
Acquire::Retries "0";
`, root, root, root, root, proxy))
	return root, config
}

// installed reads the file that the package brings.
func installed(t *testing.T, root string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(root, debFile))
	if err != nil {
		t.Fatalf("the package did not install: %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the installed file has other bytes than the package")
	}
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	mkdir(t, filepath.Dir(name))
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// run runs a tool of this machine and returns what it prints.
func run(t *testing.T, dir string, env []string, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, stderr.String())
	}
	return out
}
