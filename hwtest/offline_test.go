package hwtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// offlinePage is a page with parts: what the script writes shows that all came.
const offlinePage = `<!DOCTYPE html><title>Story</title><link rel="stylesheet" href="/site/style.css">
<body><img src="/site/picture.svg" onload="document.title='pictured'"><p id="said">nothing</p><script src="/site/script.js"></script></body>`

const offlineScript = `addEventListener('load', function () {
  document.getElementById('said').textContent = 'script ran, colour ' + getComputedStyle(document.body).color + ', ' + document.title;
});`

// shortLived serves a directory whose answers are stale a second later; what lies
// under /strict/ may never be served stale.
func shortLived(dir string) http.Handler {
	files := http.FileServer(http.Dir(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1")
		if strings.HasPrefix(r.URL.Path, "/strict/") {
			w.Header().Set("Cache-Control", "max-age=1, must-revalidate")
		}
		files.ServeHTTP(w, r)
	})
}

// TestOffline: apt and a browser use the box; then the uplink is cut, by pulling
// its plug and by losing every packet in silence. A second machine installs, a
// second browser shows the page, from what is here and stale by now; what is not
// here is told at once. Then the uplink is back, and so is the box.
func TestOffline(t *testing.T) {
	tools(t, "curl", "chromium")
	s := newScene(t)
	digest := sha256.Sum256([]byte("offline"))
	story := bytes.Repeat(digest[:], 20_000)
	repo := makeRepository(t, story)
	for name, text := range map[string]string{
		"site/page.html": offlinePage, "site/script.js": offlineScript, "site/style.css": "body { color: rgb(1, 2, 3) }",
		"site/picture.svg": `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>`, "strict/x": "x", "late.html": "<p>new</p>",
	} {
		write(t, filepath.Join(repo.dir, name), []byte(text))
	}
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: 30 * time.Second, Handler: shortLived(repo.dir)}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		done.Wait()
	})
	at := "http://" + s.origin.Addr().String()
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	install := func(h *lab.Host) time.Duration {
		root, config := aptMachine(t, repo, at, box.URL())
		began := time.Now()
		for _, args := range [][]string{{"update"}, {"install", debPackage}} {
			out, err := h.Run(t.Context(), "env", append([]string{"APT_CONFIG=" + config, "apt-get", "-y", "-o", "APT::Update::Error-Mode=any"}, args...)...)
			if err != nil {
				t.Fatalf("apt-get %v: %v\n%s", args, err, out)
			}
		}
		took := time.Since(began)
		installed(t, root, story)
		return took
	}
	install(s.clients[0])
	shows(t, s.clients[0], box, at+"/site/page.html", "script ran, colour rgb(1, 2, 3), pictured")
	if got := fetchThrough(t, s.clients[0], box, at+"/strict/x", ""); got.status != http.StatusOK {
		t.Fatalf("/strict/x: %+v", got)
	}
	uplink := func() (st client.Status) {
		if err := box.API(t.Context(), "/api/v1/status", &st); err != nil {
			t.Fatal(err)
		}
		return st
	}

	cuts := []struct {
		name      string
		cut, mend func() error
	}{
		{"the plug is pulled", func() error { return s.uplink.SetUp(t.Context(), false) }, func() error { return s.uplink.SetUp(t.Context(), true) }},
		{"packets are lost in silence", func() error {
			return s.uplink.SetPath(lab.FromHost, lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: 1}})
		}, func() error { return s.uplink.SetPath(lab.FromHost, lab.Path{}) }},
	}
	if !soak() {
		cuts = cuts[:1]
	}
	for i, c := range cuts {
		time.Sleep(1100 * time.Millisecond) // what is here is stale by now
		if err := c.cut(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if got := fetchThrough(t, s.clients[1], box, fmt.Sprint(at, "/absent-", i), ""); got.status != http.StatusGatewayTimeout {
			t.Fatalf("%s: the first request: %+v", c.name, got)
		}
		noticed := time.Since(began)
		if st := uplink(); !st.Uplink.Down {
			t.Errorf("%s: the API says %+v", c.name, st.Uplink)
		}
		if out, err := box.Command(t.Context(), "status"); err != nil || !strings.Contains(string(out), "OFFLINE since ") {
			t.Errorf("%s: cistern status: %v\n%s", c.name, err, out)
		}
		apt := install(s.clients[1])
		shows(t, s.clients[1], box, at+"/site/page.html", "script ran, colour rgb(1, 2, 3), pictured")
		shows(t, s.clients[1], box, fmt.Sprint(at, "/missing-", i, ".html"), "The uplink is down", "/missing-")
		stale := fetchThrough(t, s.clients[1], box, at+"/site/page.html", "")
		if stale.status != http.StatusOK || !strings.Contains(stale.cacheStatus, "disconnected (RFC 9111 §4.2.4)") && !strings.Contains(stale.cacheStatus, "the uplink is down since ") {
			t.Errorf("%s: a stale page: %+v", c.name, stale)
		}
		absent := fetchThrough(t, s.clients[1], box, at+"/late.html", "text/html")
		if absent.status != http.StatusGatewayTimeout || !strings.Contains(absent.body, "<h1>The uplink is down</h1>") {
			t.Errorf("%s: what is not here: %+v", c.name, absent)
		}
		if strict := fetchThrough(t, s.clients[1], box, at+"/strict/x", ""); strict.status != http.StatusGatewayTimeout || !strings.Contains(strict.body, "must-revalidate") {
			t.Errorf("%s: what may not be served stale: %+v", c.name, strict)
		}
		if soak() {
			figure(t, "offline: "+c.name+": until the first request that cannot be answered is told so", noticed.Seconds(), 10, "s")
			figure(t, "offline: "+c.name+": the next one", absent.took.Seconds(), 0.5, "s")
			figure(t, "offline: "+c.name+": apt-get update and install", apt.Seconds(), 30, "s")
		}
		if err := c.mend(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the uplink's return", func() bool { return !uplink().Uplink.Down })
	}
	if got := fetchThrough(t, s.clients[1], box, at+"/late.html", ""); got.status != http.StatusOK || got.body != "<p>new</p>" {
		t.Errorf("after the return: %+v", got)
	}
}

// shows has a browser load a page through the box, and wants texts in what it
// shows.
func shows(t *testing.T, h *lab.Host, box *actors.Box, address string, want ...string) {
	t.Helper()
	out, err := h.Run(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
		"--proxy-server="+box.URL(), "--timeout=20000", "--dump-dom", address)
	if err != nil {
		t.Fatalf("chromium %s: %v\n%s", address, err, out)
	}
	for _, text := range want {
		if !bytes.Contains(out, []byte(text)) {
			t.Errorf("%s does not show %q:\n%s", address, text, out)
		}
	}
}

// told is what a client was answered.
type told struct {
	status            int
	cacheStatus, body string
	took              time.Duration
}

// fetchThrough sends one request through the box.
func fetchThrough(t *testing.T, h *lab.Host, box *actors.Box, address, accept string) (got told) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, box.URL()+"/get/"+strings.Replace(address, "://", "/", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	began := time.Now()
	resp, err := h.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return told{resp.StatusCode, resp.Header.Get("Cache-Status"), string(body), time.Since(began)}
}
