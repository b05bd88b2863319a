package appliance

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"

	"github.com/cistern-edge/cistern/image"
)

// bench is a Box on a table: its slots are files.
type bench struct {
	*Box
	key minisign.PrivateKey
	env image.GrubEnv // what was written last; nil: nothing
}

func newBench(t *testing.T, boot Boot) *bench {
	t.Helper()
	dir := t.TempDir()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{key: private}
	b.Box = &Box{
		cfg: Config{}, log: slog.New(slog.DiscardHandler), ring: NewRing(100, nil), boot: boot, key: public, state: dir,
		release: image.Release{Version: "1.0", Arch: "amd64", Serial: 100}, reboot: make(chan string, 1),
		device: func(partition int) string { return filepath.Join(dir, []string{3: "slot-a", 4: "slot-b"}[partition]) },
		setEnv: func(env image.GrubEnv) error { b.env = env; return nil },
	}
	b.mounted.Store(true)
	for _, name := range []string{"slot-a", "slot-b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("what was there before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) slot(t *testing.T, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(b.state, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// file makes an update; change spoils its manifest before it is signed.
func (b *bench) file(t *testing.T, slot string, change func(*image.Manifest)) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := z.EncodeAll([]byte(slot), nil)
	sum := func(body []byte) string { h := sha256.Sum256(body); return hex.EncodeToString(h[:]) }
	m := image.Manifest{
		Format: image.UpdateFormat, Product: image.Product, Arch: "amd64", Version: "1.1", Serial: 101, Data: image.DataFormat,
		SlotBytes: int64(len(slot)), SlotSHA256: sum([]byte(slot)), PayloadBytes: int64(len(payload)), PayloadSHA256: sum(payload),
	}
	if change != nil {
		change(&m)
	}
	var out bytes.Buffer
	if err := image.WriteUpdateHead(&out, m, b.key); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), payload...)
}

var system = strings.Repeat("a new system ", 10_000)

func TestUpdate(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	o, err := b.Update(t.Context(), bytes.NewReader(b.file(t, system, nil)))
	if err != nil || o.State != "trial" || o.Version != "1.1" {
		t.Fatalf("%+v, %v", o, err)
	}
	if b.slot(t, "slot-b") != system {
		t.Error("the other slot does not hold the new system")
	}
	if b.env["slot"] != "a" || b.env["trial"] != "b" || b.env["left"] != "3" {
		t.Errorf("the boot loader was told %v", b.env)
	}
	if _, err := b.Update(t.Context(), bytes.NewReader(b.file(t, system, nil))); !errors.Is(err, ErrBusy) {
		t.Errorf("one more before the restart: %v", err)
	}
	if <-b.reboot == "" {
		t.Error("no restart")
	}
	if _, err := os.Stat(filepath.Join(b.state, "incoming")); err == nil {
		t.Error("the file stayed")
	}
}

// TestRefused: whatever is refused has not changed a slot or the boot loader,
// and its reason is kept.
func TestRefused(t *testing.T) {
	for _, row := range []struct {
		name string
		file func(b *bench) []byte
		want error
	}{
		{"another's signature", func(*bench) []byte {
			other := newBench(t, Boot{Slot: image.SlotA})
			return other.file(t, system, nil)
		}, image.ErrSignature},
		{"older", func(b *bench) []byte { return b.file(t, system, func(m *image.Manifest) { m.Serial = 99 }) }, image.ErrOlder},
		{"the same", func(b *bench) []byte { return b.file(t, system, func(m *image.Manifest) { m.Serial = 100 }) }, image.ErrOlder},
		{"another machine's", func(b *bench) []byte { return b.file(t, system, func(m *image.Manifest) { m.Arch = "arm64" }) }, image.ErrUnfit},
		{"data that cannot be read here", func(b *bench) []byte { return b.file(t, system, func(m *image.Manifest) { m.Data++ }) }, image.ErrUnfit},
		{"truncated", func(b *bench) []byte { f := b.file(t, system, nil); return f[:len(f)-1] }, image.ErrTruncated},
		{"truncated in the head", func(b *bench) []byte { return b.file(t, system, nil)[:100] }, image.ErrTruncated},
		{"a flipped byte", func(b *bench) []byte { f := b.file(t, system, nil); f[len(f)-1] ^= 1; return f }, image.ErrDamaged},
		{"empty", func(*bench) []byte { return nil }, image.ErrTruncated},
		{"something else", func(*bench) []byte { return []byte("PK\x03\x04 some archive or other") }, image.ErrNotUpdate},
		{"larger than the disk", func(b *bench) []byte {
			return b.file(t, system, func(m *image.Manifest) { m.PayloadBytes = image.SlotSize })
		}, image.ErrTruncated},
	} {
		b := newBench(t, Boot{Slot: image.SlotA})
		o, err := b.Update(t.Context(), bytes.NewReader(row.file(b)))
		if !errors.Is(err, row.want) || o.State != "refused" || o.Reason == "" {
			t.Errorf("%s: %+v, %v", row.name, o, err)
		}
		if b.slot(t, "slot-a")+b.slot(t, "slot-b") != strings.Repeat("what was there before", 2) || b.env != nil || len(b.reboot) != 0 {
			t.Errorf("%s: it changed something", row.name)
		}
		if last := b.State().Last; last == nil || last.Reason != o.Reason {
			t.Errorf("%s: the reason was not kept: %+v", row.name, last)
		}
	}
	b := newBench(t, Boot{Slot: image.SlotB, Trial: image.SlotB, Left: "2"})
	if _, err := b.Update(t.Context(), bytes.NewReader(b.file(t, system, nil))); !errors.Is(err, ErrOnTrial) {
		t.Errorf("an update of a system on trial: %v", err)
	}
}

// TestTrial plays starts of a new system and what the old one then says of it.
func TestTrial(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	if _, err := b.Update(t.Context(), bytes.NewReader(b.file(t, system, nil))); err != nil {
		t.Fatal(err)
	}
	start := func(boot Boot) { b.boot = boot; b.settle() }

	start(Boot{Slot: image.SlotB, Trial: image.SlotB, Left: "2"})
	b.stage("waiting for an address (DHCP)")
	if s := b.State(); !s.OnTrial || s.Boots != 1 || s.Last.Starts != 1 {
		t.Errorf("on trial: %+v", s)
	}
	start(Boot{Slot: image.SlotA, Trial: image.SlotB, Left: "none"})
	last := b.State().Last
	if last.State != "failed" || !strings.Contains(last.Reason, "waiting for an address (DHCP)") {
		t.Errorf("fell back: %+v", last)
	}
	if len(b.env) != 1 || b.env["slot"] != "a" {
		t.Errorf("the trial goes on: %v", b.env)
	}

	start(Boot{Slot: image.SlotB, Trial: image.SlotB, Left: "2"})
	if !b.commit() || b.env["slot"] != "b" || len(b.env) != 1 || b.State().OnTrial || b.State().Last.State != "committed" {
		t.Errorf("committed: %v %+v", b.env, b.State())
	}

	b.boot = Boot{Slot: image.SlotB, Trial: image.SlotB, Left: "2"}
	b.giveUp("an answer of the proxy")
	if b.env["slot"] != "a" || b.env["left"] != "0" || !strings.Contains(<-b.reboot, "an answer of the proxy") {
		t.Errorf("gave up: %v", b.env)
	}
	start(Boot{Slot: image.SlotA, Trial: image.SlotB, Left: "none"})
	if last := b.State().Last; !strings.Contains(last.Reason, "an answer of the proxy") {
		t.Errorf("the reason was lost: %+v", last)
	}
}

func TestParseBoot(t *testing.T) {
	for line, want := range map[string]Boot{
		"quiet":                              {Slot: image.SlotA},
		"cistern.slot=b cistern.trial= ":     {Slot: image.SlotB},
		"cistern.slot=a cistern.broken=b":    {Slot: image.SlotA, Broken: image.SlotB},
		"cistern.slot=../x cistern.trial=zz": {Slot: image.SlotA},
		"cistern.boot=43495354-4552-4e00-8000-000000000001 cistern.slot=b": {Slot: image.SlotB, ESP: image.Partitions()[0].ID},
		"cistern.boot=": {Slot: image.SlotA},
	} {
		if got := parseBoot(line); got != want {
			t.Errorf("%q: %+v", line, got)
		}
	}
	if b := parseBoot("cistern.slot=b cistern.trial=b cistern.left=0\n"); !b.OnTrial() {
		t.Error("the last start of a trial is none")
	}
}

// TestRemote asks a Box over its socket.
func TestRemote(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	_, _ = b.ring.Write([]byte("a line\n"))
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b.handler()}
	defer server.Close()
	go func() { _ = server.Serve(listener) }()
	r := Dial(socket)
	if s, err := r.Report(t.Context()); err != nil || s.Release.Version != "1.0" || s.Slot != image.SlotA || len(s.Slots) != 2 || s.Slots[0].State != SlotRunning || s.MemTotal == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := r.Schedule(t.Context(), "", "03:30"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "channel") {
		t.Errorf("a time without a channel: %v", err)
	}
	if err := r.Schedule(t.Context(), "https://example.org/latest.json", "03:30"); err != nil {
		t.Error(err)
	}
	if s, err := r.Report(t.Context()); err != nil || s.Channel != "https://example.org/latest.json" || s.At != "03:30" {
		t.Errorf("%+v, %v", s, err)
	}
	if log, err := r.Log(t.Context()); err != nil || string(log) != "a line\n" {
		t.Errorf("%q, %v", log, err)
	}
	if o, err := r.Update(t.Context(), strings.NewReader("something else, and long enough")); err != nil || o.State != "refused" || o.Reason == "" {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := r.Update(t.Context(), bytes.NewReader(b.file(t, system, nil))); err != nil || o.State != "trial" {
		t.Errorf("%+v, %v", o, err)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Error(err)
	}
	<-b.reboot
	if err := r.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	for why := range b.reboot { // the update's own restart may still come first
		if why == Off {
			break
		}
	}
}

func TestRing(t *testing.T) {
	r := NewRing(100, nil)
	for range 100 {
		_, _ = r.Write([]byte("0123456789"))
	}
	if n := len(r.Bytes()); n < 100 || n > 125 {
		t.Errorf("%d bytes are kept", n)
	}
}

func TestScreen(t *testing.T) {
	text := string(State{Address: []string{"192.0.2.1", "2001:db8::1"}, Waiting: "an address", Slot: image.SlotB}.screen())
	for _, want := range []string{"http://192.0.2.1/", "http://[2001:db8::1]/", "Waiting for an address", "slot B"} {
		if !strings.Contains(text, want) {
			t.Errorf("the screen has no %q", want)
		}
	}
}

// TestFindDisk knows the box's disk by what its partitions are called.
func TestFindDisk(t *testing.T) {
	class, devices := t.TempDir(), t.TempDir()
	add := func(whole string, names ...string) {
		for i, name := range names {
			part := whole + string(rune('1'+i))
			dir := filepath.Join(devices, whole, part)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			uevent := "DEVNAME=" + part + "\nPARTN=" + string(rune('1'+i)) + "\nPARTNAME=" + name + "\n"
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "uevent"), []byte(uevent), 0o600), os.Symlink(dir, filepath.Join(class, part))); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("sda", "EFI", "root", "swap")
	if d := findDisks(class); len(d) > 0 {
		t.Errorf("found %+v", d)
	}
	add("vda", "cistern-esp", "CONFIG", "cistern-a", "cistern-b", "cistern-data")
	add("sdb", "cistern-esp", "CONFIG", "cistern-a", "cistern-b", "cistern-data")
	if d := findDisks(class); len(d) != 2 || d[0].name != "sdb" || d[1].name != "vda" || d[1].part(image.PartData) != "/dev/vda5" {
		t.Errorf("found %+v", d)
	}
}
