package peering

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/cistern-edge/cistern/cache/origin"
)

// leecher is a foreign client that wants a torrent from the box.
func leecher(t *testing.T, host string, mi *metainfo.MetaInfo, from string) *torrent.Torrent {
	t.Helper()
	cfg := peerConfig(host, t.TempDir())
	cfg.DialForPeerConns = true
	c, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	tor, err := c.AddTorrent(mi)
	if err != nil {
		t.Fatal(err)
	}
	tor.DownloadAll()
	meet(t, tor, from)
	return tor
}

// seeding is a box that has a torrent of size bytes.
func seeding(t *testing.T, size int, change func(*Config)) (b *box, infohash string, mi *metainfo.MetaInfo) {
	t.Helper()
	files := set{"disk.img": random(60, size)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	b = newBox(t, change)
	b.put("http://mirror.example.org/disk.img", files["disk.img"])
	snap := b.add(text, seedFrom(t, "127.0.0.77", files["disk.img"], mi))
	b.complete(snap.InfoHash)
	return b, snap.InfoHash, mi
}

func whole(tor *torrent.Torrent) func() bool {
	return func() bool { return tor.BytesMissing() == 0 }
}

// Peers outside and on the LAN get what their cap lets through, and no more.
func TestUploadCaps(t *testing.T) {
	atOnce(t)
	for name, c := range map[string]struct {
		change func(*Config, int64)
		host   string
	}{
		"outside": {func(c *Config, cap int64) { c.UploadRate = cap }, "127.0.4.1"},
		"LAN": {func(c *Config, cap int64) {
			c.LANUploadRate, c.LAN = cap, []netip.Prefix{netip.MustParsePrefix("127.0.4.0/24")}
		}, "127.0.4.2"},
	} {
		t.Run(name, func(t *testing.T) {
			atOnce(t)
			const cap = 512 << 10
			b, _, mi := seeding(t, 1<<20, func(cfg *Config) { c.change(cfg, cap) })
			began := time.Now()
			tor := leecher(t, c.host, mi, b.addr())
			until(t, "the leecher has it", whole(tor))
			got := float64(1<<20) - cap/4 // a quarter of a second comes at once
			figure(t, "limits: upload cap, "+name+": sent of what it lets through", got/time.Since(began).Seconds()/cap, 1.05, "×", true)
		})
	}
}

// A torrent that has been given away once is for the LAN alone, after a restart
// too.
func TestSeedRatio(t *testing.T) {
	atOnce(t)
	const size = 2 << 20
	b, infohash, mi := seeding(t, size, func(c *Config) {
		c.SeedRatio, c.UploadRate, c.LAN = 1, -1, []netip.Prefix{netip.MustParsePrefix("127.0.5.9/32")}
	})
	leecher(t, "127.0.5.1", mi, b.addr()) // it may lack the end: what wraps the pieces counts too
	until(t, "it has been given away once", func() bool { return b.torrent(infohash).Given >= size })
	b.stop()
	b.start()
	b.complete(infohash)
	second := leecher(t, "127.0.5.2", mi, b.addr())
	near := leecher(t, "127.0.5.9", mi, b.addr())
	until(t, "the LAN has it", whole(near))
	until(t, "nobody outside is connected", func() bool { return b.torrent(infohash).Outside == 0 })
	if got := second.BytesCompleted(); got > 0 {
		t.Errorf("the second leecher got %d bytes", got)
	}
	figure(t, "limits: given to the outside under a ratio of 1", float64(b.torrent(infohash).Given)/size, 1.05, "×", true)
}

// In hours without seeding the outside gets nothing of what is complete.
func TestSeedingHours(t *testing.T) {
	atOnce(t)
	var hour atomic.Int64
	hour.Store(9)
	b, infohash, mi := seeding(t, 1<<20, func(c *Config) {
		c.UploadRate = -1
		c.Hours = []Hours{{Hours: origin.Hours{From: 8 * time.Hour, To: 17 * time.Hour}}}
		c.now = func() time.Time { return time.Date(2026, 1, 2, int(hour.Load()), 0, 0, 0, time.UTC) }
	})
	tor := leecher(t, "127.0.6.1", mi, b.addr())
	time.Sleep(2500 * time.Millisecond) // it asks once a second
	figure(t, "limits: given in hours without seeding", float64(b.torrent(infohash).Up), 0, "piece bytes", true)
	hour.Store(18)
	until(t, "the leecher has it", whole(tor))
}

func TestHoursSayTheRate(t *testing.T) {
	atOnce(t)
	cfg := Config{UploadRate: 5, Hours: []Hours{
		{origin.Hours{From: 8 * time.Hour, To: 16 * time.Hour}, 0}, {origin.Hours{From: 22 * time.Hour, To: 6 * time.Hour}, -1},
	}}
	for hour, want := range map[int]int64{7: 5, 8: 0, 15: 0, 16: 5, 23: -1, 3: -1, 6: 5} {
		if got := cfg.uploadRate(time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%d h: %d, want %d", hour, got, want)
		}
	}
}

// Peers on the LAN are dialled past the guard, this machine and ports of the
// system are not.
func TestWhoIsDialledDirectly(t *testing.T) {
	atOnce(t)
	s := &Swarm{dial: nil}
	for addr, want := range map[string]bool{
		"10.255.254.253:6881": true, "[fd00::9]:51413": true, "10.255.254.253:80": false, "127.0.0.1:6881": false,
		"192.0.2.1:6881": false, "[fe80::1]:6881": false, "nonsense": false,
	} {
		if got := s.direct(addr) != nil; got != want {
			t.Errorf("%s: directly %v, want %v", addr, got, want)
		}
	}
}

// What a watched folder has is added once, and does not come back.
func TestWatchedFolder(t *testing.T) {
	atOnce(t)
	dir := t.TempDir()
	files := set{"disk.img": random(61, 300_000)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["hybrid"])
	web, _ := webServer(t, 0, files)
	b := newBox(t, func(c *Config) { c.Watch, c.watchEvery = dir, 20*time.Millisecond })
	for name, text := range map[string][]byte{"bad.torrent": []byte("d4:infoi1ee"), "note.txt": text, "release.TORRENT": seededBy(t, mi, web+"/disk.img")} {
		if err := writeFile(filepath.Join(dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	var infohash string
	until(t, "it was added", func() bool {
		for _, snap := range b.swarm.Stats().Torrents {
			infohash = snap.InfoHash
		}
		return infohash != ""
	})
	b.complete(infohash)
	b.holds("btih:"+infohash+"/disk.img", files["disk.img"])
	if err := b.swarm.Remove(t.Context(), infohash); err != nil {
		t.Fatal(err)
	}
	until(t, "the folder was looked at again", func() bool {
		before := b.swarm.Stats().Followed[0].Looked
		time.Sleep(60 * time.Millisecond)
		return b.swarm.Stats().Followed[0].Looked.After(before)
	})
	b.stop()
	b.start()
	until(t, "and after a start", func() bool {
		f := b.swarm.Stats().Followed
		return len(f) == 1 && !f[0].Looked.IsZero()
	})
	if list := b.swarm.Stats().Torrents; len(list) != 0 {
		t.Errorf("came back: %+v", list)
	}
}

// A feed's new release comes by itself; what is too large or does not fit stays.
func TestFeedIsFollowed(t *testing.T) {
	atOnce(t)
	files := set{"debian-1.iso": random(62, 200_000)}
	_, small := build(t, "debian-1.iso", files, 64<<10, modes["v1"])
	_, large := build(t, "debian-2.iso", set{"debian-2.iso": random(63, 900_000)}, 64<<10, modes["v1"])
	served := set{"debian-1.iso": files["debian-1.iso"], "list": []byte("<html><p>nothing yet</html>")}
	web, _ := webServer(t, 0, served)
	served["t/debian-1.iso.torrent"] = seededBy(t, small, web+"/debian-1.iso")
	served["t/debian-2.iso.torrent"] = seededBy(t, large)
	served["t/fedora.torrent"] = served["t/debian-1.iso.torrent"]
	served["list"] = fmt.Appendf(nil, `<rss><channel><item><title>x</title><enclosure url="%[1]s/t/debian-2.iso.torrent"/></item>
<item><title>y</title><enclosure url="t/debian-1.iso.torrent"/></item><item><enclosure url="t/fedora.torrent"/></item></channel></rss>`, web)
	b := newBox(t, func(c *Config) {
		c.Feeds = []Feed{{URL: web + "/list", Match: []string{"Debian-*"}, MaxBytes: 500_000}}
	})
	until(t, "the feed was read", func() bool {
		f := b.swarm.Stats().Followed
		return len(f) == 1 && !f[0].Looked.IsZero()
	})
	st := b.swarm.Stats()
	if len(st.Torrents) != 1 || st.Followed[0].Added != 1 || st.Followed[0].Err == "" {
		t.Fatalf("followed: %+v, torrents %+v", st.Followed, st.Torrents)
	}
	b.complete(st.Torrents[0].InfoHash)
	b.holds("btih:"+st.Torrents[0].InfoHash+"/debian-1.iso", files["debian-1.iso"])
}
