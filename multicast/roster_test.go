package multicast

import (
	"path/filepath"
	"testing"
)

// TestRosterAnswersWhileItIsWritten: sessions look agents up, and must not wait
// for the disk.
func TestRosterAnswersWhileItIsWritten(t *testing.T) {
	r, err := OpenRoster(filepath.Join(t.TempDir(), "agents.json"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Enrol("first", "")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	r.write = func(string, []byte) error {
		asked++
		if _, ok := r.Get(first.Node); ok != (asked == 1) {
			t.Errorf("write %d: the first agent is on the roster: %t", asked, ok)
		}
		return nil
	}
	if _, err := r.Enrol("second", ""); err != nil {
		t.Fatal(err)
	}
	if err := r.Revoke(first.Node); err != nil {
		t.Fatal(err)
	}
	if asked != 2 {
		t.Errorf("the roster was written %d times, want 2", asked)
	}
}
