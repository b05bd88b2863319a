package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/admin/client"
)

func TestUpdate(t *testing.T) {
	b := newBox(t)
	b.answers["GET /api/v1/system"] = client.System{
		Version: "1.1", Slot: "b", Boots: 7, Healthy: true,
		Last: &client.Update{Version: "1.2", State: "failed", Reason: "it came as far as: data mounted"},
	}
	code, out, errs := b.do("update")
	if code != Done || !strings.Contains(out, "1.1 in slot b, start 7: works") || !strings.Contains(out, "1.2 failed it came as far as: data mounted") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	file := filepath.Join(t.TempDir(), "x.update")
	if err := os.WriteFile(file, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.answers["POST /api/v1/system/update"] = client.Update{Version: "1.2", Slot: "a", State: "trial"}
	if code, out, errs := b.do("update", file); code != Done || !strings.Contains(out, "1.2 is in slot a") {
		t.Errorf("%d %q %q", code, out, errs)
	}
}
