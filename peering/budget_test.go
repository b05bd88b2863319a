package peering

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"golang.org/x/time/rate"
)

func TestConnectionsStayWithinTheBudget(t *testing.T) {
	atOnce(t)
	const seeds, most = 40, 6
	files := set{"disk.img": random(30, 4<<20)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	var clients []*torrent.Client
	for i := range seeds {
		cfg := peerConfig(fmt.Sprintf("127.0.1.%d", i+1), t.TempDir())
		cfg.DefaultStorage = memory(files["disk.img"])
		cfg.UploadRateLimiter = rate.NewLimiter(256<<10, 512<<10) // one alone would take long
		clients = append(clients, client(t, cfg, mi))
	}
	b := newBox(t, func(c *Config) { c.MaxConnections, c.MaxHalfOpen = most, 4 })
	snap := b.add(text, clients...)
	for _, c := range clients { // and they come by themselves
		c.Torrents()[0].AddPeers([]torrent.PeerInfo{{Addr: torrent.StringAddr(b.addr())}})
	}
	until(t, "the torrent is complete", func() bool {
		established := 0
		for _, c := range clients {
			established += c.Torrents()[0].Stats().ActivePeers
		}
		if st := b.swarm.Stats(); st.Outside > most || st.Reserved > most {
			t.Fatalf("%d connections, %d reserved", st.Outside, st.Reserved)
		}
		return b.torrent(snap.InfoHash).State == StateComplete
	})
	if st := b.swarm.Stats(); st.Peak > most || st.Peak < 2 {
		t.Errorf("peak of %d connections", st.Peak)
	}
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
}

func TestSecondTorrentGetsItsPart(t *testing.T) {
	atOnce(t)
	b := newBox(t, func(c *Config) { c.MaxConnections, c.MaxHalfOpen = 4, 2 })
	slow := set{"slow.img": random(35, 4<<20)}
	text, mi := build(t, "slow.img", slow, 64<<10, modes["v1"])
	var seeds []*torrent.Client
	for i := range 8 {
		cfg := peerConfig(fmt.Sprintf("127.0.2.%d", i+1), t.TempDir())
		cfg.DefaultStorage = memory(slow["slow.img"])
		cfg.UploadRateLimiter = rate.NewLimiter(1<<10, 32<<10) // a quarter of an hour, for all of them
		seeds = append(seeds, client(t, cfg, mi))
	}
	first := b.add(text, seeds...)
	until(t, "the first has taken all", func() bool { return b.torrent(first.InfoHash).Outside == 4 })

	quick := set{"quick.img": random(36, 1<<20)}
	text, mi = build(t, "quick.img", quick, 64<<10, modes["v1"])
	second := b.add(text, seedFrom(t, "127.0.3.1", quick["quick.img"], mi))
	b.complete(second.InfoHash)
	if snap := b.torrent(first.InfoHash); snap.State != StateFetching {
		t.Errorf("the first is %s: it was no rival", snap.State)
	}
}

// seedFrom starts a seed that has its bytes in memory.
func seedFrom(t *testing.T, host string, data []byte, mi *metainfo.MetaInfo) *torrent.Client {
	t.Helper()
	cfg := peerConfig(host, t.TempDir())
	cfg.DefaultStorage = memory(data)
	return client(t, cfg, mi)
}

func TestLANPeersAreNotCounted(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(31, 1<<20)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["hybrid"])
	s := seed(t, "127.0.0.1", "disk.img", files, mi)
	b := newBox(t, func(c *Config) { c.LAN = loopback })
	b.complete(b.add(text, s).InfoHash)
	if st := b.swarm.Stats(); st.Peak != 0 {
		t.Errorf("peak of %d connections outside", st.Peak)
	}
}

// A tracker, a peer or a magnet can name any address, also one on the LAN.
func TestGuardRefusesPeers(t *testing.T) {
	atOnce(t)
	t.Run("outside", func(t *testing.T) { guardRefuses(t, nil) })
	t.Run("on the LAN", func(t *testing.T) { guardRefuses(t, func(c *Config) { c.LAN = loopback }) })
}

func guardRefuses(t *testing.T, change func(*Config)) {
	files := set{"disk.img": random(32, 1<<20)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	s := seed(t, "127.0.0.1", "disk.img", files, mi)
	b := newBox(t, change)
	b.stop()
	asked := make(chan string, 100)
	b.dial = func(_ context.Context, network, addr string) (net.Conn, error) {
		select {
		case asked <- network + " " + addr:
		default:
		}
		return nil, fmt.Errorf("connect to %s: refused", addr)
	}
	b.start()
	b.add(text, s)
	for _, want := range []string{"tcp " + tcpAddr(s), "udp " + tcpAddr(s)} {
		if got := <-asked; got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
	}
	if got := sent(s); got != 0 {
		t.Errorf("%d bytes came all the same", got)
	}
}

func TestPeerThatIsAwayIsTriedAgain(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(33, 1<<20)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	reserved, err := net.Listen("tcp", "127.0.0.7:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := reserved.Addr().(*net.TCPAddr)
	_ = reserved.Close()
	b := newBox(t, nil)
	snap := b.add(text)
	b.share(snap.InfoHash).t.AddPeers([]torrent.PeerInfo{{Addr: torrent.StringAddr(addr.String())}})
	until(t, "the peer was missed", func() bool {
		b.swarm.book.mu.Lock()
		defer b.swarm.book.mu.Unlock()
		return len(b.swarm.book.peers) > 0
	})
	cfg := peerConfig("127.0.0.7", t.TempDir())
	cfg.SetListenAddr(addr.String())
	cfg.DefaultStorage = memory(files["disk.img"])
	c, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.AddTorrent(mi); err != nil {
		t.Fatal(err)
	}
	b.complete(snap.InfoHash)
}

func TestOnlyUTPPeerIsReached(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(34, 1<<20)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	cfg := peerConfig("127.0.0.8", t.TempDir())
	cfg.DisableTCP = true
	cfg.DefaultStorage = memory(files["disk.img"])
	c, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.AddTorrent(mi); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, nil)
	b.complete(b.add(text, c).InfoHash)
}

func TestBudgetIsBounded(t *testing.T) {
	atOnce(t)
	freed := 0
	b := newBudget(1, func() { freed++ })
	if !b.take() || b.take() || !b.full() {
		t.Fatal("not one slot")
	}
	b.free()
	if _, taken, _ := b.figures(); taken != 0 || freed != 1 || b.full() {
		t.Errorf("%d taken, %d freed", taken, freed)
	}
}

func TestBookGivesUpInTheEnd(t *testing.T) {
	atOnce(t)
	b := newBook(time.Minute)
	addr := netip.MustParseAddrPort("192.0.2.1:6881")
	of, all := []*share{{}}, func(*share) bool { return true }
	now := time.Now()
	for i := range maxFailures {
		b.failed(addr, of)
		wait := time.Minute << i
		if due := b.due(now.Add(wait-time.Second), all); len(due) != 0 {
			t.Errorf("failure %d: due too early", i+1)
		}
		if due := b.due(now.Add(wait+time.Hour), all); due[addr] != of[0] {
			t.Errorf("failure %d: due %v", i+1, due)
		}
	}
	b.failed(addr, of)
	if len(b.peers) != 0 {
		t.Error("not given up")
	}
	for i := range 2 * maxContacts {
		b.later(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1), of)
	}
	if len(b.peers) > maxContacts {
		t.Errorf("%d peers remembered", len(b.peers))
	}
	if b.due(now.Add(time.Hour), func(*share) bool { return false }); len(b.peers) != 0 {
		t.Errorf("%d peers remembered for nobody", len(b.peers))
	}
}

func TestBookLetsTorrentsTakeTurns(t *testing.T) {
	atOnce(t)
	b := newBook(time.Minute)
	addr := netip.MustParseAddrPort("192.0.2.1:6881")
	first, second := &share{}, &share{made: true}
	all := func(*share) bool { return true }
	at := time.Now()
	b.failed(addr, []*share{first, second})
	for i, want := range []*share{first, second, first} {
		at = at.Add(time.Hour)
		if got := b.due(at, all)[addr]; got != want {
			t.Errorf("turn %d: another torrent", i)
		}
		b.failed(addr, nil)
	}
	b.left(addr, second) // a handshake has said it
	for range 2 {
		at = at.Add(24 * time.Hour)
		if got := b.due(at, all)[addr]; got != second {
			t.Error("not the torrent that the peer has")
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	atOnce(t)
	err := Config{
		Listen: "127.0.0.1:70000", MaxConnections: -1, MaxFiles: -2, LAN: []netip.Prefix{{}},
		BoxURL: "ftp://x", Trackers: []string{"nonsense"},
	}.Validate()
	for _, want := range []string{
		`peering.dir: no directory named`, `peering.listen: "70000" is not a port`, `peering.max_connections: -1 is negative`,
		`peering.max_files: -2 is negative`, `peering.lan: has a network that is not valid`, `peering.box_url: "ftp://x" is not a URL`,
		`peering.trackers: "nonsense" is not a URL`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}
