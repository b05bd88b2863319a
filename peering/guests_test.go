package peering

import (
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	utp "github.com/anacrolix/go-utp"
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

// TestTCPFirst tells for how long a host is kept from uTP.
func TestTCPFirst(t *testing.T) {
	t.Parallel()
	f, now, host := &firsts{}, time.Unix(1e9, 0), netip.MustParseAddr("10.0.0.7")
	if f.pending(now, host) {
		t.Error("before it is dialled")
	}
	f.begin(now, host)
	if !f.pending(now.Add(tcpFirst-1), host) || f.pending(now.Add(tcpFirst), host) || f.pending(now, netip.MustParseAddr("10.0.0.8")) {
		t.Error("not for as long as it takes, or somebody else")
	}
	f.begin(now, host)
	f.end(host)
	if f.pending(now, host) {
		t.Error("after it could not be reached")
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

// A uTP connection by which nothing has come for a while is given up, if its client
// wants data that the box has.
func TestHaltedUTPIsGivenUp(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(82, 1<<20)}
	_, mi := build(t, "disk.img", files, 128<<10, modes["v1"])
	var later atomic.Int64
	b := newBox(t, func(c *Config) {
		c.LAN = []netip.Prefix{netip.MustParsePrefix("127.0.5.0/24")}
		c.now = func() time.Time { return time.Unix(1e9, later.Load()) }
	})
	addr := b.addr()
	snap := b.add(seededBy(t, mi), seed(t, "127.0.0.2", "disk.img", files, mi))
	b.complete(snap.InfoHash)

	infohash := [20]byte(metainfo.NewHashFromHex(snap.InfoHash))
	socket, err := utp.NewSocket("udp", "127.0.5.22:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	conn, err := socket.DialContext(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00"), infohash[:]...)
	if _, err := conn.Write(append(hello, "-XX0000-abcdefghijkl"...)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(closed)
	}()
	hosts := b.share(snap.InfoHash).hosts
	until(t, "the box has the connection", func() bool { return len(hosts()) == 1 })
	pass := func() {
		for range 4 { // the clock goes on, and the loop has looked
			later.Add(int64(maxLull / 3))
			time.Sleep(4 * b.cfg.tick)
		}
	}
	if pass(); len(hosts()) != 1 {
		t.Fatal("closed without anybody wanting anything")
	}
	b.swarm.Greet(infohash, netip.MustParseAddrPort("127.0.5.22:6881"), true)
	until(t, "the connection is given up", func() bool {
		pass()
		select {
		case <-closed:
			return true
		default:
			return false
		}
	})
}
