package hwtest

import (
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/cistern-edge/cistern/hwtest/actors"
)

// TestTorrentClientsDrinkFromTheBox: a file that came by HTTP is given as a
// torrent, and two unmodified clients fetch it from the box alone: libtorrent as
// from a peer found by local discovery, aria2 as from a web seed.
func TestTorrentClientsDrinkFromTheBox(t *testing.T) {
	s := newScene(t)
	dir := t.TempDir()
	want, err := actors.WriteContent(filepath.Join(dir, "www/file.iso"), 20e6, 3)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	origin := actors.NewOrigin(filepath.Join(dir, "www"))
	origin.Start(l)
	defer origin.Close()
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config+"[peering]\ndiscovery = \"eth0\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := actors.Curl(t.Context(), s.clients[0], box.URL(), "http://"+s.origin.Addr().String()+"/file.iso"); err != nil {
		t.Fatal(err)
	}
	asked := origin.Requests()

	torrent := filepath.Join(dir, "file.torrent")
	address := box.URL() + "/get/http/" + s.origin.Addr().String() + "/file.iso?torrent"
	waitFor(t, "the torrent", func() bool {
		resp, err := s.clients[0].HTTPClient().Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			t.Fatal(err)
		case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
			return false // its pieces are still being hashed
		case resp.StatusCode != http.StatusOK:
			t.Fatalf("%s: %s: %s", address, resp.Status, body)
		}
		write(t, torrent, body)
		return true
	})
	for name, fetch := range map[string]func(dir string) error{
		"libtorrent": func(dir string) error { return actors.Leech(t.Context(), s.clients[1], torrent, dir) },
		"aria2":      func(dir string) error { return actors.FetchTorrent(t.Context(), s.clients[0], torrent, dir) },
	} {
		out := filepath.Join(dir, name)
		mkdir(t, out)
		if err := fetch(out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := actors.Digest(filepath.Join(out, "file.iso"))
		if err != nil || got != want {
			t.Fatalf("%s: SHA-256 is %s, %v; want %s", name, got, err, want)
		}
	}
	figure(t, "torrent: origin requests of two torrent clients", float64(origin.Requests()-asked), 0, "requests")
}
