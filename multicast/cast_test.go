package multicast

import (
	"sync"
	"testing"
	"testing/synctest"
)

// TestManyAgents casts one object to agents with 2 % independent loss each and
// prints what it cost.
func TestManyAgents(t *testing.T) {
	for _, c := range []struct {
		name   string
		agents int
		size   int
		bound  float64 // bytes sent by the box, HTTP repair included, per byte of the object
	}{
		{"8 agents", 8, 4 << 20, 1.20},
		{"100 agents", 100, 4 << 20, 1.30},
	} {
		t.Run(c.name, func(t *testing.T) {
			if raceOn && c.agents > 10 {
				c.size /= 4    // the same story, at a size that the detector leaves time for;
				c.bound += 0.2 // what a session costs once weighs more
			}
			data := noise(1, c.size)
			store := openStore(t)
			info := keep(t, store, "http://origin/file", data, true)
			synctest.Test(t, func(t *testing.T) {
				b := newBox(t, store, CasterConfig{})
				b.offer("http://origin/file", info)
				var agents []*agent
				for i := range c.agents {
					agents = append(agents, b.agent(i, 0.02, data))
				}
				var wg sync.WaitGroup
				for _, a := range agents {
					wg.Go(func() {
						sink, _, err := a.get("http://origin/file")
						if err != nil {
							t.Error(err)
							return
						}
						whole(t, sink, data)
					})
				}
				wg.Wait()
				sent := b.hub.sent(b.host)
				var repair int64
				for _, a := range agents {
					repair += a.repair.Load()
				}
				ratio := float64(sent+repair) / float64(c.size)
				t.Logf("multicast %.4f, HTTP %.4f, together %.4f", float64(sent)/float64(c.size), float64(repair)/float64(c.size), ratio)
				if ratio > c.bound {
					t.Errorf("the box sent %.4f bytes per byte of the object, at most %.2f", ratio, c.bound)
				}
			})
		})
	}
}
