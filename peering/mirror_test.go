package peering

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"golang.org/x/time/rate"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/origin"
)

// webServer serves files by their paths, all answers together at most limit
// bytes a second, and counts what it has sent.
func webServer(t *testing.T, limit int, files set) (url string, sent *atomic.Int64) {
	t.Helper()
	sent = &atomic.Int64{}
	limiter := rate.NewLimiter(rate.Inf, 512<<10)
	if limit > 0 {
		limiter.SetLimit(rate.Limit(limit))
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(&slowWriter{w, r.Context(), limiter, sent}, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s.URL, sent
}

type slowWriter struct {
	http.ResponseWriter
	ctx   context.Context
	limit *rate.Limiter
	sent  *atomic.Int64
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), 16<<10)]
		if err := w.limit.WaitN(w.ctx, len(part)); err != nil {
			return n, err
		}
		m, err := w.ResponseWriter.Write(part)
		w.sent.Add(int64(m))
		if n += m; err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}

// slowSeeds starts seeds that send limit bytes a second together.
func slowSeeds(t *testing.T, count, limit int, data []byte, mi *metainfo.MetaInfo) (all []*torrent.Client) {
	t.Helper()
	for i := range count {
		cfg := peerConfig(fmt.Sprintf("127.0.9.%d", i+1), t.TempDir())
		cfg.DefaultStorage = memory(data)
		cfg.UploadRateLimiter = rate.NewLimiter(rate.Limit(limit/count), 128<<10)
		all = append(all, client(t, cfg, mi))
	}
	return all
}

// seededBy names web seeds in a .torrent file.
func seededBy(t *testing.T, mi *metainfo.MetaInfo, urls ...string) []byte {
	t.Helper()
	with := *mi
	with.UrlList = urls
	var text bytes.Buffer
	if err := with.Write(&text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func figure(t *testing.T, name string, value, bound float64, unit string, most bool) {
	t.Helper()
	verdict, sign := "ok", "≥"
	if most {
		sign = "≤"
	}
	if most && value > bound || !most && value < bound {
		verdict = "short"
		t.Errorf("%s is %.4g %s, bound %.4g", name, value, unit, bound)
	}
	t.Logf("figure: %s: %.4g %s (bound %s %.4g): %s", name, value, unit, sign, bound, verdict)
}

func soak() bool { return os.Getenv("CISTERN_SOAK") == "1" }

// atOnce lets a test run beside others, unless its figures count: most of them
// wait for something.
func atOnce(t *testing.T) {
	if !soak() {
		t.Parallel()
	}
}

// TestSwarmAndMirrorsFillOneFile: one slow swarm and two slow mirrors, however the
// box knows of these, bring one file together, each byte once.
func TestSwarmAndMirrorsFillOneFile(t *testing.T) {
	atOnce(t)
	const speed = 2_000_000
	size, length := 12<<20+12345, int64(256<<10)
	if soak() {
		size, length = 240_000_000, 1<<20
	}
	files := set{"disk.img": random(50, size)}
	text, mi := build(t, "disk.img", files, length, modes["hybrid"])
	for name, ways := range map[string]func(one, two string, c *Config) []byte{
		"web seeds": func(one, two string, _ *Config) []byte { return seededBy(t, mi, one+"/disk.img", two+"/") },
		"metalink": func(one, two string, _ *Config) []byte {
			tracker, _ := webServer(t, 0, set{"disk.torrent": text})
			return fmt.Appendf(nil, `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="disk.img"><size>%d</size><url>%s/disk.img</url><url>%s/disk.img</url>
<metaurl mediatype="torrent">%s/disk.torrent</metaurl></file></metalink>`, size, one, two, tracker)
		},
		"configured": func(one, two string, c *Config) []byte {
			c.Mirrors = []Mirrors{{[]string{"DISK*"}, one + "/"}, {[]string{"x", "disk.img"}, two + "/disk.img"}, {[]string{"other"}, two + "/other"}}
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			atOnce(t)
			one, fromOne := webServer(t, speed, files)
			two, fromTwo := webServer(t, speed, files)
			two = strings.Replace(two, "127.0.0.1", "localhost", 1)
			seeds := slowSeeds(t, 5, speed, files["disk.img"], mi)
			var input []byte
			b := newBox(t, func(c *Config) { input = ways(one, two, c) })
			began := time.Now()
			snap := b.add(input, seeds...)
			title := "btih:" + snap.InfoHash + "/disk.img"
			b.complete(snap.InfoHash)
			took := time.Since(began).Seconds()
			b.holds(title, files["disk.img"])
			info, _, _ := b.store.Lookup(title)
			for _, source := range []string{"origin 127.0.0.1", "origin localhost", "swarm"} {
				if soak() && info.From[source] < int64(size/20) || source != "swarm" && info.From[source] == 0 {
					t.Errorf("brought %v: too little by %s", info.From, source)
				}
			}
			t.Logf("%v, %+v", info.From, b.torrent(snap.InfoHash).Mirrors)
			fetched := float64(sent(seeds...)+fromOne.Load()+fromTwo.Load()) / float64(size)
			if soak() {
				figure(t, "sources: one slow swarm and two slow mirrors, "+name, float64(size)/1e6/took, 5.5, "MB/s", false)
				figure(t, "sources: bytes sent by all for each byte, "+name, fetched, 1.02, "×", true)
			} else if fetched > 2 {
				t.Errorf("sent %.3f times the content", fetched)
			}
		})
	}
}

// Files of a torrent that share pieces come from a web seed that has them all.
func TestWebSeedBringsManyFiles(t *testing.T) {
	atOnce(t)
	for version, m := range modes {
		t.Run(version, func(t *testing.T) {
			atOnce(t)
			files := spanning()
			_, mi := build(t, "a release", files, 64<<10, m)
			served := set{}
			for path, data := range files {
				served["pub/a release/"+path] = data
			}
			web, _ := webServer(t, 0, served)
			b := newBox(t, nil)
			snap := b.complete(b.add(seededBy(t, mi, web+"/pub/")).InfoHash)
			for path, data := range files {
				b.holds("btih:"+snap.InfoHash+"/"+path, data)
			}
			if snap.Down != snap.Size || snap.Wasted != 0 {
				t.Errorf("down %d, wasted %d of %d", snap.Down, snap.Wasted, snap.Size)
			}
		})
	}
}

// A mirror with other bytes, one with another file and one that has nothing are
// given up; what they sent reaches nobody.
func TestBadMirrorsAreGivenUp(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(51, 3<<20)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	wrong, _ := webServer(t, 0, set{"disk.img": random(52, 3<<20)})
	other, _ := webServer(t, 0, set{"disk.img": random(51, 3<<20+1)})
	empty, _ := webServer(t, 0, set{})
	b := newBox(t, nil)
	snap := b.add(seededBy(t, mi, wrong+"/disk.img", other+"/disk.img", empty+"/disk.img"))
	until(t, "all were judged", func() bool {
		all := b.torrent(snap.InfoHash).Mirrors
		return len(all) == 3 && !slices.ContainsFunc(all, func(m Mirror) bool { return m.Err == "" })
	})
	until(t, "the liar was named", func() bool { return b.swarm.Stats().Faults["127.0.0.1"] >= maxMirrorLies })
	if now := b.torrent(snap.InfoHash); now.Have != 0 {
		t.Errorf("have %d bytes", now.Have)
	}
	b.point(snap.InfoHash, seedFrom(t, "127.0.0.2", files["disk.img"], mi))
	b.complete(snap.InfoHash)
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
}

// Where a reader waits, mirrors and peers bring first.
func TestReaderIsServedFirst(t *testing.T) {
	atOnce(t)
	const size = 24 << 20
	files := set{"film.mkv": random(53, size)}
	_, mi := build(t, "film.mkv", files, 256<<10, modes["v1"])
	web, _ := webServer(t, 1<<20, files)
	seeds := slowSeeds(t, 2, 512<<10, files["film.mkv"], mi)
	b := newBox(t, nil)
	snap := b.add(seededBy(t, mi, web+"/film.mkv"), seeds...)
	info, _, ok := b.store.Lookup("btih:" + snap.InfoHash + "/film.mkv")
	if !ok {
		t.Fatal("the file is not in the store")
	}
	r, err := b.store.Read(info.Num)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := content.Range{Off: 11 << 20, End: 12 << 20}
	if _, err := r.WriteRange(t.Context(), io.Discard, want); err != nil {
		t.Fatal(err)
	}
	if have := b.torrent(snap.InfoHash).Have; have > size*3/4 {
		t.Errorf("%d of %d bytes had to come before the megabyte that was wanted", have, size)
	}
}

// rounds counts requests and answers them as next does; before that the uplink is
// down for a while.
type rounds struct {
	next  http.RoundTripper
	down  int64
	count atomic.Int64
}

func (r *rounds) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.count.Add(1) <= r.down {
		return nil, &origin.OfflineError{Since: time.Now(), Why: "a test"}
	}
	return r.next.RoundTrip(req)
}

// What mirrors bring is asked for as everything else by HTTP: under the cap on the
// uplink, and with patience while that is down.
func TestMirrorsShareTheUplink(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(54, 2<<20)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	web, _ := webServer(t, 0, files)
	var paced atomic.Int64
	mirrors, err := origin.NewMirrors(origin.Config{Dial: plainDial, Pace: origin.NewPacer(func(time.Time) int64 {
		paced.Add(1)
		return 0
	})}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mirrors.Close)
	way := &rounds{next: mirrors, down: maxMirrorFailures + 2}
	b := newBox(t, func(c *Config) { c.Web, c.tick = way, time.Millisecond })
	snap := b.complete(b.add(seededBy(t, mi, web+"/disk.img")).InfoHash)
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
	if paced.Load() == 0 {
		t.Error("the cap on the uplink was not asked")
	}
	if got := mirrors.Stats().Bytes; got != snap.Size {
		t.Errorf("%d of %d bytes came by the box's way to servers", got, snap.Size)
	}
}

// A mirror brings no more than the uplink is let.
func TestSwarmAndMirrorsKeepToTheUplink(t *testing.T) {
	atOnce(t)
	const cap = 1 << 20
	size := 2 << 20
	if soak() {
		size = 16 << 20
	}
	files := set{"disk.img": random(55, size)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	one, _ := webServer(t, 0, files)
	two, _ := webServer(t, 0, files)
	mirrors, err := origin.NewMirrors(origin.Config{Dial: plainDial, Pace: origin.NewPacer(func(time.Time) int64 { return cap })}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mirrors.Close)
	b := newBox(t, func(c *Config) { c.Web = mirrors })
	began := time.Now()
	b.complete(b.add(seededBy(t, mi, one+"/disk.img", strings.Replace(two, "127.0.0.1", "localhost", 1)+"/disk.img")).InfoHash)
	got := float64(size) - cap/2 // what comes at once, and what is read and not yet paid for
	figure(t, "limits: wan.rate with two web seeds: brought of what it lets through", got/time.Since(began).Seconds()/cap, 1.05, "×", true)
}

// A piece that a peer and a mirror have brought is proved twice, the second time
// perhaps when the file is whole and nobody may write any more.
func TestPieceIsProvedTwice(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(56, 300_000)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	web, _ := webServer(t, 0, files)
	b := newBox(t, nil)
	snap := b.complete(b.add(seededBy(t, mi, web+"/disk.img")).InfoHash)
	sh := b.share(snap.InfoHash)
	sh.plan.mu.Lock()
	m := sh.plan.mirrors[0]
	sh.plan.mu.Unlock()
	_, forget := sh.pieces.ascribe(0, m)
	defer forget()
	if err := (&piece{pieces: sh.pieces}).MarkComplete(); err != nil {
		t.Errorf("a piece that is here already: %v", err)
	}
}
