package hwtest

import (
	"testing"

	"github.com/cistern-edge/cistern/admin/client"
)

// TestImage is what CI sees of the appliance, on one emulated PC with UEFI: it
// starts, a client reaches an origin through it, a bad update is left for the
// release before it, a good one is committed, and the cache outlives both. make
// soak ONLY=image has the rest. Without an emulator it is skipped; the Debian
// packages of the image, 110 MB, are fetched once and kept in the user's cache.
func TestImage(t *testing.T) {
	f := newFoundry(t)
	m := newMachine(t, pc{}, f.base(t), diskSize)
	w := newWorld(t)
	m.powerOn(t)
	if s := m.awaitStart(t); s.Version != "1.0" || s.Slot != "a" || s.Boots != 1 || s.Firmware != "UEFI" {
		t.Errorf("runs %+v", s)
	}
	if n := m.throughTheBox(t, w, "/kept"); n != 1 {
		t.Errorf("the origin was asked %d times for what nobody had", n)
	}
	m.update(t, f.broken(t, "deaf"))
	s := m.await(t, "the fall back", func(s client.System) bool { return s.Last != nil && s.Last.State == "failed" && working(s) })
	if s.Version != "1.0" || s.Slot != "a" || s.Last.Version != "1.1-deaf" || s.Last.Reason == "" {
		t.Errorf("fell back to %+v, %+v", s, s.Last)
	}
	t.Logf("left for the release before it: %s", s.Last.Reason)
	m.update(t, f.good(t))
	s = m.await(t, "the new system", func(s client.System) bool { return s.Last != nil && s.Last.State == "committed" && working(s) })
	if s.Version != "1.2" || s.Slot != "b" {
		t.Errorf("updated to %+v", s)
	}
	if n := m.throughTheBox(t, w, "/kept"); n != 0 {
		t.Errorf("the cache did not outlive the updates: the origin was asked %d times", n)
	}
}
