package peering

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// A torrent that a peer on the LAN has comes from there, not from peers and
// mirrors outside.
func TestLANComesFirst(t *testing.T) {
	atOnce(t)
	const size, perSecond = 10 << 20, 2 << 20
	files := set{"disk.img": random(80, size)}
	_, mi := build(t, "disk.img", files, 128<<10, modes["v1"])
	cfg := peerConfig("127.0.5.20", t.TempDir())
	cfg.DefaultStorage = memory(files["disk.img"])
	cfg.UploadRateLimiter = rate.NewLimiter(64<<10, 6<<20) // the rest is for when somebody has looked
	inside := client(t, cfg, mi)
	web, fromWeb := webServer(t, 0, files)
	outside := slowSeeds(t, 3, 1<<30, files["disk.img"], mi)
	var running atomic.Pointer[box]
	b := newBox(t, func(c *Config) {
		c.LAN = []netip.Prefix{netip.MustParsePrefix("127.0.5.20/32")}
		// The clock goes by what has come, so that peers are as fast as they are,
		// whatever the machine does.
		c.now = func() time.Time {
			var got int64
			if b := running.Load(); b != nil {
				st := b.swarm.client.Stats()
				got = st.BytesReadUsefulData.Int64()
			}
			return time.Unix(1e9, 0).Add(time.Duration(float64(got) / perSecond * float64(time.Second)))
		}
	})
	b.addr()
	running.Store(b)
	snap := b.add(seededBy(t, mi), inside)
	sh := b.share(snap.InfoHash)
	until(t, "the LAN is known to bring it", sh.near.feeds.Load)
	b.point(snap.InfoHash, outside...)
	cfg.UploadRateLimiter.SetLimit(rate.Inf)
	b.add(seededBy(t, mi, web+"/disk.img"))
	b.complete(snap.InfoHash)
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
	if got := sent(outside...) + fromWeb.Load(); got > size/20 {
		t.Errorf("the outside sent %d of %d bytes", got, size)
	}
}

// TestNearby tells when the LAN is enough, second by second.
func TestNearby(t *testing.T) {
	t.Parallel()
	n, now := &nearby{}, time.Unix(1e9, 0)
	for _, step := range []struct {
		what          string
		after         time.Duration
		got           int64
		whole         bool
		enough, feeds bool
	}{
		{"begins", 0, 0, true, false, false},
		{"too early to say", time.Second, 9 << 20, true, false, false},
		{"brings much", time.Second, 9 << 20, true, true, true},
		{"has not all", time.Second, 10 << 20, false, true, false},
		{"has all", time.Second / 2, 12 << 20, true, true, true},
		{"stalls", time.Second / 2, 12 << 20, true, true, true},
		{"has stalled", 2 * time.Second, 12 << 20, true, false, false},
		{"comes back", 2 * time.Second, 15 << 20, true, true, true},
		{"leaves", 0, 0, false, false, false},
		{"the clock was set", -time.Hour, 5 << 20, true, false, false},
		{"again", 2 * time.Second, 9 << 20, true, true, true},
	} {
		now = now.Add(step.after)
		if n.update(now, step.got, step.whole); n.enough != step.enough || n.feeds.Load() != step.feeds {
			t.Errorf("%s: enough %t, feeds %t", step.what, n.enough, n.feeds.Load())
		}
	}
}
