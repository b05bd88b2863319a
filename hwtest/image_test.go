//go:build soak

package hwtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// applianceToken is on the CONFIG partition of the images that are started here.
const applianceToken = "a-token-that-only-this-test-knows"

// machine is an emulated PC with UEFI, 1 GiB, and the box's disk.
type machine struct {
	box   *client.Client
	proxy string // host:port on this machine's loopback
	log   string // file of the serial console
}

// TestImage starts the appliance in an emulator, updates it, and has it fall
// back from an update whose init panics. Half an hour on a busy machine and
// 40 MiB from the Debian archive: at full size only, so it is built
// for make soak alone.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	if err := os.WriteFile(filepath.Join(dir, "dead.go"), []byte("package main\n\nfunc main() { panic(\"a broken system\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	compile(t, dead, filepath.Join(dir, "dead.go"))
	init := filepath.Join(dir, "init")
	compile(t, init, "../cmd/cistern-init")
	disk := makeImage(t, dir, "1.0", 100, init) + ".img"
	bad, good := makeImage(t, dir, "1.1", 101, dead)+".update", makeImage(t, dir, "1.2", 102, init)+".update"
	if err := os.Truncate(disk, 4<<30); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	m := powerOn(t, dir, disk)
	s := m.await(t, 6*time.Minute, "the panel", func(s client.System) bool { return s.Healthy })
	t.Logf("figure: start to a working box under emulation: %.0f s (measured)", time.Since(began).Seconds())
	if s.Version != "1.0" || s.Slot != "a" || s.OnTrial {
		t.Errorf("runs %+v", s)
	}
	m.throughTheBox(t)

	m.update(t, bad)
	s = m.await(t, 8*time.Minute, "the fall back", func(s client.System) bool { return s.Last != nil && s.Last.State == "failed" && s.Healthy })
	if s.Version != "1.0" || s.Slot != "a" || !strings.Contains(s.Last.Reason, "started 3 times") {
		t.Errorf("fell back to %+v, %+v", s, s.Last)
	}
	m.update(t, good)
	s = m.await(t, 8*time.Minute, "the new system", func(s client.System) bool { return s.Last != nil && s.Last.State == "committed" && s.Healthy })
	if s.Version != "1.2" || s.Slot != "b" || s.OnTrial {
		t.Errorf("updated to %+v", s)
	}
	m.throughTheBox(t)
}

func compile(t *testing.T, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
}

// makeImage makes a raw image and an update file with one key for all, and gives
// their name without its end. Packages that the archive has no longer are
// replaced by what it has now.
func makeImage(t *testing.T, dir, version string, serial int, init string) string {
	t.Helper()
	config := "version = 1\n[proxy]\nlisten = \":3142\"\nallow_destinations = [\"10.0.2.0/24\"]\n[admin]\nlisten = \":80\"\n"
	for name, body := range map[string]string{"cistern.toml": config, "token": applianceToken} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock := "../image/packages-amd64.json"
	if fresh := filepath.Join(dir, "lock.json"); fileThere(fresh) {
		lock = fresh
	}
	build := func(lock string) ([]byte, error) {
		return exec.Command(filepath.Join(bin, "mkimage"), "build", "--raw", "--lock", lock, "--version", version, "--serial", fmt.Sprint(serial),
			"--key", filepath.Join(dir, "key"), "--init", init, "--program", "bin/cisternd="+filepath.Join(bin, "cisternd"), "--out", dir,
			"--setting", "cistern.toml="+filepath.Join(dir, "cistern.toml")+";admin.token="+filepath.Join(dir, "token")).CombinedOutput()
	}
	text, err := build(lock)
	if err != nil && strings.Contains(string(text), "image-lock") {
		lock = filepath.Join(dir, "lock.json")
		t.Logf("the archive has not all that the lock pins; made a throw-away lock:\n%s", text)
		if text, err = exec.Command(filepath.Join(bin, "mkimage"), "lock", "--lock", lock).CombinedOutput(); err == nil {
			text, err = build(lock)
		}
	}
	if err != nil {
		t.Fatalf("mkimage: %v\n%s", err, text)
	}
	return filepath.Join(dir, "cistern_generic-x86-64-"+version)
}

func fileThere(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// powerOn starts the emulator; the end of the test ends it.
func powerOn(t *testing.T, dir, disk string) *machine {
	t.Helper()
	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatalf("no firmware for the emulator (hwtest/setup.sh): %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
		t.Fatal(err)
	}
	panel, proxy := freePort(t), freePort(t)
	m := &machine{proxy: proxy, log: filepath.Join(dir, "serial.log")}
	if m.box, err = client.New(client.Config{Box: "http://" + panel, Token: applianceToken, Timeout: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	// t.Context() is done before the clean-ups, so the emulator ends with the test.
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "1024", "-smp", "2", "-display", "none", "-monitor", "none",
		"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive", "if=pflash,format=raw,file="+filepath.Join(dir, "vars.fd"),
		"-drive", "file="+disk+",format=raw,if=virtio", "-device", "virtio-rng-pci", "-device", "i6300esb", "-serial", "file:"+m.log,
		"-netdev", "user,id=n,hostfwd=tcp:"+panel+"-:80,hostfwd=tcp:"+proxy+"-:3142", "-device", "virtio-net-pci,netdev=n")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the emulator (hwtest/setup.sh): %v", err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // killed
	return m
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await asks the box until it is as hoped for.
func (m *machine) await(t *testing.T, most time.Duration, what string, hoped func(client.System) bool) (s client.System) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(most); time.Now().Before(deadline); time.Sleep(2 * time.Second) {
		if s, err = m.box.System(t.Context()); err == nil && hoped(s) {
			return s
		}
	}
	text, rerr := os.ReadFile(m.log)
	t.Fatalf("%s did not come: %+v, %v\n%s, %v", what, s, err, text[max(0, len(text)-4000):], rerr)
	return s
}

func (m *machine) update(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if u, err := m.box.Update(ctx, f); err != nil || u.State != "trial" {
		t.Fatalf("update: %+v, %v", u, err)
	}
}

// throughTheBox fetches twice from an origin on this machine, which the emulator
// shows to the box as 10.0.2.2.
func (m *machine) throughTheBox(t *testing.T) {
	t.Helper()
	asked := 0
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Cache-Control", "max-age=600")
		_, _ = io.WriteString(w, "from the origin")
	}))
	defer origin.Close()
	_, port, _ := net.SplitHostPort(origin.Listener.Addr().String())
	proxied := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: m.proxy}),
	}}
	for range 2 {
		resp, err := proxied.Get("http://10.0.2.2:" + port + "/file")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "from the origin" {
			t.Errorf("through the box came %q, %v", body, err)
		}
		_ = resp.Body.Close()
	}
	if asked != 1 {
		t.Errorf("the origin was asked %d times", asked)
	}
}
