package peering

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
)

// withTrackers adds a tracker and a web seed to a .torrent file.
func withTrackers(t *testing.T, mi *metainfo.MetaInfo, tracker, webSeed string) []byte {
	t.Helper()
	with := *mi
	with.Announce = tracker
	if webSeed != "" {
		with.UrlList = []string{webSeed}
	}
	var text bytes.Buffer
	if err := with.Write(&text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// counted is plainDial and what it was asked for.
func counted(n *atomic.Int32, addr string) Dial {
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if to == addr {
			n.Add(1)
		}
		return plainDial(ctx, network, to)
	}
}

func TestTrackerIsAskedThroughTheDialer(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(40, 500_000)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	s := seed(t, "127.0.0.1", "disk.img", files, mi)
	host, port, _ := net.SplitHostPort(tcpAddr(s))
	n, _ := strconv.Atoi(port)
	var left atomic.Value
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left.Store(r.URL.Query().Get("left"))
		peers := append(net.ParseIP(host).To4(), byte(n>>8), byte(n))
		_, _ = w.Write(bencode.MustMarshal(map[string]any{"interval": 60, "peers": string(peers)}))
	}))
	defer tracker.Close()
	var dials atomic.Int32
	b := newBox(t, nil)
	b.stop()
	b.dial = counted(&dials, tracker.Listener.Addr().String())
	b.start()
	b.complete(b.add(withTrackers(t, mi, tracker.URL+"/announce", "")).InfoHash)
	if dials.Load() == 0 || left.Load() == nil {
		t.Errorf("%d dials, left=%v", dials.Load(), left.Load())
	}
}

func TestWebSeedFillsThroughTheDialer(t *testing.T) {
	atOnce(t)
	for _, version := range []string{"v1", "hybrid"} {
		t.Run(version, func(t *testing.T) {
			files := set{"disk.img": random(41, 900_000)}
			_, mi := build(t, "disk.img", files, 64<<10, modes[version])
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "disk.img", time.Time{}, bytes.NewReader(files["disk.img"]))
			}))
			defer web.Close()
			var dials atomic.Int32
			b := newBox(t, nil)
			b.stop()
			b.dial = counted(&dials, web.Listener.Addr().String())
			b.start()
			snap := b.complete(b.add(withTrackers(t, mi, "", web.URL+"/o/disk.img")).InfoHash)
			b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
			if dials.Load() == 0 || snap.Down == 0 {
				t.Errorf("%d dials, %+v", dials.Load(), snap)
			}
		})
	}
}

// aria2 is a client by others. Debian packages it; a run under CI has it.
func aria2(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("aria2c")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("aria2c is not installed, and CI skips nothing")
	}
	if err != nil {
		t.Skip("aria2c is not installed")
	}
	return path
}

func runAria2(t *testing.T, path, dir string, args ...string) {
	t.Helper()
	args = append([]string{
		"--no-conf", "--dir=" + dir, "--interface=127.0.0.1", "--disable-ipv6", "--enable-dht=false", "--bt-enable-lpd=false",
		"--file-allocation=none", "--summary-interval=0", "--console-log-level=warn",
	}, args...)
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
}

// announce is a tracker that knows one peer.
func announce(t *testing.T, peer string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(peer)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		peers := append(net.ParseIP(host).To4(), byte(n>>8), byte(n))
		_, _ = w.Write(bencode.MustMarshal(map[string]any{"interval": 60, "peers": string(peers)}))
	}))
	t.Cleanup(tracker.Close)
	return tracker.URL + "/announce"
}

// aria2 1.36 loses empty keys of dictionaries, which v2 and hybrid torrents
// have, and computes another infohash for those. So these are v1.

func TestAria2LeechesFromTheBox(t *testing.T) {
	atOnce(t)
	path := aria2(t)
	files := set{"disk.img": random(42, 3<<20+77)}
	text, mi := build(t, "disk.img", files, 256<<10, modes["v1"])
	s := seed(t, "127.0.0.2", "disk.img", files, mi)
	b := newBox(t, func(c *Config) { c.LAN = loopback })
	b.complete(b.add(text, s).InfoHash)
	s.Close()
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "disk.torrent")
	if err := os.WriteFile(file, withTrackers(t, mi, announce(t, b.addr()), ""), 0o600); err != nil {
		t.Fatal(err)
	}
	runAria2(t, path, dir, "--seed-time=0", file)
	until(t, "aria2 has the file", func() bool {
		got, err := os.ReadFile(filepath.Join(dir, "disk.img"))
		return err == nil && bytes.Equal(got, files["disk.img"])
	})
}

func TestAria2SeedsToTheBox(t *testing.T) {
	atOnce(t)
	path := aria2(t)
	files := spanning()
	_, mi := build(t, "release", files, 64<<10, modes["v1"])
	dir := t.TempDir()
	for name, data := range files {
		at := filepath.Join(dir, "release", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := newBox(t, nil)
	file := filepath.Join(t.TempDir(), "release.torrent")
	if err := os.WriteFile(file, withTrackers(t, mi, announce(t, b.addr()), ""), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	runAria2(t, path, dir, fmt.Sprintf("--listen-port=%d", port), "--seed-ratio=0.0", "--check-integrity=true", file)
	got := b.add(fmt.Appendf(nil, "magnet:?xt=urn:btih:%s&x.pe=127.0.0.1:%d", mi.HashInfoBytes().HexString(), port))
	snap := b.complete(got.InfoHash)
	for name, data := range files {
		b.holds("btih:"+snap.InfoHash+"/"+name, data)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
