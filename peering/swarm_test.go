package peering

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// box is a store with a running swarm over it.
type box struct {
	t     *testing.T
	dir   string
	cfg   Config
	dial  Dial
	store *cache.Store
	swarm *Swarm
	stop  func()
}

func plainDial(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

func newBox(t *testing.T, change func(*Config)) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), dial: plainDial}
	b.cfg = Config{Dir: filepath.Join(b.dir, "peering"), Listen: "127.0.0.1:0", tick: 50 * time.Millisecond, retryAfter: 100 * time.Millisecond}
	if change != nil {
		change(&b.cfg)
	}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func testLog() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return slog.New(slog.DiscardHandler)
}

func (b *box) start() {
	b.t.Helper()
	var err error
	if b.store, err = cache.Open(cache.Config{Dir: filepath.Join(b.dir, "store"), MinFree: 1}, testLog()); err != nil {
		b.t.Fatal(err)
	}
	if b.swarm, err = New(b.cfg, b.store, b.dial, testLog()); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.swarm.Run(ctx) }()
	b.stop = func() {
		b.stop = func() {}
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run: %v", err)
		}
		if err := b.store.Close(); err != nil {
			b.t.Errorf("close store: %v", err)
		}
	}
}

func (b *box) addr() string {
	b.t.Helper()
	ap, err := b.swarm.Addr(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return ap.String()
}

// add joins a torrent and points it at seeds.
func (b *box) add(input []byte, seeds ...*torrent.Client) Torrent {
	b.t.Helper()
	got, err := b.swarm.Add(b.t.Context(), input)
	if err != nil {
		b.t.Fatal(err)
	}
	b.point(got.InfoHash, seeds...)
	return got
}

func (b *box) point(infohash string, seeds ...*torrent.Client) {
	sh := b.share(infohash)
	for _, c := range seeds {
		sh.t.AddPeers([]torrent.PeerInfo{{Addr: torrent.StringAddr(tcpAddr(c))}})
	}
}

func (b *box) share(infohash string) *share {
	b.swarm.mu.Lock()
	defer b.swarm.mu.Unlock()
	return b.swarm.shares[infohash]
}

func tcpAddr(c *torrent.Client) string {
	for _, a := range c.ListenAddrs() {
		if a.Network() == "tcp" {
			return a.String()
		}
	}
	return c.ListenAddrs()[0].String()
}

// torrent gives the snapshot of one torrent.
func (b *box) torrent(infohash string) Torrent {
	for _, snap := range b.swarm.Stats().Torrents {
		if snap.InfoHash == infohash || snap.InfoHashV2 == infohash {
			return snap
		}
	}
	return Torrent{}
}

// until waits for a condition, so long that only what hangs is given up, however
// slow the machine is.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.Now().Add(4 * time.Minute)
	for !ok() {
		if time.Now().After(limit) {
			t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *box) complete(infohash string) Torrent {
	b.t.Helper()
	var snap Torrent
	until(b.t, "the torrent is complete", func() bool {
		snap = b.torrent(infohash)
		if snap.State == StateFailed {
			b.t.Fatalf("torrent failed: %s", snap.Err)
		}
		return snap.State == StateComplete
	})
	return snap
}

// holds checks that the store has a file under a name.
func (b *box) holds(name string, want []byte) {
	b.t.Helper()
	info, _, ok := b.store.Lookup(name)
	if !ok {
		b.t.Fatalf("%s is not in the store", name)
	}
	r, err := b.store.Read(info.Num)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := r.WriteRange(b.t.Context(), sum, content.Range{End: int64(len(want))}); err != nil {
		b.t.Fatal(err)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, sha(want)) || info.Size != int64(len(want)) {
		b.t.Errorf("%s: %d bytes with another SHA-256", name, info.Size)
	}
}

// put stores bytes as if they had come by HTTP.
func (b *box) put(name string, data []byte) cache.Info {
	b.t.Helper()
	fill, err := b.store.Create(cache.Spec{Object: content.Object{Size: int64(len(data))}, Title: name, Public: true}, name, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	fill.Start(bytesSource(data))
	<-fill.Done()
	if err := fill.Err(); err != nil {
		b.t.Fatal(err)
	}
	info, _ := b.store.Get(fill.Num())
	return info
}

type bytesSource []byte

func (bytesSource) Name() string { return "test" }
func (s bytesSource) Fill(_ context.Context, sink content.Sink) error {
	if _, err := sink.WriteAt(s, 0); err != nil {
		return err
	}
	return sink.Accept(content.Range{End: int64(len(s))})
}

func sha(p []byte) []byte { sum := sha256.Sum256(p); return sum[:] }

// random gives bytes that are the same in every run.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(p)
	return p
}

// seed starts a client that has the files. host is an address of loopback.
func seed(t *testing.T, host, name string, files set, mi *metainfo.MetaInfo) *torrent.Client {
	t.Helper()
	dir := t.TempDir()
	for path, data := range files {
		at := filepath.Join(dir, name, path)
		if info, err := mi.UnmarshalInfo(); err == nil && !info.IsDir() {
			at = filepath.Join(dir, name)
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := peer(t, host, dir)
	tor, err := c.AddTorrent(mi)
	if err != nil {
		t.Fatal(err)
	}
	if err := tor.VerifyDataContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// peer starts a foreign client without anything but loopback.
func peer(t *testing.T, host, dir string) *torrent.Client {
	t.Helper()
	c, err := torrent.NewClient(peerConfig(host, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func peerConfig(host, dir string) *torrent.ClientConfig {
	cfg := torrent.NewDefaultClientConfig()
	cfg.DataDir = dir
	cfg.Seed = true
	cfg.NoDHT, cfg.DisableTrackers, cfg.NoDefaultPortForwarding, cfg.DisableIPv6 = true, true, true, true
	cfg.DisablePEX, cfg.DisableWebtorrent = true, true
	cfg.DialRateLimiter.SetLimit(1000)
	cfg.Slogger = slog.New(slog.DiscardHandler)
	cfg.SetListenAddr(net.JoinHostPort(host, "0"))
	return cfg
}

// sent is the piece bytes that clients handed out.
func sent(clients ...*torrent.Client) int64 {
	var n int64
	for _, c := range clients {
		st := c.Stats()
		n += st.BytesWrittenData.Int64()
	}
	return n
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// meet names a peer to a torrent of a foreign client until that is closed: the
// client forgets one that it could not reach at once.
func meet(t *testing.T, tor *torrent.Torrent, addr string) {
	go func() {
		for t.Context().Err() == nil {
			tor.AddPeers([]torrent.PeerInfo{{Addr: torrent.StringAddr(addr)}})
			select {
			case <-tor.Closed():
				return
			case <-t.Context().Done():
			case <-time.After(time.Second):
			}
		}
	}()
}

// readAll reads a file that a foreign client fetched.
func readAll(t *testing.T, tor *torrent.Torrent) []byte {
	t.Helper()
	r := tor.NewReader()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // or a hang would say nothing of where
	defer cancel()
	r.SetContext(ctx)
	p, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
