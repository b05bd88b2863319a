package peering

import "testing"

// A magnet that is removed as its info arrives leaves nothing behind: neither
// objects that nobody fills nor a file for the next start.
func TestRemovedMagnetLeavesNothing(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(51, 1<<20)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["hybrid"])
	b := newBox(t, nil)
	snap := b.add([]byte("magnet:?xt=urn:btih:" + mi.HashInfoBytes().HexString()))
	spec, err := ParseSpec(text, b.swarm.limits())
	if err != nil {
		t.Fatal(err)
	}
	sh := b.swarm.find(spec)
	if err := b.swarm.Remove(t.Context(), snap.InfoHash); err != nil {
		t.Fatal(err)
	}
	if err := sh.adopt(spec); err == nil {
		t.Error("a torrent that was removed got its files")
	}
	if list := b.store.List(); len(list) != 0 {
		t.Errorf("objects are left: %+v", list)
	}
	if sh := b.swarm.find(spec); sh != nil {
		t.Error("the torrent is listed again")
	}
}

func TestMadeTorrentIsLeftWhenItsObjectTurnsPrivate(t *testing.T) {
	atOnce(t)
	b := newBox(t, nil)
	info := b.put("http://origin.example/x", random(52, 300_000))
	b.make(info.Num, "x")
	if list := b.swarm.list(); len(list) != 1 {
		t.Fatalf("torrents: %+v", list)
	}
	if err := b.store.Unpublish(info.Num); err != nil {
		t.Fatal(err)
	}
	until(t, "the torrent is left", func() bool { return len(b.swarm.list()) == 0 })
}
