//go:build soak

package hwtest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/image"
)

// TestImageReset: a factory reset, asked for by the API and then at the console,
// makes a box of its first day.
func TestImageReset(t *testing.T) {
	m := newMachine(t, pc{}, newFoundry(t).base(t), diskSize)
	w := newWorld(t)
	m.powerOn(t)
	m.awaitStart(t)
	for _, how := range []string{"API", "console"} {
		m.throughTheBox(t, w, "/kept")
		began := m.throughTheBox(t, w, "/kept")
		if began != 0 {
			t.Errorf("%s: nothing was cached before", how)
		}
		before, err := m.box.System(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if how == "API" {
			if u, err := m.box.Order(t.Context(), client.SystemOrder{Do: client.Reset, Erase: true}); err != nil || u.State != "done" {
				t.Fatalf("reset: %+v, %v", u, err)
			}
		} else {
			m.say(t, "reset")
			m.say(t, "yes")
		}
		s := m.await(t, "the reset by "+how, func(s client.System) bool { return s.Started.After(before.Started.Add(10*time.Second)) && working(s) })
		if s.Boots != 1 || s.Last != nil {
			t.Errorf("%s: after the reset the box still knows %+v", how, s)
		}
		if n := m.throughTheBox(t, w, "/kept"); n != 1 {
			t.Errorf("%s: the cache outlived the reset", how)
		}
	}
}

// TestImageFull: a box whose disk somebody else has filled comes up all the same,
// gets what it is asked for, and says that it keeps nothing.
func TestImageFull(t *testing.T) {
	m := newMachine(t, pc{}, newFoundry(t).base(t), 0) // nothing to grow into
	m.ballast(t, 46*image.MiB)
	w := newWorld(t)
	m.powerOn(t)
	m.awaitStart(t)
	m.throughTheBox(t, w, "/file")
	status, err := m.box.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, v := range status.Volumes {
		if v.State == client.Gone {
			said = v.Why
		}
	}
	t.Logf("figure: image, a box whose disk is full passes on what it is asked for, and says: %q: %s", said, verdict(strings.Contains(said, "disk is full")))
	if !strings.Contains(said, "disk is full") {
		t.Errorf("it says of its volumes %+v", status.Volumes)
	}
}

// TestImageInstalls: a PC that was started from a USB stick copies the system to
// its disk, says before what it erases, and then starts from the disk, whether or
// not the stick is still in.
func TestImageInstalls(t *testing.T) {
	f := newFoundry(t)
	m := newMachine(t, pc{}, "", 8<<30) // a disk with nothing on it
	stick := filepath.Join(m.dir, "stick.img")
	copyDisk(t, stick, f.base(t), 2<<30)
	usb := []string{"-device", "qemu-xhci", "-drive", "if=none,id=s,format=raw,file=" + stick, "-device", "usb-storage,drive=s,removable=on,bootindex="}
	withStick := func(index string) []string {
		args := append([]string{}, usb...)
		args[len(args)-1] += index
		return args
	}
	m.more = withStick("0")
	m.powerOn(t)
	m.awaitStart(t)
	disks, err := m.box.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	target := ""
	for _, d := range disks {
		if d.Own != d.USB {
			t.Errorf("the box takes %+v for its own", d)
		}
		if !d.Own {
			target = d.Name
		}
	}
	if _, err := m.box.Order(t.Context(), client.SystemOrder{Do: client.Install, Disk: target}); err == nil {
		t.Error("installed without a word about what it erases")
	}
	began := time.Now()
	if u, err := m.box.Order(t.Context(), client.SystemOrder{Do: client.Install, Disk: target, Erase: true}); err != nil || u.State != "done" {
		t.Fatalf("install: %+v, %v", u, err)
	}
	t.Logf("figure: image, installation from a stick under emulation: %.1f s (measured)", time.Since(began).Seconds())
	own := func() string { return ownDisk(t, m) }
	m.powerOff()
	m.more = withStick("5") // still in, behind the disk
	m.powerOn(t)
	if s := m.awaitStart(t); s.Boots != 1 || own() != target {
		t.Errorf("with the stick behind the disk it runs from %s, start %d", own(), s.Boots)
	}
	m.powerOff()
	m.more = withStick("0")
	m.powerOn(t)
	if s := m.awaitStart(t); s.Boots != 2 || own() == target {
		t.Errorf("with the stick before the disk it runs from %s, start %d", own(), s.Boots)
	}
	m.powerOff()
	m.more = nil
	m.powerOn(t)
	if s := m.awaitStart(t); s.Boots != 2 || own() != target {
		t.Errorf("without the stick it runs from %s, start %d", own(), s.Boots)
	}
}

func ownDisk(t *testing.T, m *machine) string {
	t.Helper()
	disks, err := m.box.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		if d.Own {
			return d.Name
		}
	}
	return ""
}

// TestImageStick: an update that somebody brings on a USB stick is taken, and a
// stick that stays in is not taken twice.
func TestImageStick(t *testing.T) {
	f := newFoundry(t)
	m := newMachine(t, pc{}, f.base(t), diskSize)
	stick := filepath.Join(m.dir, "stick.img")
	copyDisk(t, stick, "", 256<<20)
	for _, args := range [][]string{{"mformat", "-i", stick, "-F", "::"}, {"mcopy", "-i", stick, f.good(t), "::cistern.update"}} {
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("make a stick (package mtools): %v %s", err, text)
		}
	}
	m.more = []string{"-device", "qemu-xhci", "-drive", "if=none,id=s,format=raw,readonly=on,file=" + stick, "-device", "usb-storage,drive=s,removable=on"}
	m.powerOn(t)
	s := m.await(t, "the update from the stick", func(s client.System) bool { return s.Last != nil && s.Last.State == "committed" && working(s) })
	if s.Version != "1.2" || s.Slot != "b" {
		t.Errorf("updated to %+v", s)
	}
	time.Sleep(20 * time.Second)
	if s, err := m.box.System(t.Context()); err != nil || s.Last.State != "committed" || s.Boots != 2 {
		t.Errorf("the stick was taken again: %+v, %v", s, err)
	}
}

// TestImageChannel: a box whose clock is years behind gets the time, then looks at
// its channel when it was told to, and updates. It is found by its name.
func TestImageChannel(t *testing.T) {
	f := newFoundry(t)
	m := newMachine(t, pc{}, f.base(t), diskSize)
	release, err := os.ReadFile(f.good(t))
	if err != nil {
		t.Fatal(err)
	}
	channel := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".update") {
			_, _ = w.Write(release)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"version": "1.2", "serial": 102, "update": "1.2.update"})
	}))
	defer channel.Close()
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	clock, heard := serveTime(t), hearSyslog(t)
	at := time.Now().UTC().Add(4 * time.Minute)
	m.setting(t, "update.toml", fmt.Sprintf("channel = \"http://10.0.2.2:%s/latest.json\"\nat = %q\n", port(channel.Listener.Addr().String()), at.Format("15:04")))
	m.setting(t, "network.toml", fmt.Sprintf("name = \"depot\"\nntp = [\"10.0.2.2:%s\"]\nsyslog = \"10.0.2.2:%s\"\n", port(clock), port(heard.LocalAddr().String())))
	m.more = []string{"-rtc", "base=2021-03-04T05:06:07"}
	m.powerOn(t)
	s := m.awaitStart(t)
	s = m.await(t, "the time", func(s client.System) bool { return s.TimeFrom != "" })
	t.Logf("clock set by %s", s.TimeFrom)
	lines := make([]byte, 4096)
	if err := heard.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := heard.ReadFrom(lines); err != nil || !strings.Contains(string(lines[:n]), " depot cistern - - - ") {
		t.Errorf("the server of logs heard %q, %v", lines[:n], err)
	}
	s = m.await(t, "the scheduled update", func(s client.System) bool { return s.Last != nil && s.Last.State == "committed" && working(s) })
	if early := s.Last.Time.Before(at.Truncate(time.Minute)); s.Version != "1.2" || early {
		t.Errorf("updated to %+v, %+v, to be at %v", s, s.Last, at)
	}
	if u, err := m.box.Order(t.Context(), client.SystemOrder{Do: client.CheckChannel}); err != nil || u.State != "current" || u.Reason == "" {
		t.Errorf("the channel once more: %+v, %v", u, err)
	}
}

// say types a line on the box's console.
func (m *machine) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(m.console, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// setting puts a file on the CONFIG partition.
func (m *machine) setting(t *testing.T, name, body string) {
	t.Helper()
	m.put(t, image.PartConfig, name, []byte(body))
}

// put writes a file on a partition that has FAT, while the machine is off.
func (m *machine) put(t *testing.T, partition int, name string, body []byte) {
	t.Helper()
	file := filepath.Join(m.dir, filepath.Base(name))
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	at := image.Partitions()[partition-1].Start
	cmd := exec.Command("mcopy", "-o", "-i", m.disk+"@@"+strconv.FormatInt(at, 10), file, "::"+name)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("write %s (package mtools): %v %s", name, err, text)
	}
}

// serveTime is a server of time (RFC 5905) with this machine's clock.
func serveTime(t *testing.T) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for query := make([]byte, 512); ; {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			answer := make([]byte, 48)
			answer[0], answer[1] = 4<<3|4, 1
			copy(answer[24:], query[40:48])
			for _, at := range []int{32, 40} {
				binary.BigEndian.PutUint32(answer[at:], uint32(time.Now().Unix()+2208988800))
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

func hearSyslog(t *testing.T) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// slots is the hash of what lies in both slots of the disk.
func (m *machine) slots(t *testing.T) string {
	t.Helper()
	f, err := os.Open(m.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	for _, p := range image.Partitions() {
		if p.Number != image.PartSlotA && p.Number != image.PartSlotB {
			continue
		}
		if _, err := io.Copy(sum, io.NewSectionReader(f, p.Start, p.Size)); err != nil {
			t.Fatal(err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}
