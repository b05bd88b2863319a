package hwtest

import (
	"os"
	"testing"
)

// soak says whether the stories run at full size (make soak).
func soak() bool { return os.Getenv("CISTERN_SOAK") == "1" }

// figure states a measured figure beside the most that it may be, in the form
// that make soak prints, and fails the test if it is more.
func figure(t *testing.T, name string, value, bound float64, unit string) {
	t.Helper()
	verdict := "ok"
	if value > bound {
		verdict = "short"
		t.Errorf("%s is %.4g %s, at most %.4g", name, value, unit, bound)
	}
	t.Logf("figure: %s: %.4g %s (bound %.4g): %s", name, value, unit, bound, verdict)
}
