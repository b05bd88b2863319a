package peering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
)

// A peer that says it has all, and what it does when it is asked.
type manner func(conn net.Conn, request []byte) error

// stalls never answers; refuses chokes whoever asks; babbles sends what nobody
// asked for; lies sends what is wrong.
var manners = map[string]manner{
	"stalls":  func(net.Conn, []byte) error { return nil },
	"refuses": func(conn net.Conn, _ []byte) error { return send(conn, 0, nil) },
	"babbles": func(conn net.Conn, _ []byte) error {
		return send(conn, 7, append(binary.BigEndian.AppendUint64(nil, 1<<40), make([]byte, 16<<10)...))
	},
	"lies": func(conn net.Conn, request []byte) error {
		length := min(binary.BigEndian.Uint32(request[8:]), 16<<10)
		return send(conn, 7, append(slices.Clone(request[:8]), bytes.Repeat([]byte("lie"), int(length)/3+1)[:length]...))
	},
}

func send(conn net.Conn, kind byte, body []byte) error {
	_, err := conn.Write(append(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+1)), kind), body...))
	return err
}

// hostile listens as a peer (BEP 3, without extensions) that has a torrent of so
// many pieces, as it says.
func hostile(t *testing.T, host string, mi *metainfo.MetaInfo, pieces int, m manner) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	hash := mi.HashInfoBytes()
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00"), hash[:]...)
	hello = append(hello, "-XX0001-abcdefghijkl"...)
	talk := func(conn net.Conn) {
		defer conn.Close()
		theirs := make([]byte, len(hello))
		if _, err := io.ReadFull(conn, theirs); err != nil || theirs[0] != 0x13 { // obfuscated: they try again in plain
			return
		}
		all := bytes.Repeat([]byte{0xff}, (pieces+7)/8)
		all[len(all)-1] = 0xff << (len(all)*8 - pieces)
		if _, err := conn.Write(hello); err != nil || send(conn, 5, all) != nil || send(conn, 1, nil) != nil {
			return
		}
		for {
			var head [4]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				return
			}
			body := make([]byte, min(binary.BigEndian.Uint32(head[:]), 1<<20))
			if _, err := io.ReadFull(conn, body); err != nil {
				return
			}
			if len(body) == 13 && body[0] == 6 && m(conn, body[1:]) != nil {
				return
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go talk(conn)
		}
	}()
	return l.Addr().String()
}

// Whatever some peers do, the file comes from the honest one, and who sent what
// is wrong is named.
func TestBadPeersAreOutlived(t *testing.T) {
	atOnce(t)
	for name, m := range manners {
		t.Run(name, func(t *testing.T) {
			atOnce(t)
			files := set{"disk.img": random(70, 3<<20)}
			_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
			b := newBox(t, func(c *Config) { c.stealGrace = time.Second })
			magnet := fmt.Sprintf("magnet:?xt=urn:btih:%s&x.pe=%s", mi.HashInfoBytes().HexString(), hostile(t, "127.0.8.1", mi, 48, m))
			text := seededBy(t, mi)
			snap := b.add(text)
			b.add([]byte(magnet))
			if name == "lies" {
				until(t, "the liar is banned", func() bool { return slices.Contains(b.swarm.Stats().Banned, "127.0.8.1") })
			} else {
				until(t, "the bad peer is connected", func() bool { return b.swarm.Stats().Peak > 0 })
			}
			b.point(snap.InfoHash, seedFrom(t, "127.0.8.2", files["disk.img"], mi))
			snap = b.complete(snap.InfoHash)
			b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
			if name == "lies" {
				until(t, "the torrent names it", func() bool {
					return slices.Equal(b.torrent(snap.InfoHash).Liars, []string{"127.0.8.1"})
				})
			}
		})
	}
}

// A tracker that answers with thousands of peers that are not there, with the
// box itself, with nonsense, or with no end at all does not keep the file away.
func TestLyingTrackersAreOutlived(t *testing.T) {
	atOnce(t)
	junk := func(box string) []byte {
		ap, _ := net.ResolveTCPAddr("tcp", box)
		peers := append(ap.IP.To4(), byte(ap.Port>>8), byte(ap.Port), 127, 0, 0, 1, 0, 0, 224, 0, 0, 1, 26, 225, 255, 255, 255, 255, 0, 1)
		for i := range 3000 {
			peers = append(peers, 127, 66, byte(i>>8), byte(i), 0, 9)
		}
		return peers
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, box string){
		"nobody there": func(w http.ResponseWriter, _ *http.Request, box string) {
			_, _ = w.Write(bencode.MustMarshal(map[string]any{"interval": 1 << 40, "complete": -7, "peers": string(junk(box))}))
		},
		"bad bencode": func(w http.ResponseWriter, _ *http.Request, _ string) {
			_, _ = io.WriteString(w, "d8:intervali-5e5:peersi99999999999999999999e")
		},
		"odd peers": func(w http.ResponseWriter, _ *http.Request, _ string) {
			_, _ = io.WriteString(w, "d8:intervali1e5:peers7:abcdefg6:peers617:abcdefghijklmnopqe")
		},
		"no end": func(w http.ResponseWriter, r *http.Request, _ string) {
			_, _ = io.WriteString(w, "d8:intervali1e5:peers999999999:")
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			atOnce(t)
			files := set{"disk.img": random(71, 1<<20)}
			_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
			b := newBox(t, nil)
			asked := make(chan struct{}, 100)
			tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				answer(w, r, b.addr())
			}))
			defer tracker.Close()
			snap := b.add(withTrackers(t, mi, tracker.URL+"/announce", ""))
			<-asked
			b.point(snap.InfoHash, seedFrom(t, "127.0.8.9", files["disk.img"], mi))
			b.complete(snap.InfoHash)
			if st := b.swarm.Stats(); st.Peak > b.swarm.cfg.MaxConnections {
				t.Errorf("peak of %d connections", st.Peak)
			}
			tracker.CloseClientConnections()
		})
	}
}

// What a torrent says of paths and sizes leads nowhere: it is refused with a
// reason, and nothing is written.
func TestHostileTorrentsWriteNothing(t *testing.T) {
	atOnce(t)
	b := newBox(t, nil)
	b.addr()
	before := listing(t, b.dir)
	var many []any
	for i := range 1001 {
		many = append(many, []string{fmt.Sprint(i)})
	}
	million := "d4:infod5:files" + "l" + strings.Repeat("d6:lengthi1e4:pathl1:aee", 600_000) + "e" + "4:name1:x12:piece lengthi65536e6:pieces0:ee"
	for name, c := range map[string]struct{ text, want string }{
		"traversal":       {files([]string{"..", "..", "etc", "passwd"}).torrent(), "leads out"},
		"absolute":        {files([]string{"/etc/passwd"}).torrent(), "leads out"},
		"name":            {plain.with("name", "../../x").torrent(), "not a name"},
		"absurd size":     {plain.with("length", int64(1)<<62).torrent(), "more than"},
		"absurd pieces":   {plain.with("piece length", int64(1)<<50).torrent(), "piece length"},
		"many files":      {files(many...).torrent(), "files"},
		"a million files": {million, "about 600000"},
		"bad bencode":     {"d4:infod6:lengthi1", "bencode"},
	} {
		if _, err := b.swarm.Add(t.Context(), []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v lacks %q", name, err, c.want)
		}
	}
	if after := listing(t, b.dir); !slices.Equal(before, after) {
		t.Errorf("files before: %v, after: %v", before, after)
	}
	if st := b.store.Stats(); st.Objects != 0 {
		t.Errorf("%d objects", st.Objects)
	}
}

// listing lists the torrents and bodies below a directory.
func listing(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(path, "index") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
