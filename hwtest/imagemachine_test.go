package hwtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

var errWrongBytes = errors.New("the box gave other bytes than the origin has")

// diskSize is that of the emulated disks.
const diskSize = 4 << 30

// pc is an emulated PC of 1 GiB: what differs from one with UEFI and virtio.
type pc struct {
	arch     string // amd64, arm64; default amd64
	firmware string // uefi, secure, bios, and on arm64 uboot; default uefi
	disk     string // virtio, nvme, sata; default virtio
	nic      string // the emulator's device; default virtio-net-pci
	more     []string
}

// machine is a pc with its disk. Only one is on at a time. Its disk is cached
// without the host's syncs: what is tested is the box, and killing the emulator
// takes from it only what it had not yet handed over.
type machine struct {
	pc
	box     *client.Client
	dir     string
	disk    string // file of the disk
	proxy   string // host:port of the box's proxy on this machine's loopback
	panel   string
	console net.Conn // of its serial line
	stop    func()
}

// newMachine puts a copy of an image on a disk of so many bytes.
func newMachine(t *testing.T, p pc, from string, size int64) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{pc: p, dir: dir, disk: filepath.Join(dir, "disk.img"), panel: freePort(t), proxy: freePort(t)}
	copyDisk(t, m.disk, from, size)
	var err error
	m.box, err = client.New(client.Config{Box: "http://" + m.panel, Token: applianceToken, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if vars := m.firmwareFiles()[1]; vars != "" {
		if text, err := exec.Command("cp", vars, filepath.Join(dir, "vars.fd")).CombinedOutput(); err != nil {
			t.Fatalf("no firmware for the emulator (hwtest/setup.sh): %v %s", err, text)
		}
	}
	return m
}

func copyDisk(t *testing.T, to, from string, size int64) {
	t.Helper()
	if from != "" {
		if text, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
			t.Fatalf("copy the image: %v %s", err, text)
		}
	} else if err := os.WriteFile(to, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		if err := os.Truncate(to, size); err != nil {
			t.Fatal(err)
		}
	}
}

// firmwareFiles are the code and a fresh memory of the PC's firmware.
func (p pc) firmwareFiles() [2]string {
	switch p.arch + p.firmware {
	case "arm64uboot":
		return [2]string{}
	case "arm64secure":
		return [2]string{"/usr/share/AAVMF/AAVMF_CODE.ms.fd", "/usr/share/AAVMF/AAVMF_VARS.ms.fd"}
	case "arm64":
		return [2]string{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"}
	case "bios":
		return [2]string{}
	case "secure":
		return [2]string{"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"}
	default:
		return [2]string{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"}
	}
}

// board is the emulator's machine without what is plugged in.
func (p pc) board() []string {
	switch {
	case p.firmware == "uboot":
		return []string{"-machine", "virt,accel=tcg", "-cpu", "cortex-a72", "-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin"}
	case p.arch == "arm64":
		return []string{"-machine", "virt,accel=tcg", "-cpu", "cortex-a72"}
	case p.firmware == "secure":
		return []string{
			"-machine", "q35,accel=tcg,smm=on", "-cpu", "max", "-device", "VGA",
			"-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1",
		}
	default:
		return []string{"-machine", "q35,accel=tcg", "-cpu", "max", "-device", "VGA"}
	}
}

func (p pc) emulator() string {
	if p.arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// arguments are the emulator's.
func (m *machine) arguments() []string {
	args := append(m.board(),
		"-nodefaults", "-display", "none", "-m", "1024", "-smp", "2", "-device", "virtio-rng-pci", "-device", "i6300esb",
		"-chardev", "socket,id=console,server=on,wait=off,path="+m.socket()+",logappend=on,logfile="+m.log(), "-serial", "chardev:console",
		"-monitor", "unix:"+m.monitor()+",server=on,wait=off",
		"-netdev", "user,id=n,hostfwd=tcp:"+m.panel+"-:80,hostfwd=tcp:"+m.proxy+"-:3142",
	)
	if files := m.firmwareFiles(); files[0] != "" {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+files[0], "-drive", "if=pflash,format=raw,file="+filepath.Join(m.dir, "vars.fd"))
	}
	args = append(args, "-drive", "if=none,id=d,format=raw,cache=unsafe,file="+m.disk)
	switch m.pc.disk {
	case "nvme":
		args = append(args, "-device", "nvme,drive=d,serial=1,bootindex=1")
	case "sata":
		args = append(args, "-device", "ide-hd,drive=d,bus=ide.0,bootindex=1")
	default:
		args = append(args, "-device", "virtio-blk-pci,drive=d,bootindex=1")
	}
	nic := m.nic
	if nic == "" {
		nic = "virtio-net-pci"
	}
	return append(append(args, "-device", nic+",netdev=n,romfile=,addr=0x10"), m.more...)
}

func (m *machine) log() string     { return filepath.Join(m.dir, "serial.log") }
func (m *machine) socket() string  { return filepath.Join(m.dir, "console") }
func (m *machine) monitor() string { return filepath.Join(m.dir, "monitor") }

// powerOn starts the emulator; powerOff, or the end of the test, kills it.
func (m *machine) powerOn(t *testing.T) { m.start(t, m.arguments()) }

func (m *machine) start(t *testing.T, arguments []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context()) // done before the clean-ups
	cmd := exec.CommandContext(ctx, m.emulator(), arguments...)
	var said strings.Builder
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that runs into its time limit cleans up nothing
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatalf("start the emulator (hwtest/setup.sh): %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	off := false
	m.stop = func() {
		if !off {
			off = true
			cancel()
			<-ended
			if m.console != nil {
				_ = m.console.Close() // the other end is gone
				m.console = nil
			}
		}
	}
	t.Cleanup(m.stop)
	var err error
	for range 100 {
		if m.console, err = net.Dial("unix", m.socket()); err == nil {
			go func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }(m.console) // the log has it too
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.stop()
	t.Fatalf("the emulator did not start: %v\n%s", err, said.String())
}

// await asks the box until it is as hoped for, as long as the test has time and
// 20 minutes at most: how fast an emulated machine is says nothing.
func (m *machine) await(t *testing.T, what string, hoped func(client.System) bool) (s client.System) {
	t.Helper()
	var err error
	began := time.Now()
	deadline, limited := t.Deadline()
	if !limited || time.Until(deadline) > 20*time.Minute {
		deadline = began.Add(20 * time.Minute)
	}
	for deadline = deadline.Add(-15 * time.Second); time.Now().Before(deadline); time.Sleep(time.Second) {
		if s, err = m.box.System(t.Context()); err == nil && hoped(s) {
			t.Logf("%s after %.0f s", what, time.Since(began).Seconds())
			return s
		}
	}
	text, rerr := os.ReadFile(m.log())
	t.Fatalf("%s did not come: %+v, %+v, %v\n%s, %v", what, s, s.Last, err, text[max(0, len(text)-6000):], rerr)
	return s
}

func working(s client.System) bool { return s.Healthy && !s.OnTrial }

func (m *machine) awaitStart(t *testing.T) client.System {
	t.Helper()
	return m.await(t, "the panel", working)
}

func (m *machine) update(t *testing.T, name string) {
	t.Helper()
	if u, err := m.offer(t, name); err != nil || u.State != "trial" {
		t.Fatalf("update: %+v, %v", u, err)
	}
}

func (m *machine) offer(t *testing.T, name string) (client.Update, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	return m.box.Update(ctx, f)
}

// world is an origin on this machine, which the emulator shows to the box as
// 10.0.2.2.
type world struct {
	server *httptest.Server
	base   string // http://host:port as the box sees it
	asked  atomic.Int64
	by     atomic.Value // string: the address that asked last
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	_, port, _ := net.SplitHostPort(w.server.Listener.Addr().String())
	w.base = "http://10.0.2.2:" + port
	return w
}

// ServeHTTP implements http.Handler.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.asked.Add(1)
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.by.Store(host)
	rw.Header().Set("Cache-Control", "max-age=86400")
	_, _ = rw.Write(worldBody(r.URL.Path))
}

// worldBody is what the origin has at a path: 1 MiB, the same every time.
func worldBody(path string) []byte {
	sum := sha256.Sum256([]byte(path))
	return slices.Repeat(sum[:], 1<<20/len(sum))
}

// fetch gets a path through the box and says whether it was the right body.
func (m *machine) fetch(ctx context.Context, w *world, path string) error {
	proxied := http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: m.proxy})}}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := proxied.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %d, %w", resp.StatusCode, err)
	}
	if string(body) != string(worldBody(path)) {
		return errWrongBytes
	}
	return nil
}

// throughTheBox fetches a path and says how often the origin was asked for it.
func (m *machine) throughTheBox(t *testing.T, w *world, path string) int64 {
	t.Helper()
	before := w.asked.Load()
	if err := m.fetch(t.Context(), w, path); err != nil {
		t.Fatalf("through the box: %v", err)
	}
	return w.asked.Load() - before
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
