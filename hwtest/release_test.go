package hwtest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// The LAN of a release day: torrent clients behind a router that is the box, and
// a swarm outside.
const (
	lanNet      = "10.0.0.0/24"
	swarmNet    = "198.51.100.0/24"
	trackerHost = "198.51.100.2"
	routerLAN   = "10.0.0.1"
	routerWAN   = "198.51.100.1"
	peerPort    = 6881
)

// release is that LAN.
type release struct {
	lab     *lab.Lab
	dir     string
	world   *lab.Host
	tls     *lab.Host // with the tracker behind TLS
	dead    *lab.Host
	router  *lab.Router
	wan     *lab.Link
	clients []*lab.Host
	torrent actors.Torrent
	other   actors.Torrent // that the box does not hear of
	secure  actors.Torrent // whose only tracker is behind TLS
	seeds   *actors.Seeds
	dht     *actors.DHT
	size    int64
	late    int // clients that did not finish, of all that were played
}

// newRelease builds the LAN and the swarm.
func newRelease(t *testing.T, clients, seeds, dead int, size int64) *release {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "cisternd")); err != nil {
		t.Fatalf("the box is not built (make build): %v", err)
	}
	r := &release{dir: t.TempDir(), lab: lab.Test(t), size: size}
	wan := r.lab.Switch("wan", lab.SwitchConfig{})
	lan := r.lab.Switch("lan", lab.SwitchConfig{Gateways: []string{routerLAN}})
	r.world, r.dead, r.router = r.lab.Host("world"), r.lab.Host("dead"), r.lab.Router("router")
	r.tls = r.lab.Host(actors.SecureName)
	r.tls.Join(wan, lab.LinkConfig{Addrs: []string{"198.51.100.3/24"}})
	worldAddrs := append([]string{trackerHost + "/24"}, lab.Addrs("198.51.100.101/24", seeds)...)
	r.world.Join(wan, lab.LinkConfig{Addrs: worldAddrs})
	deadLink := r.dead.Join(wan, lab.LinkConfig{Addrs: lab.Addrs("198.51.100.20/24", dead)})
	r.router.Join(lan, lab.LinkConfig{Addrs: []string{routerLAN + "/24"}})
	r.wan = r.router.Join(wan, lab.LinkConfig{
		Addrs: []string{routerWAN + "/24"}, ToHost: lab.Path{Rate: 200 * lab.Mbit}, FromHost: lab.Path{Rate: 100 * lab.Mbit},
	})
	r.router.Masquerade(r.wan)
	for i, a := range lab.Addrs("10.0.0.65/24", clients+1) {
		h := r.lab.Host(fmt.Sprintf("client%d", i+1))
		h.Join(lan, lab.LinkConfig{Addrs: []string{a}})
		r.clients = append(r.clients, h)
	}
	var nodes []*lab.Host
	var addrs []netip.AddrPort
	for name, port := range actors.DHTNames {
		h := r.lab.Host(name)
		a := netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + len(nodes))})
		h.Join(wan, lab.LinkConfig{Addrs: []string{a.String() + "/24"}})
		nodes, addrs = append(nodes, h), append(addrs, netip.AddrPortFrom(a, port))
	}
	if err := r.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.populate(t, seeds, deadLink)
	r.startDHT(t, nodes, addrs, seeds)
	return r
}

// populate starts tracker, seeds and the dead.
func (r *release) populate(t *testing.T, seeds int, dead *lab.Link) {
	t.Helper()
	ctx, tracker := t.Context(), trackerHost+":6969"
	content := filepath.Join(r.dir, "swarm")
	var files []string
	var hashes [][20]byte
	torrent := func(name string, size int64, seed uint64, announce string) actors.Torrent {
		path := filepath.Join(content, name)
		if _, err := actors.WriteContent(path, size, seed); err != nil {
			t.Fatal(err)
		}
		// Seeds announce by HTTP: libtorrent's datagrams have one address.
		ofSeeds := makeTorrent(t, path, filepath.Join(r.dir, "torrents/seeds"), "http://"+tracker+"/announce")
		files, hashes = append(files, ofSeeds.V1.Path), append(hashes, ofSeeds.V1.Infohash)
		return makeTorrent(t, path, filepath.Join(r.dir, "torrents/clients"), announce)
	}
	r.torrent = torrent("release.iso", r.size, 6, "http://"+tracker+"/announce")
	r.other = torrent("other.iso", 4<<20, 7, "udp://"+tracker+"/announce")
	r.secure = torrent("secure.iso", r.size, 8, "https://"+actors.SecureName+"/announce")
	if err := actors.StartTracker(ctx, r.world, trackerHost, filepath.Join(r.dir, "tracker"), hashes...); err != nil {
		t.Fatal(err)
	}
	var from []string
	for _, a := range lab.Addrs("198.51.100.101/24", seeds) {
		from = append(from, netip.MustParsePrefix(a).Addr().String())
	}
	var err error
	if r.seeds, err = actors.StartSeeds(ctx, r.world, from, files, content, 300_000); err != nil {
		t.Fatal(err)
	}
	for _, h := range hashes {
		if err := r.seeds.WaitAnnounced(ctx, tracker, h); err != nil {
			t.Fatal(err)
		}
	}
	if err := actors.AnnounceDead(ctx, r.dead, tracker, r.torrent.V1.Infohash); err != nil {
		t.Fatal(err)
	}
	if err := dead.SetUp(ctx, false); err != nil {
		t.Fatal(err)
	}
}

func makeTorrent(t *testing.T, path, dir, announce string) actors.Torrent {
	t.Helper()
	mkdir(t, dir)
	made, err := actors.MakeTorrent(path, dir, announce)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (r *release) startDHT(t *testing.T, nodes []*lab.Host, addrs []netip.AddrPort, seeds int) {
	t.Helper()
	var peers []netip.AddrPort
	for _, a := range lab.Addrs("198.51.100.101/24", seeds) {
		peers = append(peers, netip.AddrPortFrom(netip.MustParsePrefix(a).Addr(), peerPort))
	}
	r.dht = &actors.DHT{Delay: 150 * time.Millisecond, Peers: map[[20]byte][]netip.AddrPort{r.torrent.V1.Infohash: peers, r.other.V1.Infohash: peers, r.secure.V1.Infohash: peers}}
	bundle := filepath.Join(r.dir, "authorities.pem")
	secure, err := actors.StartSecureTracker(r.tls, bundle, peers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secure.Close)
	r.lab.Show(bundle, actors.Authorities)
	var conns []net.PacketConn
	for i, h := range nodes {
		c, err := h.ListenPacket("udp", addrs[i].String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	r.dht.Start(conns, addrs)
	t.Cleanup(r.dht.Close)
}

// startBox runs the box on the router; it may join the torrents allowed.
func (r *release) startBox(t *testing.T, mode string, allowed ...actors.Torrent) *actors.Box {
	t.Helper()
	var list []string
	for _, a := range allowed {
		list = append(list, fmt.Sprintf("%q", hex.EncodeToString(a.V1.Infohash[:])))
	}
	config := fmt.Sprintf(`version = 1
[proxy]
listen = "%s:%s"
[multicast]
interfaces = []
[peering]
listen = ":%d"
max_connections = 20
discovery = "eth0"
[tracker]
listen = ["%s:6969"]
allow = [%s]
[steer]
mode = %q
interfaces = ["eth0"]
web = true
[log]
level = "debug"
`, routerLAN, actors.ProxyPort, peerPort, routerLAN, strings.Join(list, ", "), mode)
	box, err := actors.StartBox(t.Context(), r.router.Host, bin, filepath.Join(r.dir, "box-"+mode), config)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// flows gathers tracked connections with peers of the swarm, each once.
type flows struct {
	before, clients, box map[[2]netip.AddrPort]bool
	other                netip.Addr // of the client with the other torrent
	began                time.Time
	log                  []string // of each flow of a client: when, whence, whereto
}

// look is called for each connection at each sample, and counts those that the
// box has.
func (f *flows) look(e lab.Flow) bool {
	swarm := netip.MustParsePrefix(swarmNet)
	if e.Protocol != unix.IPPROTO_TCP && e.Protocol != unix.IPPROTO_UDP || !swarm.Contains(e.Dst.Addr()) || e.Dst.Port() != peerPort {
		return false
	}
	key := [2]netip.AddrPort{e.Src, e.Dst}
	switch {
	case f.before[key] || e.Src.Addr() == f.other || e.Dst.Addr().As4()[3] < 20: // nodes of the DHT
		return false
	case netip.MustParsePrefix(lanNet).Contains(e.Src.Addr()):
		if !f.clients[key] {
			f.log = append(f.log, fmt.Sprintf("%.1fs %d %v>%v", time.Since(f.began).Seconds(), e.Protocol, e.Src, e.Dst))
		}
		f.clients[key] = true
		return false
	}
	f.box[key] = true
	return e.Established || e.Protocol == unix.IPPROTO_UDP && e.ReplyBytes > 0 // the dead do not answer
}

// day is what one run came to.
type day struct {
	outside           float64 // piece bytes from the seeds ÷ content
	wan               float64 // bytes on the WAN towards the LAN ÷ content
	clientFlows       int
	boxFlows, boxPeak int
	last              time.Duration
	dht               int64
}

// play lets every client fetch the torrent and, unless warm, one more the other
// torrent.
func (r *release) play(t *testing.T, kinds []string, name string, warm bool, start func(context.Context) error) day {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientsMayTake())
	defer cancel()
	f := &flows{began: time.Now(), before: map[[2]netip.AddrPort]bool{}, clients: map[[2]netip.AddrPort]bool{}, box: map[[2]netip.AddrPort]bool{}}
	f.other = r.clients[len(r.clients)-1].Addr()
	had, err := r.router.Flows()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range had {
		f.before[[2]netip.AddrPort{e.Src, e.Dst}] = true
	}
	watch, err := r.router.WatchFlows(100*time.Millisecond, f.look)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := r.seeds.UploadedOf(ctx, r.torrent.V1.Infohash)
	if err != nil {
		t.Fatal(err)
	}
	asked := r.dht.Asked()
	link, err := r.wan.Counters()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if start != nil {
		if err := start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var peers []*actors.Peer
	for i, h := range r.clients {
		torrent, kind := r.torrent.V1.Path, kinds[i%len(kinds)]
		if i == len(r.clients)-1 {
			if torrent, kind = r.other.V1.Path, "qbittorrent"; warm {
				break
			}
		}
		p, err := actors.StartPeer(ctx, kind, h, torrent, filepath.Join(r.dir, name, h.Name()))
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, p)
	}
	var d day
	d.last = r.wait(ctx, t, peers, began)
	later, err := r.seeds.UploadedOf(t.Context(), r.torrent.V1.Infohash)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := watch.Stop()
	if err != nil {
		t.Fatal(err)
	}
	after, err := r.wan.Counters()
	if err != nil {
		t.Fatal(err)
	}
	var stopping sync.WaitGroup
	for _, p := range peers {
		stopping.Go(func() { _ = p.Stop() })
	}
	stopping.Wait()
	d.outside = float64(later-sent) / float64(r.size)
	d.wan = float64(after.ToHost.Bytes-link.ToHost.Bytes) / float64(r.size)
	d.clientFlows, d.boxFlows, d.boxPeak, d.dht = len(f.clients), len(f.box), stats.Peak, r.dht.Asked()-asked
	t.Logf("%s: flows of clients, the first of %d: %s", name, len(f.log), strings.Join(f.log[:min(len(f.log), 60)], ", "))
	t.Logf("%s: %.3f of the content from seeds, %.3f over the WAN, %d client flows, box %d flows (%d at once), last after %v, DHT asked %d times, %d samples",
		name, d.outside, d.wan, d.clientFlows, d.boxFlows, d.boxPeak, d.last.Round(100*time.Millisecond), d.dht, stats.Samples)
	return d
}

// clientsMayTake is how long clients may take.
func clientsMayTake() time.Duration {
	if soak() {
		return 300 * time.Second
	}
	return 100 * time.Second
}

// wait waits until every client has its file, checks them, and says when the last
// one had it.
func (r *release) wait(ctx context.Context, t *testing.T, peers []*actors.Peer, began time.Time) (last time.Duration) {
	t.Helper()
	open := map[int]*actors.Peer{}
	for i, p := range peers {
		open[i] = p
	}
	of := func(i int) actors.Torrent {
		if i == len(r.clients)-1 {
			return r.other
		}
		return r.torrent
	}
	for len(open) > 0 {
		for i, p := range open {
			if p.Done(ctx, of(i).Name) {
				last = time.Since(began)
				t.Logf("%s on %s was done after %v", p.Kind, p.Host.Name(), last.Round(100*time.Millisecond))
				delete(open, i)
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			r.late += len(open)
			for _, p := range open {
				said, _ := p.Process.Output()
				t.Errorf("%s on %s did not finish: %s", p.Kind, p.Host.Name(), said[max(0, len(said)-1500):])
			}
			return time.Since(began)
		}
	}
	for i, p := range peers {
		got, err := actors.Digest(p.File(of(i).Name))
		if err != nil || got != of(i).Sum {
			t.Errorf("%s on %s: SHA-256 is %s, %v; want %s", p.Kind, p.Host.Name(), got, err, of(i).Sum)
		}
	}
	return last
}
