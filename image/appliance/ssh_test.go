package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/image"
	"github.com/cistern-edge/cistern/image/appliance/shell"
)

const annsKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbAk2Jw5hL4kqJ8vZ5oJ0oQm7iT0D1xOaEcTwqC0b9H ann@desk"

// TestLogins lets a key in and takes it away; what else is in the file stays.
func TestLogins(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	if s := b.SSH(); s.On || len(s.Keys) != 0 {
		t.Errorf("before: %+v", s)
	}
	if err := os.WriteFile(b.keysFile(), []byte("# ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.AddKey("nonsense"); !errors.Is(err, shell.ErrKey) {
		t.Errorf("nonsense: %v", err)
	}
	if err := b.AddKey(" " + annsKey + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := b.AddKey(annsKey); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("the same again: %v", err)
	}
	s := b.SSH()
	if !s.On || len(s.Keys) != 1 || s.Keys[0].Comment != "ann@desk" {
		t.Fatalf("%+v", s)
	}
	if err := b.RemoveKey("SHA256:x"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	if err := b.RemoveKey(s.Keys[0].Fingerprint); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(b.keysFile()); err != nil || string(text) != "# ours\n" || b.SSH().On {
		t.Errorf("after: %q, %v", text, err)
	}
}

func TestHostKey(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	first, err := b.ownHostKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.ownHostKey()
	if err != nil || string(first) != string(again) || !strings.HasPrefix(b.SSH().HostKey, "SHA256:") {
		t.Errorf("the next start has another key: %v", err)
	}
	if info, err := os.Stat(filepath.Join(b.state, hostKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if s := b.State(); s.HostKey != "" {
		t.Error("the screen tells of SSH while it is not answered")
	}
	b.setOpen(true)
	if s := b.State(); !strings.Contains(string(s.screen()), "host key SHA256:") {
		t.Error("the screen does not tell of SSH")
	}
}

func TestPanelAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cistern.toml")
	for text, want := range map[string]string{
		"[admin]\nlisten = \":80\"\n":              "http://127.0.0.1:80",
		"[admin]\nlisten = \"[::]:81\"\n":          "http://127.0.0.1:81",
		"[admin]\nlisten = \"192.0.2.1:8080\"\n":   "http://192.0.2.1:8080",
		"[proxy]\nlisten = \":3142\"\n":            "http://127.0.0.1:8080",
		"nonsense":                                 "http://127.0.0.1:8080",
		"[admin]\nlisten = 7\nnames = [\"a\"]\n":   "http://127.0.0.1:8080",
		"version = 1\n[admin]\nlisten = \"x:1\"\n": "http://x:1",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := panelAddress(file); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
