package peering

import (
	"errors"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache"
)

// A torrent that is taken down by one of its infohashes is left, its files go,
// and it cannot be added by either.
func TestTakedownOfARunningTorrent(t *testing.T) {
	atOnce(t)
	for _, by := range []string{"v1", "v2"} {
		files := set{"x.img": random(71, 1<<20), "y.img": random(72, 100_000)}
		text, mi := build(t, "release", files, 64<<10, modes["hybrid"])
		b := newBox(t, nil)
		snap := b.add(text, seed(t, "127.0.0.1", "release", files, mi))
		b.complete(snap.InfoHash)
		hash := map[string]string{"v1": snap.InfoHash, "v2": snap.InfoHashV2}[by]
		if _, err := b.store.Purge("btih:"+hash, "a court said so", "test"); err != nil {
			t.Fatal(err)
		}
		until(t, "the torrent is left and its files are gone", func() bool {
			return len(b.swarm.list()) == 0 && len(b.store.List()) == 0
		})
		for _, again := range []string{string(text), "magnet:?xt=urn:btih:" + snap.InfoHash, "magnet:?xt=urn:btmh:1220" + snap.InfoHashV2, snap.InfoHash} {
			_, err := b.swarm.Add(t.Context(), []byte(again))
			if !errors.Is(err, cache.ErrDenied) || !strings.Contains(err.Error(), "a court said so") {
				t.Errorf("%s, add %.20q: %v", by, again, err)
			}
		}
		b.stop()
		b.start()
		b.addr()
		if list := b.swarm.list(); len(list) > 0 {
			t.Errorf("%s: it is here again after a restart", by)
		}
		b.stop()
	}
}

// A magnet whose info turns out to be of a torrent that was taken down is not
// joined.
func TestTakedownOfAMagnet(t *testing.T) {
	atOnce(t)
	files := set{"x.img": random(73, 1<<20)}
	text, mi := build(t, "x.img", files, 64<<10, modes["hybrid"])
	b := newBox(t, nil)
	spec, err := ParseSpec(text, b.swarm.limits())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Purge("btih:"+spec.keys()[1], "a court said so", "test"); err != nil {
		t.Fatal(err)
	}
	b.add([]byte("magnet:?xt=urn:btih:"+mi.HashInfoBytes().HexString()), seed(t, "127.0.0.1", "x.img", files, mi))
	until(t, "its info is here", func() bool {
		snap := b.torrent(mi.HashInfoBytes().HexString())
		return snap.State == StateFailed && strings.Contains(snap.Err, "a court said so")
	})
	if list := b.store.List(); len(list) > 0 {
		t.Errorf("objects: %+v", list)
	}
}
