//go:build soak

package hwtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/image"
)

// Stories of the appliance in an emulator: minutes each and 110 MiB from the
// Debian archive the first time, so they are built for make soak alone.

// TestImageReady makes what the other stories begin with and share, so that the
// first of them is not the slowest. What is there already stays.
func TestImageReady(t *testing.T) {
	f := newFoundry(t)
	for _, kind := range []string{"panic", "hang", "deaf"} {
		f.broken(t, kind)
	}
	f.good(t)
	f.running(t)
}

// TestImageStarts: the image starts on every kind of PC, the panel answers and a
// client reaches an origin through the box.
func TestImageStarts(t *testing.T) {
	for _, row := range []struct {
		name string
		pc   pc
		says string
	}{
		{"uefi", pc{}, "UEFI"},
		{"bios", pc{firmware: "bios"}, "BIOS"},
		{"secure", pc{firmware: "secure"}, "UEFI, Secure Boot"},
		{"nvme", pc{disk: "nvme", nic: "e1000e"}, "UEFI"},
		{"sata", pc{disk: "sata", nic: "rtl8139"}, "UEFI"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newMachine(t, row.pc, newFoundry(t).base(t), diskSize)
			if row.name == "uefi" {
				m.verbose(t)
			}
			m.starts(t, row.name, row.says)
			if row.name == "uefi" {
				t.Logf("figure: image, seconds from the kernel's start under emulation: %s (measured)", m.stages(t))
				time.Sleep(20 * time.Second) // until nothing goes on any more
				if s, err := m.box.System(t.Context()); err != nil {
					t.Error(err)
				} else {
					figureAtLeast(t, "image: memory that is available on a machine of 1 GiB, daemon idle", float64(s.MemAvailable)/1e6, 600, "MB")
				}
			}
		})
	}
}

// starts turns a new machine on and uses it as a box.
func (m *machine) starts(t *testing.T, name, firmware string) {
	t.Helper()
	m.powerOn(t)
	s := m.awaitStart(t)
	if s.Version != "1.0" || s.Slot != "a" || s.Boots != 1 || s.Firmware != firmware {
		t.Errorf("runs %+v", s)
	}
	w := newWorld(t)
	if first, again := m.throughTheBox(t, w, "/file"), m.throughTheBox(t, w, "/file"); first != 1 || again != 0 {
		t.Errorf("the origin was asked %d and %d times", first, again)
	}
	t.Logf("figure: image on %s, kernel start to a working box under emulation: %.1f s (measured)", name, s.ReadyIn)
}

func figureAtLeast(t *testing.T, name string, value, bound float64, unit string) {
	t.Helper()
	verdict := "ok"
	if value < bound {
		verdict = "short"
		t.Errorf("%s is %.4g %s, at least %.4g", name, value, unit, bound)
	}
	t.Logf("figure: %s: %.4g %s (at least %.4g): %s", name, value, unit, bound, verdict)
}

// TestImageUpdate: a good update is committed, and what was cached before it
// comes from the box after it.
func TestImageUpdate(t *testing.T) {
	f := newFoundry(t)
	w := newWorld(t)
	update := f.good(t)
	m := f.running(t)
	m.throughTheBox(t, w, "/kept")
	m.update(t, update)
	s := m.await(t, "the new system", func(s client.System) bool { return s.Last != nil && s.Last.State == "committed" && working(s) })
	if s.Version != "1.2" || s.Slot != "b" || s.Boots != 2 {
		t.Errorf("updated to %+v", s)
	}
	if n := m.throughTheBox(t, w, "/kept"); n != 0 {
		t.Errorf("the cache did not outlive the update: the origin was asked %d times", n)
	}
	m.powerOff()
	m.powerOn(t)
	if s := m.awaitStart(t); s.Version != "1.2" || s.Boots != 3 {
		t.Errorf("after a power cut runs %+v", s)
	}
}

// TestImageFallsBack: a broken release is left for the one before it, the reason
// is told, and the cache is still there.
func TestImageFallsBack(t *testing.T) {
	for _, row := range []struct {
		kind, reason string
		boots        uint64 // starts that the data partition saw, the first among them
	}{
		{"panic", "started 3 times", 2},
		{"hang", "started 3 times", 2},
		{"deaf", "a network interface", 3},
	} {
		t.Run(row.kind, func(t *testing.T) {
			f := newFoundry(t)
			w := newWorld(t)
			update := f.broken(t, row.kind)
			m := f.running(t)
			m.throughTheBox(t, w, "/kept")
			m.update(t, update)
			s := m.await(t, "the fall back", func(s client.System) bool { return s.Last != nil && s.Last.State == "failed" && working(s) })
			if s.Version != "1.0" || s.Slot != "a" || s.Boots != row.boots || !strings.Contains(s.Last.Reason, row.reason) {
				t.Errorf("fell back to %+v, %+v", s, s.Last)
			}
			t.Logf("figure: image, a release that %ss: %q (told)", row.kind, s.Last.Reason)
			if n := m.throughTheBox(t, w, "/kept"); n != 0 {
				t.Errorf("the cache did not outlive it: the origin was asked %d times", n)
			}
		})
	}
}

// TestImageRefuses: an update that must not be taken is refused with the reason,
// and the running system is as it was, now and after a restart.
func TestImageRefuses(t *testing.T) {
	f := newFoundry(t)
	good := f.good(t)
	body, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.update")
	if err := os.WriteFile(cut, body[:len(body)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	type offer struct{ name, file, reason string }
	for name, offers := range map[string][]offer{
		"bad files": {
			{"another's signature", f.make(t, "1.3", 103, "", "stranger") + ".update", "signature"},
			{"older", f.make(t, "0.9", 99, "", "key") + ".update", "older"},
			{"what runs", f.make(t, "1.0", 100, "", "key") + ".update", "runs already"},
			{"cut short", cut, "cut short"},
		},
		"a full disk": {{"a full disk", good, "no room"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, pc{}, f.base(t), 0) // nothing to grow into
			if name == "a full disk" {
				m.ballast(t, 16*image.MiB) // the cache itself leaves room
			}
			m.powerOn(t)
			m.awaitStart(t)
			slots := m.slots(t)
			for _, o := range offers {
				_, err := m.offer(t, o.file)
				m.refused(t, o.name, o.reason, err)
			}
			m.powerOff()
			if m.slots(t) != slots {
				t.Error("a refused update changed a slot")
			}
			m.powerOn(t)
			last := offers[len(offers)-1].reason
			if s := m.awaitStart(t); s.Version != "1.0" || s.Slot != "a" || s.Last == nil || !strings.Contains(s.Last.Reason, last) {
				t.Errorf("after refusals runs %+v, %+v", s, s.Last)
			}
		})
	}
}

// refused says that an update was.
func (m *machine) refused(t *testing.T, name, reason string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: %v", name, err)
	}
	s, serr := m.box.System(t.Context())
	if serr != nil || s.Version != "1.0" || s.OnTrial || s.Last == nil || s.Last.State != "refused" || !strings.Contains(s.Last.Reason, reason) {
		t.Errorf("%s: the box says %+v, %+v, %v", name, s, s.Last, serr)
	}
	t.Logf("figure: image, update refused (%s): %v (told)", name, err)
}
