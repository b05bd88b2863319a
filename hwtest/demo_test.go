package hwtest

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestReleaseDay runs `make demo`, small. The demo fails by itself if a digest
// disagrees or a figure does not hold.
func TestReleaseDay(t *testing.T) {
	lab.Require(t, lab.Root)
	size := "40MB"
	if soak() {
		size = "200MB"
	}
	demo := filepath.Join(t.TempDir(), "demo")
	run(t, ".", []string{"CGO_ENABLED=0"}, "go", "build", "-o", demo, "./demo")
	out, err := exec.CommandContext(t.Context(), demo, "lan", "--size", size, "--bin", bin).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
