package multicast

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// TestCastFigures: what a cast to eight agents puts on the wire by default, as a
// multiple of the object, and that no HTTP is needed, with losses one by one and
// in bursts as long as 10 ms at 100 Mbit/s.
func TestCastFigures(t *testing.T) {
	size, leeway := 8<<20, 0.04 // of the few blocks of a small object
	if os.Getenv("CISTERN_SOAK") == "1" {
		size, leeway = 64<<20, 0
	}
	for _, c := range []struct {
		loss  float64
		burst int
		bound float64
	}{
		{0, 0, 1.055},
		{0.02, 0, 1.095},
		{0.05, 0, 1.14},
		{0.02, 85, 1.16},
		{0.05, 85, 1.25},
	} {
		name := fmt.Sprintf("norm cast: 8 agents, %.0f %%", 100*c.loss)
		if c.burst > 0 {
			name += " in bursts of 10 ms"
		}
		story(t, size, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
			var agents []*agent
			for i := range 8 {
				a := b.agent(i, c.loss, data)
				a.host.burst = c.burst
				agents = append(agents, a)
			}
			together(t, data, agents...)
			time.Sleep(2 * tailTime)
			var http int64
			for _, a := range agents {
				http += a.repair.Load()
			}
			s := b.last()
			wire, bound, verdict := float64(s.Wire)/float64(info.Size), c.bound+leeway, "ok"
			if wire > bound || http > 0 {
				verdict = "short"
				t.Errorf("%s: %.4f x object on the wire, want at most %.4f; %d bytes by HTTP", name, wire, bound, http)
			}
			t.Logf("figure: %s, wire: %.4f x object (bound %.4g), %d bytes by HTTP: %s", name, wire, bound, http, verdict)
		})
	}
}
