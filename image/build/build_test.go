package build

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"

	"github.com/cistern-edge/cistern/image"
)

// deb makes a package out of files.
func deb(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := squeeze(plain.Bytes(), zstd.SpeedFastest)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		body []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.zst", []byte("odd")}, {"data.tar.zst", data}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.body))
		out.Write(m.body)
		out.Write(make([]byte, len(m.body)%2))
	}
	return out.Bytes()
}

func TestUnpack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.deb")
	body := deb(t, map[string][]byte{"usr/a": []byte("A"), "usr/b": []byte("B"), "../../etc/x": []byte("outside")})
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := unpack(t.Context(), file, func(name string) bool { return name != "usr/b" })
	if err != nil || len(got) != 2 || string(got["usr/a"]) != "A" || string(got["etc/x"]) != "outside" {
		t.Errorf("%v, %v", got, err)
	}
	for _, cut := range []int{0, 7, 40, 70, 200, len(body) - 20} {
		if err := os.WriteFile(file, body[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := unpack(t.Context(), file, func(string) bool { return true }); err == nil {
			t.Errorf("a package of %d bytes was unpacked", cut)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(deb(f, map[string][]byte{"a": []byte("A")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("data.tar.xz")) {
			return // that is xz, another program
		}
		_ = dataMember(t.Context(), bytes.NewReader(data), func(r io.Reader) error {
			_, err := untar(io.LimitReader(r, 1<<20), func(string) bool { return true })
			return err
		})
	})
}

func TestBeforehand(t *testing.T) {
	if got := beforehand("pre: crc32c libcrc post: other"); !slices.Equal(got, []string{"crc32c", "libcrc"}) {
		t.Error(got)
	}
}

// TestInitialFileSystem has cpio read what was written.
func TestInitialFileSystem(t *testing.T) {
	tr := tree{}
	tr.file("a/b/c.txt", 0o644, []byte("hello"))
	tr.link("sbin/modprobe", "/init")
	tr.dir("proc", 0o755)
	var out bytes.Buffer
	if err := tr.cpio(&out, epoch); err != nil {
		t.Fatal(err)
	}
	tool(t, "cpio")
	cmd := exec.Command("cpio", "-itv", "--quiet")
	cmd.Stdin = &out
	list, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, list)
	}
	for _, want := range []string{"-rw-r--r--", "a/b/c.txt", "sbin/modprobe -> /init", "drwxr-xr-x", " proc"} {
		if !strings.Contains(string(list), want) {
			t.Errorf("cpio lists no %q:\n%s", want, list)
		}
	}
}

// small is a release of made-up packages.
func small(t *testing.T, key minisign.PrivateKey) Config {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{
		"boot/vmlinuz-6.1": []byte("kernel"), "usr/sbin/e2fsck.static": []byte("checker"),
		"usr/share/ca-certificates/mozilla/x.crt": []byte("certificate"), "usr/share/doc/linux/copyright": []byte("GPL-2"),
	}
	for from := range loaders["amd64"] {
		files[from] = []byte(from)
	}
	pack, init := filepath.Join(dir, "all.deb"), filepath.Join(dir, "init")
	if err := errors.Join(os.WriteFile(pack, deb(t, files), 0o600), os.WriteFile(init, []byte("init"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return Config{
		Arch: "amd64", Version: "1.2", Date: epoch, Serial: 12, Packages: map[string]string{"all": pack},
		Lock:     Lock{Suite: "none", Arch: "amd64", Packages: []Package{{Name: "all", Version: "1", Source: "everything 1"}}},
		Programs: map[string]string{"init": init}, Key: key, Settings: map[string][]byte{"cistern.toml": []byte("version = 1\n")},
		Out: filepath.Join(dir, "dist"),
	}
}

// TestBuildTwice builds a release of made-up packages twice and has foreign
// programs read the image.
func TestBuildTwice(t *testing.T) {
	for _, name := range []string{"grub-mkimage", "mke2fs", "xz", "sgdisk", "fsck.fat"} {
		tool(t, name)
	}
	public, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	first, second := small(t, key), small(t, key)
	files, err := Build(t.Context(), first, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 9 {
		t.Errorf("made %v", files)
	}
	stem := filepath.Join(first.Out, "cistern_generic-x86-64-1.2")
	text, err := os.ReadFile(stem + ".SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	signature, err := os.ReadFile(stem + ".SHA256SUMS.minisig")
	if err != nil || !minisign.Verify(public, text, signature) {
		t.Errorf("the sums are not signed: %v", err)
	}
	reads(t, stem+".img.xz")
	second.Raw = true
	if files, err = Build(t.Context(), second, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		one, err := sha256File(filepath.Join(first.Out, name))
		other, err2 := sha256File(filepath.Join(second.Out, name))
		if err = errors.Join(err, err2); err != nil || one != other {
			t.Errorf("two builds of %s differ: %v", name, err)
		}
	}
	update, err := os.Open(stem + ".update")
	if err != nil {
		t.Fatal(err)
	}
	defer update.Close()
	m, err := image.ReadUpdateHead(update, public)
	if err != nil || m.Serial != 12 || m.Fits(image.Release{Arch: "amd64", Serial: 11}) != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

// reads has sgdisk, fsck.fat and e2fsck look at an image.
func reads(t *testing.T, packed string) {
	t.Helper()
	raw := strings.TrimSuffix(packed, ".xz")
	if out, err := exec.Command("xz", "-dk", packed).CombinedOutput(); err != nil {
		t.Fatalf("xz: %v\n%s", err, out)
	}
	if out, err := exec.Command("sgdisk", "-v", raw).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for number, check := range map[int][]string{
		image.PartESP: {"fsck.fat", "-n"}, image.PartConfig: {"fsck.fat", "-n"}, image.PartSlotA: {"fsck.fat", "-n"},
		image.PartData: {"e2fsck", "-fn"},
	} {
		p := image.Partitions()[number-1]
		file := filepath.Join(t.TempDir(), p.Name)
		part := make([]byte, p.Size)
		if _, err := f.ReadAt(part, p.Start); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, part, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(check[0], append(check[1:], file)...).CombinedOutput(); err != nil {
			t.Errorf("%s says of %s: %v\n%s", check[0], p.Name, err, out)
		}
	}
}

// TestFetchSaysWhatVanished asks an archive that has nothing.
func TestFetchSaysWhatVanished(t *testing.T) {
	if _, err := os.Stat("/usr/lib/apt/apt-helper"); err != nil {
		tool(t, "apt-helper")
	}
	empty := t.TempDir()
	a := Archive{Cache: t.TempDir(), Mirrors: map[string]string{"main": "file://" + empty}, Log: slog.New(slog.DiscardHandler)}
	_, err := a.Fetch(t.Context(), Lock{Packages: []Package{{Name: "gone", Version: "1", Archive: "main", Path: "pool/gone.deb", SHA256: strings.Repeat("0", 64)}}})
	if !errors.Is(err, ErrVanished) || !strings.Contains(err.Error(), "gone 1") {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock.json")
	good := Lock{Suite: "x", Arch: "amd64", Date: time.Unix(0, 0).UTC(), Packages: []Package{{Name: "a-1", Path: "pool/a.deb", SHA256: strings.Repeat("0", 64)}}}
	if err := good.Save(file); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadLock(file); err != nil || got.Packages[0] != good.Packages[0] {
		t.Errorf("%+v, %v", got, err)
	}
	for _, path := range []string{"/etc/passwd", "../x", "pool//x"} {
		bad := good
		bad.Packages = []Package{{Name: "a", Path: path, SHA256: strings.Repeat("0", 64)}}
		if err := bad.Save(file); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLock(file); err == nil {
			t.Errorf("took the path %s", path)
		}
	}
}
