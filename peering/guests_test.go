package peering

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
)

// TestGuests tells who is dialled when, second by second.
func TestGuests(t *testing.T) {
	t.Parallel()
	g, now := &guests{}, time.Unix(1e9, 0)
	one, other := netip.MustParseAddrPort("10.0.0.7:51413"), netip.MustParseAddrPort("10.0.0.8:6881")
	connected := map[netip.Addr]bool{}
	look := func(what string, want ...netip.AddrPort) {
		t.Helper()
		got := g.missed(now, func() map[netip.Addr]bool { return connected })
		slices.SortFunc(got, netip.AddrPort.Compare)
		if !slices.Equal(got, want) {
			t.Errorf("%s: dials %v, want %v", what, got, want)
		}
	}
	look("nobody is known")
	if !g.heard(now, one, true) || g.heard(now, one, true) || !g.heard(now, other, true) {
		t.Error("who is new was not told")
	}
	look("two are new", one, other)
	look("they are being dialled")
	connected[one.Addr()] = true
	now = now.Add(guestWait)
	look("one is connected", other)
	g.heard(now, other, false)
	now = now.Add(2 * guestWait)
	look("the other wants nothing more")
	delete(connected, one.Addr())
	now = now.Add(guestWait)
	look("the one is lost", one)
	for range maxGuestTries + 2 {
		now = now.Add(guestWait<<maxGuestTries + time.Second)
		g.heard(now, one, true)
		look("it cannot be reached", one)
	}
	now = now.Add(guestWait)
	look("and is not dialled all the time")
	now = now.Add(guestLife + time.Second)
	look("nothing was heard of it")
	if len(g.seen) != 0 {
		t.Errorf("remembers %v", g.seen)
	}
}

// A client that never dials gets what the box has: it is dialled as soon as it
// has announced itself, and again when the connection was lost.
func TestBoxDialsWhoAnnounces(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(81, 4<<20)}
	_, mi := build(t, "disk.img", files, 128<<10, modes["v1"])
	b := newBox(t, func(c *Config) { c.LAN = []netip.Prefix{netip.MustParsePrefix("127.0.5.0/24")} })
	b.addr()
	snap := b.add(seededBy(t, mi), seed(t, "127.0.0.2", "disk.img", files, mi))
	b.complete(snap.InfoHash)

	shy := client(t, peerConfig("127.0.5.21", t.TempDir()), mi)
	at := netip.MustParseAddrPort(tcpAddr(shy))
	infohash := [20]byte(metainfo.NewHashFromHex(snap.InfoHash))
	for _, unwelcome := range []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6881"), netip.AddrPortFrom(at.Addr(), 80)} {
		b.swarm.Greet(infohash, unwelcome, true)
	}
	b.swarm.Greet([20]byte{1}, at, true)
	if known := len(b.share(snap.InfoHash).guests.seen); known != 0 {
		t.Errorf("%d were taken for guests", known)
	}
	got, _ := shy.AddTorrentOpt(torrent.AddTorrentOpts{InfoHash: infohash})
	got.DownloadAll()
	b.swarm.Greet(infohash, at, true)
	until(t, "the client has it all", func() bool { return got.Complete().Bool() })
}
