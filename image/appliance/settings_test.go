package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTake: what lies on the CONFIG partition is taken at the first start, and
// again when somebody has changed it there.
func TestTake(t *testing.T) {
	dir := t.TempDir()
	from, to, record := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "taken.json")
	put := func(name, body string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(body), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		does func()
		took string
		has  string
	}{
		{func() {}, "", ""},
		{func() { put(from+"/network.toml", "wrong") }, "network.toml", "wrong"},
		{func() {}, "", "wrong"},
		{func() { put(to, "the panel's") }, "", "the panel's"},
		{func() { put(from+"/network.toml", "right") }, "network.toml", "right"},
		{func() { _ = os.Remove(to) }, "network.toml", "right"},
		{func() { _ = os.Remove(from + "/network.toml"); put(to, "the panel's") }, "", "the panel's"},
		{func() { put(from+"/network.toml", "right") }, "network.toml", "right"},
		{func() { put(record, "damaged"); put(to, "an older release's") }, "", "an older release's"},
		{func() { put(from+"/network.toml", "better") }, "network.toml", "better"},
	} {
		step.does()
		took, err := take(from, record, []setting{{"network.toml", to, 0o600}})
		has, _ := os.ReadFile(to) // none at first
		if err != nil || strings.Join(took, " ") != step.took || string(has) != step.has {
			t.Errorf("step %d: took %q, has %q, %v", i, took, has, err)
		}
	}
	put(from+"/network.toml", "best")
	if took, err := take(from, record, []setting{{"network.toml", filepath.Join(dir, "nowhere", "x"), 0o600}}); err == nil || len(took) != 0 {
		t.Errorf("took %q where nothing can be written", took)
	}
	if took, err := take(from, record, []setting{{"network.toml", to, 0o600}}); err != nil || len(took) != 1 {
		t.Errorf("what could not be taken was not tried again: %q, %v", took, err)
	}
	if text := string(State{Took: []string{"network.toml"}}.screen()); !strings.Contains(text, "CONFIG: network.toml") {
		t.Errorf("the screen says %q", text)
	}
}
