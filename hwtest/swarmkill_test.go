package hwtest

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/hwtest/actors"
)

// TestKillInTheMiddleOfATorrent: the box is killed while it fetches a torrent;
// started again, it goes on from its durable bytes without being told.
func TestKillInTheMiddleOfATorrent(t *testing.T) {
	s := newScene(t)
	const size = 160e6
	dir, data := t.TempDir(), t.TempDir()
	if _, err := actors.WriteContent(filepath.Join(dir, "release.iso"), size, 9); err != nil {
		t.Fatal(err)
	}
	addr := s.origin.Addr().String()
	torrent, err := actors.MakeTorrent(filepath.Join(dir, "release.iso"), dir, "http://"+addr+":6969/announce")
	if err != nil {
		t.Fatal(err)
	}
	if err := actors.StartTracker(t.Context(), s.origin, addr, filepath.Join(t.TempDir(), "tracker"), torrent.Hybrid.Infohash); err != nil {
		t.Fatal(err)
	}
	seeds, err := actors.StartSeeds(t.Context(), s.origin, []string{addr}, []string{torrent.Hybrid.Path}, dir, 20e6)
	if err != nil {
		t.Fatal(err)
	}
	if err := seeds.WaitAnnounced(t.Context(), addr+":6969", torrent.Hybrid.Infohash); err != nil {
		t.Fatal(err)
	}
	uploaded := func() int64 {
		n, err := seeds.Uploaded(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	box, err := actors.StartBox(t.Context(), s.box, bin, data, s.config)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := box.Command(t.Context(), "add", torrent.Hybrid.Path); err != nil {
		t.Fatalf("add: %v\n%s", err, out)
	}
	waitFor(t, "most of the torrent", func() bool { return uploaded() > size*3/4 })
	if err := box.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // what is on its way to nobody
	before := uploaded()
	if box, err = actors.StartBox(t.Context(), s.box, bin, data, s.config); err != nil {
		t.Fatal(err)
	}
	complete := func() bool {
		var list []client.Swarm
		if err := box.API(t.Context(), "/api/v1/swarms", &list); err != nil {
			t.Fatal(err)
		}
		return len(list) == 1 && list[0].Size == size && list[0].BytesHave == size
	}
	for limit := time.Now().Add(90 * time.Second); !complete(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the torrent did not go on")
		}
	}
	again := uploaded() - size
	t.Logf("killed after %d of %d bytes", before, int64(size))
	figure(t, "swarm: bytes fetched again after kill -9 in mid-download", float64(again), 64<<20, "bytes")
	if uploaded()-before >= size {
		t.Error("the download began anew instead of going on from its durable bytes")
	}
}
