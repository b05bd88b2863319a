package cache

import (
	"path/filepath"
	"testing"
)

// TestPurgeIsFinished: a crash between the denial and the removal does not save
// the object.
func TestPurgeIsFinished(t *testing.T) {
	s := open(t, Config{})
	const name = "http://a.example/x"
	put(t, s, name, noise(1, 5000))
	put(t, s, "http://b.example/x", noise(2, 5000))
	if _, err := s.denied.set(listed{Denial{What: name, Why: "test", By: "test"}, true}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, _, ok := s.Lookup(name); ok {
		t.Error("what is taken down is here")
	}
	wantObject(t, s, "http://b.example/x", noise(2, 5000))
	if left := s.denied.pending(); len(left) > 0 {
		t.Errorf("left to do is %v", left)
	}
	flip(t, filepath.Join(s.cfg.Dir, deniedFile), 8*60)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.cfg, s.log); err == nil {
		t.Error("a list of takedowns was believed after a bit of it flipped")
	}
}
