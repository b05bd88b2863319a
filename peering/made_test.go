package peering

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// make asks for a torrent until it is ready.
func (b *box) make(num uint64, name string) []byte {
	b.t.Helper()
	var text []byte
	until(b.t, "the torrent is made", func() bool {
		var err error
		text, err = b.swarm.Torrent(b.t.Context(), num, name)
		var hashing *HashingError
		if err != nil && !errors.As(err, &hashing) {
			b.t.Fatal(err)
		}
		return err == nil
	})
	return text
}

func load(t *testing.T, text []byte) *metainfo.MetaInfo {
	t.Helper()
	mi, err := metainfo.Load(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return mi
}

func TestMadeTorrentIsPureAndLeeched(t *testing.T) {
	atOnce(t)
	for _, c := range []struct {
		name     string
		size     int
		infohash string
	}{
		{"small.bin", 20_000, "932a63dfdd8b2d7303e1f245fb1ceceb29897f14"},
		{"one-block.bin", 1 << 20, "998eeebf15fa501668e9c400020477636de5d765"},
		{"large.iso", 7<<20 + 12345, "edf90405520c05962c119acc9db1ac04511dd70f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			atOnce(t)
			data := random(uint64(c.size), c.size)
			b := newBox(t, func(cfg *Config) {
				cfg.LAN = loopback
				cfg.BoxURL = "http://10.0.0.2:3142"
				cfg.Trackers = []string{"http://10.0.0.2:6969/announce"}
			})
			info := b.put("http://origin.example/"+c.name, data)
			text := b.make(info.Num, c.name)
			mi := load(t, text)
			if got := mi.HashInfoBytes().HexString(); got != c.infohash {
				t.Errorf("infohash %s, want %s", got, c.infohash)
			}
			if _, own := build(t, c.name, set{c.name: data}, 1<<20, modes["hybrid"]); !bytes.Equal(own.InfoBytes, mi.InfoBytes) {
				t.Error("the info is not what the test makes of the same bytes")
			}
			if mi.UrlList[0] != "http://10.0.0.2:3142/o/"+info.ID.String() || mi.Announce != "http://10.0.0.2:6969/announce" {
				t.Errorf("web seed %v, tracker %s", mi.UrlList, mi.Announce)
			}
			if again := b.make(info.Num, c.name); !bytes.Equal(again, text) {
				t.Error("made another torrent the second time")
			}
			mi.UrlList, mi.Announce, mi.AnnounceList = nil, "", nil
			for i := range 2 { // before and after a restart
				leech := peer(t, "127.0.0.5", t.TempDir())
				tor, err := leech.AddTorrent(mi)
				if err != nil {
					t.Fatal(err)
				}
				meet(t, tor, b.addr())
				tor.DownloadAll()
				if !bytes.Equal(readAll(t, tor), data) {
					t.Error("other bytes came")
				}
				tor.Drop()
				if i == 0 {
					b.stop()
					if served := b.served(info.Num); served < int64(c.size) {
						t.Errorf("%d bytes are counted as served", served)
					}
					b.start()
				}
			}
			st := b.swarm.Stats()
			if len(st.Torrents) != 1 || !st.Torrents[0].Made || st.Torrents[0].State != StateComplete || st.Peak != 0 {
				t.Errorf("stats: %+v", st)
			}
		})
	}
}

// served reads the figures of a closed store.
func (b *box) served(num uint64) int64 {
	b.t.Helper()
	store, err := cache.Open(cache.Config{Dir: b.dir + "/store", MinFree: 1}, testLog())
	if err != nil {
		b.t.Fatal(err)
	}
	defer store.Close()
	info, _ := store.Get(num)
	return info.Served["bittorrent"]
}

func TestMadeTorrentIsForTheLANOnly(t *testing.T) {
	atOnce(t)
	data := random(20, 300_000)
	b := newBox(t, nil) // no LAN: loopback is outside
	info := b.put("http://origin.example/x", data)
	mi := load(t, b.make(info.Num, "x"))
	leech := peer(t, "127.0.0.5", t.TempDir())
	tor, err := leech.AddTorrent(mi)
	if err != nil {
		t.Fatal(err)
	}
	tor.DownloadAll()
	for range 20 {
		tor.AddPeers([]torrent.PeerInfo{{Addr: torrent.StringAddr(b.addr())}})
		time.Sleep(20 * time.Millisecond)
	}
	if got := tor.BytesCompleted(); got != 0 {
		t.Errorf("a peer outside got %d bytes", got)
	}
	if st := b.swarm.Stats(); st.Up != 0 || st.Peak == 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestNoTorrentForWhatMayNotBeShared(t *testing.T) {
	atOnce(t)
	b := newBox(t, nil)
	private, err := b.store.Create(cache.Spec{Object: content.Object{Size: 5}, Title: "p"}, "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	private.Start(bytesSource("bytes"))
	<-private.Done()
	unfinished, err := b.store.Create(cache.Spec{Object: content.Object{Size: 5}, Title: "u", Public: true}, "u", nil)
	if err != nil {
		t.Fatal(err)
	}
	for num, want := range map[uint64]string{
		private.Num():                "no torrent is made for this object: it is not public",
		unfinished.Num():             "no torrent is made for this object: it is not complete",
		b.put("empty", []byte{}).Num: "no torrent is made for this object: it is empty",
		999:                          "make torrent of object 999: not in the store",
	} {
		if _, err := b.swarm.Torrent(t.Context(), num, "x"); err == nil || err.Error() != want {
			t.Errorf("object %d: error %v, want %q", num, err, want)
		}
	}
}

func TestDamagedHashesAreMadeAgain(t *testing.T) {
	atOnce(t)
	b := newBox(t, nil)
	info := b.put("x", random(21, 3<<20))
	first := b.make(info.Num, "x")
	if err := writeFile(b.swarm.hasher.path(info.ID), []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if again := b.make(info.Num, "x"); !bytes.Equal(first, again) {
		t.Error("another torrent")
	}
}

func TestPieceLengthIsFixedBySize(t *testing.T) {
	atOnce(t)
	for size, want := range map[int64]int64{1: 1 << 20, 2 << 30: 1 << 20, 2<<30 + 1: 2 << 20, 64 << 30: 16 << 20, 1 << 45: 16 << 20} {
		if got := pieceLength(size); got != want {
			t.Errorf("%d bytes: %d, want %d", size, got, want)
		}
	}
}

func TestPieceLayerOfLongPieces(t *testing.T) {
	atOnce(t)
	leaves := make([]content.Hash, 64*13+5)
	for i := range leaves {
		leaves[i] = content.LeafHash([]byte{byte(i), byte(i >> 8)})
	}
	size := int64(len(leaves)) * content.LeafSize
	for _, length := range []int64{1 << 20, 2 << 20, 4 << 20, 8 << 20} {
		if got, want := pieceLayer(content.NewLayer(size, leaves), length), layerOf(leaves, length); got != want {
			t.Errorf("piece length %d: other layer", length)
		}
	}
}
