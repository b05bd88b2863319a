package hwtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// spring is an origin of random bodies, /<number>/<size>, that notes how many
// requests are under way at once.
type spring struct {
	endless
	pause     time.Duration // before each answer
	now, most atomic.Int64
	bytes     atomic.Int64
}

func (s *spring) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	for old := s.most.Load(); now > old && !s.most.CompareAndSwap(old, now); old = s.most.Load() {
	}
	time.Sleep(s.pause)
	s.endless.ServeHTTP(&tallied{w, &s.bytes}, r)
}

// tallied counts the bytes of a body.
type tallied struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *tallied) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// serve runs a handler as the origin of a scene.
func serve(t *testing.T, s *scene, h http.Handler) {
	t.Helper()
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
}

// visit is what one client saw of one answer.
type visit struct {
	first, done time.Duration
	err         error
}

// ask asks for an address over a connection of its own, and compares the body.
func ask(ctx context.Context, from *lab.Host, address, host string, want []byte) (v visit) {
	tr := &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true, DisableCompression: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return visit{err: err}
	}
	req.Host = host
	began := time.Now()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return visit{err: err}
	}
	defer resp.Body.Close()
	buf := make([]byte, 64<<10)
	for off := 0; ; {
		n, err := resp.Body.Read(buf)
		if off == 0 && n > 0 {
			v.first = time.Since(began)
		}
		if off+n > len(want) || !bytes.Equal(buf[:n], want[off:off+n]) {
			v.err = fmt.Errorf("%s: wrong bytes at %d", resp.Status, off)
			return v
		}
		off += n
		if err == io.EOF && off == len(want) {
			v.done = time.Since(began)
			return v
		}
		if err != nil {
			v.err = fmt.Errorf("%s: after %d bytes: %w", resp.Status, off, err)
			return v
		}
	}
}

// percentile is that of durations, in seconds.
func percentile(of []time.Duration, p int) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[(len(of)-1)*p/100].Seconds()
}

// timing is figure at full size. A reduced run shares its machine, so that it only
// tells what it took.
func timing(t *testing.T, name string, value, bound float64, unit string) {
	t.Helper()
	if soak() {
		figure(t, name, value, bound, unit)
		return
	}
	t.Logf("%s: %.4g %s (bound at full size %.4g)", name, value, unit, bound)
}

// TestColdRange: what a range of 1 MB of an object that is not here costs, and
// that what came is kept.
func TestColdRange(t *testing.T) {
	s := newScene(t)
	dir := t.TempDir()
	if _, err := actors.WriteContent(filepath.Join(dir, "big.img"), 100<<20, 3); err != nil {
		t.Fatal(err)
	}
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	origin := actors.NewOrigin(dir)
	origin.Start(l)
	defer origin.Close()
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	slice := func(off, n int) string {
		out, err := s.clients[0].Run(t.Context(), "curl", "-sS", "-D", "-", "-o", "/dev/null", "-w", "%{size_download}", "-x", box.URL(),
			"-r", fmt.Sprintf("%d-%d", off, off+n-1), "http://"+s.origin.Addr().String()+"/big.img")
		if err != nil || !strings.HasSuffix(string(out), fmt.Sprint(n)) || !strings.Contains(string(out), " 206 ") {
			t.Fatalf("%d bytes from %d: %v\n%s", n, off, err, out)
		}
		return string(out)
	}
	slice(50_000_000, 1_000_000)
	figure(t, "cold: pulled for a range of 1 MB", float64(origin.Body()), 2<<20, "bytes")
	before := origin.Requests()
	if out := slice(50_900_000, 200_000); !strings.Contains(out, "cistern;hit") {
		t.Errorf("the rest of a block that came is no hit: %s", out)
	}
	figure(t, "cold: origin requests for what is here", float64(origin.Requests()-before), 0, "requests")
	const slices, each = 64, 512 << 10
	before = origin.Requests()
	for i := range slices {
		slice(60<<20+i*each, each)
	}
	figure(t, "cold: origin requests for 32 MiB in slices of 512 KiB", float64(origin.Requests()-before), 12, "requests")
}

// TestHerd: many clients at once for one cold object; one copy comes over the
// uplink, and everybody gets it as it comes. At full size Varnish does the same.
func TestHerd(t *testing.T) {
	s := newScene(t)
	clients, size := 40, 8<<20
	if soak() {
		clients, size = 200, 50<<20
	}
	origin := &spring{}
	serve(t, s, origin)
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	come := func(number int, address, host string) (time.Duration, [2][]time.Duration) {
		defer origin.prepared.Clear()
		return herd(t, s, clients, fmt.Sprintf("%s/%d/%d", address, number, size), host, origin.prepare(uint64(number), size))
	}
	ours := func(number int) (time.Duration, [2][]time.Duration) {
		return come(number, box.URL()+"/get/http/"+s.origin.Addr().String(), "")
	}
	last, halves := ours(1)
	figure(t, "herd: copies from the origin", float64(origin.bytes.Load())/float64(size), 1, "copies")
	for i, name := range []string{"early", "late"} {
		timing(t, "herd: time to first byte of the "+name+" half, median", percentile(halves[i], 50), 0.1, "s")
		timing(t, "herd: time to first byte of the "+name+" half, p99", percentile(halves[i], 99), 0.5, "s")
	}
	t.Logf("last done after %.2f s", last.Seconds())
	if !soak() {
		return
	}
	address, peer := varnish(t, s)
	var all, spent [2][]time.Duration
	for round := range 3 { // one after the other, for the machine may be busy
		before := spentBy(t, box.Process.Pid())
		took, _ := ours(10 + round)
		all[0] = append(all[0], took)
		spent[0] = append(spent[0], spentBy(t, box.Process.Pid())-before)
		before = spentBy(t, peer)
		took, _ = come(20+round, address, s.origin.Addr().String())
		all[1] = append(all[1], took)
		spent[1] = append(spent[1], spentBy(t, peer)-before)
		t.Logf("last done: %.2f s, with Varnish %.2f s; CPU %.2f s, Varnish %.2f s",
			all[0][round].Seconds(), all[1][round].Seconds(), spent[0][round].Seconds(), spent[1][round].Seconds())
	}
	figure(t, "herd: last done, of Varnish's time", percentile(all[0], 50)/percentile(all[1], 50), 1.05, "×")
}

// varnish runs Varnish on the box's machine, before the origin.
func varnish(t *testing.T, s *scene) (address string, pid int) {
	t.Helper()
	if _, err := exec.LookPath("varnishd"); err != nil {
		t.Fatal("varnish is not installed (hwtest/setup.sh)")
	}
	listen := s.box.AddrPort(6081)
	p := s.box.Command("varnishd", "-F", "-j", "none", "-n", filepath.Join(t.TempDir(), "v"), "-a", listen,
		"-b", s.origin.AddrPort(80), "-s", "malloc,512M")
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "varnish", func() bool {
		c, err := s.box.Dial("tcp", listen)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "http://" + listen, p.Pid()
}

// spentBy is the processor time that a process, its threads and its children have
// taken.
func spentBy(t *testing.T, pid int) (spent time.Duration) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		of, rest, _ := strings.Cut(string(text), " ")
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:]) // from the third on
		if of != strconv.Itoa(pid) && fields[1] != strconv.Itoa(pid) {
			continue
		}
		for _, ticks := range fields[11:13] { // user and system, in hundredths of a second
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			spent += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return spent
}

// herd sends clients for one address, the late half when the fill has begun.
func herd(t *testing.T, s *scene, clients int, address, host string, body []byte) (last time.Duration, halves [2][]time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for i := range clients {
		half := i * 2 / clients
		all.Go(func() {
			time.Sleep(time.Duration(half) * 300 * time.Millisecond)
			v := ask(ctx, s.clients[i%len(s.clients)], address, host, body)
			mu.Lock()
			defer mu.Unlock()
			if v.err != nil {
				t.Error(v.err)
			}
			halves[half] = append(halves[half], v.first)
			last = max(last, time.Since(began))
		})
	}
	all.Wait()
	return last, halves
}

// TestManyColdObjects: while many clients wait for many objects that are not
// here, hits stay fast, the origin sees no more connections than it may, and
// everybody is served.
func TestManyColdObjects(t *testing.T) {
	s := newScene(t)
	clients, objects := 200, 50
	if soak() {
		clients, objects = 2000, 500
	}
	const limit, size = 24, 100_000
	origin := &spring{pause: 100 * time.Millisecond}
	serve(t, s, origin)
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(),
		s.config+fmt.Sprintf("[origin]\nmax_connections = %d\nmax_connections_per_host = %d\nmax_wait = \"2m\"\n", limit, limit))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	address := func(number int) string {
		return fmt.Sprintf("%s/get/http/%s/%d/%d", box.URL(), s.origin.Addr(), number, size)
	}
	const warm = 1_000_000
	hot := contentOf(warm, size)
	if v := ask(ctx, s.clients[0], address(warm), "", hot); v.err != nil {
		t.Fatal(v.err)
	}
	bodies := make([][]byte, objects)
	for i := range bodies {
		bodies[i] = contentOf(uint64(i+1), size)
	}
	hits := hitting(t, s, address(warm), size)
	var mu sync.Mutex
	var misses []time.Duration
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			v := ask(ctx, s.clients[i%len(s.clients)], address(i%objects+1), "", bodies[i%objects])
			mu.Lock()
			defer mu.Unlock()
			if v.err != nil {
				t.Error(v.err)
			}
			misses = append(misses, v.done)
		})
	}
	all.Wait()
	waits := hits()
	figure(t, "crowd: requests at the origin at once", float64(origin.most.Load()), limit, "requests")
	figure(t, "crowd: copies from the origin", float64(origin.asked.Load()-1)/float64(objects), 1, "copies")
	timing(t, fmt.Sprintf("crowd: time to first byte of %d hits meanwhile, p99", len(waits)), percentile(waits, 99), 0.2, "s")
	t.Logf("the last of %d clients was served after %.2f s", clients, percentile(misses, 100))
}

// hitting has eight curls ask for a hit again and again, each time by a new
// connection, until the times to the first byte are asked for. They are processes
// of their own, so that they do not wait for the crowd's clients.
func hitting(t *testing.T, s *scene, address string, size int) (waits func() []time.Duration) {
	t.Helper()
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, bytes.Repeat([]byte("url = "+address+"\noutput = /dev/null\n"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var curls []*lab.Process
	for i := range 8 {
		p := s.clients[i%len(s.clients)].Command("curl", "-sS", "-H", "Connection: close", "--rate", "40/s",
			"-w", "%{stderr}%{http_code} %{size_download} %{time_starttransfer}\\n", "-K", list)
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		curls = append(curls, p)
	}
	waitFor(t, "a first hit", func() bool {
		out, _ := curls[0].Output() // what could not be read is not there
		return len(out) > 0
	})
	return func() (all []time.Duration) {
		for _, p := range curls {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			out, err := p.Output()
			if err != nil {
				t.Fatal(err)
			}
			whole, _, _ := bytes.Cut(out, []byte("curl:")) // it was stopped
			for line := range strings.Lines(string(whole)) {
				var code, n int
				var first float64
				if _, err := fmt.Sscan(line, &code, &n, &first); err != nil || code != http.StatusOK || n != size {
					t.Errorf("a hit was answered with %q", line)
				}
				all = append(all, time.Duration(first*float64(time.Second)))
			}
		}
		return all
	}
}
