package peering

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// spanning has files that share pieces in a v1 torrent, and need padding in a
// hybrid one.
func spanning() set {
	return set{
		"a/first.bin":  random(1, 300_001),
		"a/second.txt": random(2, 17),
		"b/third.iso":  random(3, 1_500_000),
		"z.last":       random(4, 65_536),
	}
}

func TestFilesLandInTheStore(t *testing.T) {
	atOnce(t)
	single := set{"disk.img": random(9, 1_234_567)}
	for version, m := range modes {
		for _, c := range []struct {
			name  string
			files set
		}{{"disk.img", single}, {"release", spanning()}} {
			t.Run(version+" "+c.name, func(t *testing.T) {
				atOnce(t)
				text, mi := build(t, c.name, c.files, 64<<10, m)
				s := seed(t, "127.0.0.1", c.name, c.files, mi)
				b := newBox(t, nil)
				snap := b.add(text, s)
				if snap.State != StateFetching || snap.Name != c.name || len(snap.Files) != len(c.files) {
					t.Errorf("added: %+v", snap)
				}
				snap = b.complete(snap.InfoHash)
				var size int64
				for path, data := range c.files {
					b.holds("btih:"+snap.InfoHash+"/"+path, data)
					size += int64(len(data))
				}
				if snap.Size != size || snap.Have != size || snap.Wasted > 0 && snap.Down > size*103/100 {
					t.Errorf("figures: %+v", snap)
				}
				for _, f := range snap.Files {
					info, _ := b.store.Get(f.Object)
					if !info.Complete || info.Trust != content.TrustPieces || !info.Public {
						t.Errorf("object of %s: %+v", f.Path, info)
					}
				}
			})
		}
	}
}

func TestMagnetFetchesItsMetadata(t *testing.T) {
	atOnce(t)
	for version, m := range modes {
		t.Run(version, func(t *testing.T) {
			atOnce(t)
			files := spanning()
			_, mi := build(t, "release", files, 64<<10, m)
			magnet, err := mi.MagnetV2()
			if err != nil {
				t.Fatal(err)
			}
			s := seed(t, "127.0.0.1", "release", files, mi)
			b := newBox(t, nil)
			snap := b.add([]byte(magnet.String() + "&x.pe=" + tcpAddr(s)))
			if snap.State != StateMetadata || snap.Files != nil {
				t.Errorf("added: %+v", snap)
			}
			snap = b.complete(snap.InfoHash)
			for path, data := range files {
				b.holds("btih:"+snap.InfoHash+"/"+path, data)
			}
			// The next start knows all of it without asking anybody.
			b.stop()
			b.start()
			if again := b.complete(snap.InfoHash); again.Down != 0 || len(again.Files) != len(files) {
				t.Errorf("after a restart: %+v", again)
			}
		})
	}
}

func TestMagnetByV2HashOfHybridIsNamedByV1(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(5, 400_000)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["hybrid"])
	magnet, err := mi.MagnetV2()
	if err != nil {
		t.Fatal(err)
	}
	magnet.InfoHash.SetNone()
	s := seed(t, "127.0.0.1", "disk.img", files, mi)
	b := newBox(t, nil)
	added := b.add([]byte(magnet.String()), s)
	if len(added.InfoHash) != 64 {
		t.Fatalf("added: %+v", added)
	}
	snap := b.complete(added.InfoHash)
	if want := mi.HashInfoBytes().HexString(); snap.InfoHash != want {
		t.Errorf("infohash %s, want %s", snap.InfoHash, want)
	}
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
	if err := b.swarm.Remove(t.Context(), added.InfoHash); err != nil {
		t.Error(err)
	}
	if left := b.swarm.Stats().Torrents; len(left) != 0 {
		t.Errorf("still here: %+v", left)
	}
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
}

func TestKnownBytesAreNotFetched(t *testing.T) {
	atOnce(t)
	for _, version := range []string{"v2", "hybrid"} {
		t.Run(version, func(t *testing.T) {
			atOnce(t)
			files := spanning()
			text, mi := build(t, "release", files, 64<<10, modes[version])
			s := seed(t, "127.0.0.1", "release", files, mi)
			b := newBox(t, nil)
			by := b.put("http://deb.example.org/third.iso", files["b/third.iso"])
			snap := b.add(text, s)
			snap = b.complete(snap.InfoHash)
			if most := snap.Size - by.Size; snap.Down > most*103/100 {
				t.Errorf("fetched %d bytes, %d were missing", snap.Down, most)
			}
			for path, data := range files {
				b.holds("btih:"+snap.InfoHash+"/"+path, data)
			}
			if info, _, _ := b.store.Lookup("btih:" + snap.InfoHash + "/b/third.iso"); info.Num != by.Num {
				t.Errorf("object %d has the bytes, the torrent's file is object %d", by.Num, info.Num)
			}
		})
	}
}

func TestCorruptSeedIsOutlivedAndNamed(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(6, 2_000_000)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	honest := seed(t, "127.0.0.2", "disk.img", files, mi)
	liar := lying(t, "127.0.0.3", mi)
	b := newBox(t, nil)
	snap := b.add(text, liar)
	until(t, "the liar was named", func() bool { return b.swarm.Stats().Faults["127.0.0.3"] > 0 })
	b.point(snap.InfoHash, honest)
	b.complete(snap.InfoHash)
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
	if banned := b.swarm.Stats().Banned; !slices.Equal(banned, []string{"127.0.0.3"}) {
		t.Errorf("banned: %v", banned)
	}
}

// lying is a seed whose bytes are wrong and who believes that they are right.
func lying(t *testing.T, host string, mi *metainfo.MetaInfo) *torrent.Client {
	t.Helper()
	cfg := peerConfig(host, t.TempDir())
	cfg.DefaultStorage = lies{}
	return client(t, cfg, mi)
}

// memory is the storage of a seed whose only file is in memory.
type memory []byte

func (m memory) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{Piece: func(p metainfo.Piece) storage.PieceImpl { return memoryPiece{m[p.Offset():]} }}, nil
}

type memoryPiece struct{ memory }

func (m memoryPiece) ReadAt(p []byte, off int64) (int, error) { return copy(p, m.memory[off:]), nil }
func (memoryPiece) WriteAt(p []byte, _ int64) (int, error)    { return len(p), nil }
func (memoryPiece) MarkComplete() error                       { return nil }
func (memoryPiece) MarkNotComplete() error                    { return nil }
func (memoryPiece) Completion() storage.Completion {
	return storage.Completion{Ok: true, Complete: true}
}

type lies struct{}

func (lies) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{Piece: func(metainfo.Piece) storage.PieceImpl { return lies{} }}, nil
}

func (lies) ReadAt(p []byte, _ int64) (int, error) {
	return copy(p, bytes.Repeat([]byte("lie"), len(p))), nil
}
func (lies) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (lies) MarkComplete() error                    { return nil }
func (lies) MarkNotComplete() error                 { return nil }
func (lies) Completion() storage.Completion         { return storage.Completion{Ok: true, Complete: true} }

func TestRestartFetchesNothingTwice(t *testing.T) {
	atOnce(t)
	for version, m := range modes {
		t.Run(version, func(t *testing.T) {
			atOnce(t)
			files := set{"a.bin": random(7, 5<<20), "b.bin": random(8, 3<<20+5)}
			text, mi := build(t, "two", files, 256<<10, m)
			s := seed(t, "127.0.0.1", "two", files, mi)
			b := newBox(t, nil)
			b.cfg.UploadRate = -1
			snap := b.add(text, s)
			until(t, "some of it is here", func() bool { return b.torrent(snap.InfoHash).Have > 2<<20 })
			b.stop()
			durable := int64(0)
			b.start()
			until(t, "it is resumed", func() bool { return b.torrent(snap.InfoHash).InfoHash != "" })
			durable = b.torrent(snap.InfoHash).Have
			b.point(snap.InfoHash, s)
			again := b.complete(snap.InfoHash)
			if most := again.Size - durable; again.Down > most*103/100+128<<10 {
				t.Errorf("fetched %d bytes after the restart, %d were missing", again.Down, most)
			}
			for path, data := range files {
				b.holds("btih:"+snap.InfoHash+"/"+path, data)
			}
		})
	}
}

func TestReaderGetsItsBytesFirst(t *testing.T) {
	atOnce(t)
	files := set{"film.mkv": random(10, 8<<20)}
	text, mi := build(t, "film.mkv", files, 64<<10, modes["v1"])
	s := seed(t, "127.0.0.1", "film.mkv", files, mi)
	b := newBox(t, nil)
	snap := b.add(text)
	info, _, _ := b.store.Lookup("btih:" + snap.InfoHash + "/film.mkv")
	r, err := b.store.Read(info.Num)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at := int64(5 << 20)
	got := make(chan error, 1)
	var part strings.Builder
	go func() {
		_, err := r.WriteRange(t.Context(), &part, content.Range{Off: at, End: at + 1000})
		got <- err
	}()
	until(t, "the demand is known", func() bool {
		return b.share(snap.InfoHash).t.PieceState(int(at/(64<<10))).Priority == torrent.PiecePriorityNow
	})
	b.point(snap.InfoHash, s)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if part.String() != string(files["film.mkv"][at:at+1000]) {
		t.Error("other bytes")
	}
	b.complete(snap.InfoHash)
}

func TestEvictedTorrentIsLeft(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(11, 200_000)}
	text, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	s := seed(t, "127.0.0.1", "disk.img", files, mi)
	b := newBox(t, nil)
	snap := b.complete(b.add(text, s).InfoHash)
	if err := b.store.Evict(snap.Files[0].Object); err != nil {
		t.Fatal(err)
	}
	until(t, "the torrent is left", func() bool { return len(b.swarm.Stats().Torrents) == 0 })
	// It can be had again.
	b.complete(b.add(text, s).InfoHash)
}

// A torrent that is being left can be added meanwhile.
func TestAddedWhileItIsLeft(t *testing.T) {
	atOnce(t)
	text, _ := build(t, "x", set{"x": random(13, 100_000)}, 64<<10, modes["hybrid"])
	b := newBox(t, nil)
	sh := b.share(b.add(text).InfoHash)
	b.swarm.adding.Lock()
	b.swarm.drop(sh)
	b.swarm.adding.Unlock()
	added := make(chan error, 1)
	go func() {
		_, err := b.swarm.Add(t.Context(), text)
		added <- err
	}()
	select {
	case err := <-added:
		t.Errorf("added before the client let go of it: %v", err)
	case <-time.After(50 * time.Millisecond):
		sh.close()
		if err := <-added; err != nil {
			t.Error(err)
		}
	}
}

func TestSecondAddIsTheSameTorrent(t *testing.T) {
	atOnce(t)
	text, mi := build(t, "x", set{"x": random(12, 100_000)}, 64<<10, modes["hybrid"])
	b := newBox(t, nil)
	first := b.add(text)
	for _, again := range []string{string(text), first.InfoHash, first.InfoHashV2, "magnet:?xt=urn:btih:" + mi.HashInfoBytes().HexString()} {
		if snap := b.add([]byte(again)); snap.InfoHash != first.InfoHash || len(snap.Files) != 1 {
			t.Errorf("added again: %+v", snap)
		}
	}
	if n := len(b.swarm.Stats().Torrents); n != 1 {
		t.Errorf("%d torrents", n)
	}
}

func TestTorrentWithoutRoomChangesNothing(t *testing.T) {
	atOnce(t)
	b := newBox(t, nil)
	b.stop()
	var err error
	if b.store, err = cache.Open(cache.Config{Dir: b.dir + "/small", MaxBytes: 1 << 20, MinFree: 1}, testLog()); err != nil {
		t.Fatal(err)
	}
	defer b.store.Close()
	if b.swarm, err = New(b.cfg, b.store, plainDial, testLog()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.swarm.Run(ctx) }()
	defer func() { cancel(); <-done }()
	text, _ := build(t, "big", set{"a": random(1, 600_000), "b": random(2, 600_000)}, 64<<10, modes["v1"])
	if _, err := b.swarm.Add(t.Context(), text); err == nil || !strings.Contains(err.Error(), content.ErrFull.Error()) {
		t.Errorf("error %v", err)
	}
	if st := b.store.Stats(); st.Objects != 0 || st.Bytes != 0 {
		t.Errorf("store has %+v", st)
	}
	if st := b.swarm.Stats(); len(st.Torrents) != 0 {
		t.Errorf("torrents: %+v", st.Torrents)
	}
}

// client is a foreign client that has one torrent, until the test ends.
func client(t *testing.T, cfg *torrent.ClientConfig, mi *metainfo.MetaInfo) *torrent.Client {
	t.Helper()
	c, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.AddTorrent(mi); err != nil {
		t.Fatal(err)
	}
	return c
}
