package peering

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"

	"github.com/cistern-edge/cistern/cache/content"
)

var testLimits = Limits{Files: 10, Bytes: 1 << 30}

// dict is a bencoded dictionary in the making.
type dict map[string]any

func (d dict) with(key string, value any) dict {
	other := dict{}
	for k, v := range d {
		other[k] = v
	}
	if other[key] = value; value == nil {
		delete(other, key)
	}
	return other
}

func (d dict) torrent() string {
	return string(bencode.MustMarshal(map[string]any{"info": map[string]any(d)}))
}

func hashes(n int) string { return strings.Repeat("h", 20*n) }

var plain = dict{"name": "x", "piece length": 65536, "length": 100_000, "pieces": hashes(2)}

func files(paths ...any) dict {
	var list []any
	for _, p := range paths {
		list = append(list, map[string]any{"length": 10, "path": p})
	}
	return dict{"name": "x", "piece length": 65536, "files": list, "pieces": hashes(1)}
}

func tree(entries map[string]any) dict {
	return dict{"name": "x", "piece length": 65536, "meta version": 2, "file tree": entries}
}

func leaf(length int64, root string) map[string]any {
	f := map[string]any{"length": length}
	if root != "" {
		f["pieces root"] = root
	}
	return map[string]any{"": f}
}

func TestFaultsOfTorrentsAreNamed(t *testing.T) {
	atOnce(t)
	root := strings.Repeat("r", 32)
	many := make([]any, 11)
	for i := range many {
		many[i] = []string{fmt.Sprint(i)}
	}
	for _, c := range []struct{ name, input, want string }{
		{"nothing", "  ", "nothing was given"},
		{"words", "hello", `"hello" is neither a magnet nor an infohash nor a .torrent file: an infohash has 40 or 64 hexadecimal digits or 32 of base32, not 5 characters`},
		{"page", "<html>" + strings.Repeat("x", maxText), "65542 bytes are neither a .torrent file, which begins with 'd', nor a magnet, which has at most 65536"},
		{"hex", strings.Repeat("zz", 20), `v1 infohash "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz": encoding/hex: invalid byte: U+007A 'z'`},
		{"base32", strings.Repeat("1", 32), `v1 infohash "11111111111111111111111111111111" in base32: illegal base32 data at input byte 0`},
		{"base32 padded", strings.Repeat("A", 30) + "==", "in base32: illegal base32 data at input byte 30"},
		{"zeros", strings.Repeat("0", 40), "the infohash is all zeros"},
		{"magnet without topic", "magnet:?dn=x", `magnet "magnet:?dn=x" has neither xt=urn:btih: nor xt=urn:btmh: for a topic`},
		{"magnet of another network", "magnet:?xt=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C", "for a topic"},
		{"magnet escape", "magnet:?xt=%zz", `invalid URL escape "%zz"`},
		{"magnet length", "magnet:?xt=urn:btih:abc", "magnet: an infohash has 40 or 64 hexadecimal digits or 32 of base32, not 3 characters"},
		{"magnet mixed", "magnet:?xt=urn:btih:" + strings.Repeat("a", 64), "a v2 infohash goes as xt=urn:btmh:1220…"},
		{"magnet twice", "magnet:?xt=urn:btih:" + strings.Repeat("a", 40) + "&xt=urn:btih:" + strings.Repeat("b", 40), "magnet: has two v1 infohashes"},
		{"magnet multihash", "magnet:?xt=urn:btmh:1114" + strings.Repeat("a", 40), "is not 1220 and 64 hexadecimal digits"},
		{"bencode", "d4:infoi5e", ".torrent file: bad bencode: "},
		{"cut", plain.torrent()[:60], ".torrent file: bad bencode: "},
		{"tail", plain.torrent() + "x", ".torrent file: bad bencode: 1 unused trailing bytes"},
		{"no info", "d8:announce1:xe", ".torrent file has no info dictionary"},
		{"deep", "d4:info" + strings.Repeat("l", 200_000) + strings.Repeat("e", 200_001), "nesting depth 65 exceeds limit (64)"},
		{"huge string", "d4:info999999999999:x", ".torrent file: bad bencode: "},
		{"piece length 0", plain.with("piece length", 0).torrent(), "piece length is 0, not between 1024 and 134217728"},
		{"piece length negative", plain.with("piece length", -1).torrent(), "piece length is -1,"},
		{"piece length large", plain.with("piece length", int64(1)<<40).torrent(), "piece length is 1099511627776,"},
		{"pieces odd", plain.with("pieces", "xyz").torrent(), "pieces has 3 bytes, not a multiple of 20"},
		{"pieces few", plain.with("pieces", hashes(1)).torrent(), "torrent has 1 piece hashes for 2 pieces"},
		{"pieces none", plain.with("pieces", nil).torrent(), "torrent has 0 piece hashes for 2 pieces"},
		{"length negative", plain.with("length", -5).torrent(), `file "" has the length -5`},
		{"length large", plain.with("length", int64(1)<<62).torrent(), "torrent has more than 1073741824 bytes"},
		{"name missing", plain.with("name", nil).torrent(), `name "" is empty or not a name`},
		{"name dots", plain.with("name", "..").torrent(), `name ".." is empty or not a name`},
		{"name path", plain.with("name", "../../etc/passwd").torrent(), `name "../../etc/passwd" is empty or not a name`},
		{"path dots", files([]string{"a", "..", "b"}).torrent(), `path "a/../b" leads out of the torrent or has an empty element`},
		{"path absolute", files([]string{"/etc/passwd"}).torrent(), `path "/etc/passwd" leads out`},
		{"path backslash", files([]string{`..\x`}).torrent(), "leads out of the torrent"},
		{"path empty", files([]string{"a", ""}).torrent(), "has an empty element"},
		{"path zero", files([]string{"a\x00b"}).torrent(), "leads out of the torrent"},
		{"path long", files([]string{strings.Repeat("a", 200), strings.Repeat("b", 200), strings.Repeat("c", 200), strings.Repeat("d", 200), strings.Repeat("e", 250)}).torrent(), "has 1054 bytes, at most 1024 are taken"},
		{"path twice", files([]string{"a"}, []string{"a"}).torrent(), `two files have the path "a"`},
		{"many files", files(many...).torrent(), "torrent has 11 files, at most 10 are taken"},
		{"meta version", plain.with("meta version", 3).torrent(), "meta version is 3; 1 and 2 are known"},
		{"v2 piece length", tree(map[string]any{"x": leaf(5, root)}).with("piece length", 65537).torrent(), "piece length 65537 of a v2 torrent is not a power of two of at least 16384"},
		{"v2 no tree", tree(nil).with("file tree", nil).torrent(), "file tree is empty"},
		{"v2 root", tree(map[string]any{"x": leaf(5, "short")}).torrent(), "pieces root length 5, expected 32"},
		{"v2 root missing", tree(map[string]any{"x": leaf(5, "")}).torrent(), "pieces root length 0, expected 32"},
		{"v2 negative", tree(map[string]any{"x": leaf(-5, root)}).torrent(), "negative length -5"},
		{"v2 too many pieces", tree(map[string]any{"x": leaf(1<<30, root)}).with("piece length", 16384).torrent(), `file "x" has no piece layer`},
		{"v2 path", tree(map[string]any{"..": leaf(5, root)}).torrent(), `path ".." leads out of the torrent`},
		{"v2 layer", tree(map[string]any{"x": leaf(100_000, root)}).torrent(), `file "x" has no piece layer`},
		{"hybrid disagrees", tree(map[string]any{"x": leaf(5, root)}).with("length", 6).with("pieces", hashes(1)).torrent(), "the v1 and v2 parts of the info describe different files"},
	} {
		_, err := ParseSpec([]byte(c.input), testLimits)
		if err == nil || !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	large := append([]byte("d4:info"), make([]byte, MaxMetainfo)...)
	if _, err := ParseSpec(large, testLimits); err == nil || !strings.Contains(err.Error(), ".torrent file has 16777223 bytes, at most 16777216 are taken") {
		t.Errorf("large file: error %v", err)
	}
}

func TestLayerThatDoesNotAddUp(t *testing.T) {
	atOnce(t)
	text, mi := build(t, "x", set{"x": random(1, 200_000)}, 65536, modes["v2"])
	for root, layer := range mi.PieceLayers {
		for what, bad := range map[string]string{
			"not add up": strings.Repeat("h", len(layer)),
			"160 bytes":  layer + strings.Repeat("h", 32),
		} {
			damaged := strings.Replace(string(text), fmt.Sprintf("32:%s%d:%s", root, len(layer), layer), fmt.Sprintf("32:%s%d:%s", root, len(bad), bad), 1)
			if _, err := ParseSpec([]byte(damaged), testLimits); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: error %v", what, err)
			}
		}
	}
}

func TestGoodSpecs(t *testing.T) {
	atOnce(t)
	v1 := "dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c"
	v2 := strings.Repeat("ab", 32)
	for input, want := range map[string]string{
		v1:                                 v1,
		strings.ToUpper(v1) + "\n":         v1,
		v2:                                 v2,
		"3WBFL3G4PSSV7MF37AJSHWDQMLNR63I4": v1,
		"magnet:?xt=urn:btih:" + v1:        v1,
		"MAGNET:?xt=urn:btmh:1220" + v2:    v2,
		"magnet:?xt=urn:btmh:1220" + v2 + "&xt=urn:btih:" + v1: v1,
	} {
		spec, err := ParseSpec([]byte(input), testLimits)
		if err != nil || spec.Key() != want {
			t.Errorf("%q: %v, %v", input, spec, err)
		}
	}
	spec, err := ParseSpec([]byte("magnet:?xt=urn:btih:"+v1+"&dn=a%2Fb&tr=udp://t.example:6969&tr=wss://t.example&tr=nonsense&ws=http://w.example/f&ws=ftp://x/&x.pe=192.0.2.1:6881&x.pe=host:1"), testLimits)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Name != "" || len(spec.Trackers) != 1 || len(spec.WebSeeds) != 1 || len(spec.Peers) != 1 {
		t.Errorf("spec %+v", spec)
	}
	again, err := ParseSpec([]byte(spec.magnet()), testLimits)
	if err != nil || again.Key() != v1 || len(again.Trackers) != 1 || len(again.WebSeeds) != 1 || len(again.Peers) != 1 {
		t.Errorf("kept as %q: %+v, %v", spec.magnet(), again, err)
	}
}

func TestSpansFollowTheFiles(t *testing.T) {
	atOnce(t)
	text, _ := build(t, "release", spanning(), 64<<10, modes["v1"])
	spec, err := ParseSpec(text, testLimits)
	if err != nil {
		t.Fatal(err)
	}
	l := spec.layout
	covered := make([]content.Ranges, len(l.files))
	for i := range l.pieces {
		for _, s := range l.piece(i) {
			covered[s.file].Add(s.r)
		}
	}
	for i, f := range l.files {
		if covered[i].Len() != f.size {
			t.Errorf("pieces cover %v of %s, which has %d bytes", covered[i], f.path, f.size)
		}
	}
	if got := l.spans(300_000, 20); len(got) != 3 || got[1].at != 1 || got[1].r.Len() != 17 || got[2].r.Len() != 2 {
		t.Errorf("spans: %+v", got)
	}
}

func TestAddByURL(t *testing.T) {
	atOnce(t)
	text, mi := build(t, "x", set{"x": random(1, 100_000)}, 65536, modes["v1"])
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/x.torrent":
			_, _ = w.Write(text)
		case "/page":
			_, _ = w.Write([]byte("<html>"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer web.Close()
	b := newBox(t, nil)
	snap, err := b.swarm.Add(t.Context(), []byte(web.URL+"/x.torrent"))
	if err != nil || snap.InfoHash != mi.HashInfoBytes().HexString() {
		t.Errorf("added %+v, %v", snap, err)
	}
	for path, want := range map[string]string{
		"/page":    "is neither a .torrent file nor a metalink",
		"/nowhere": "the server answered 404 Not Found",
	} {
		if _, err := b.swarm.Add(t.Context(), []byte(web.URL+path)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", path, err)
		}
	}
	if n := len(b.swarm.Stats().Torrents); n != 1 {
		t.Errorf("%d torrents", n)
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, m := range modes {
		text, mi := build(&testing.T{}, "release", spanning(), 64<<10, m)
		f.Add(text)
		if magnet, err := mi.MagnetV2(); err == nil {
			f.Add([]byte(magnet.String()))
		}
	}
	f.Add([]byte(plain.torrent()))
	f.Add([]byte(files([]string{"a", "..", "b"}).torrent()))
	f.Add([]byte(tree(map[string]any{"x": leaf(-5, strings.Repeat("r", 32)), "y": leaf(0, "")}).torrent()))
	f.Add([]byte("dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c"))
	f.Fuzz(func(t *testing.T, input []byte) {
		spec, err := ParseSpec(input, testLimits)
		if err != nil {
			if !errors.Is(err, ErrSpec) {
				t.Errorf("error %v does not wrap ErrSpec", err)
			}
			return
		}
		if key := spec.Key(); strings.Trim(key, "0") == "" {
			t.Errorf("key %q", key)
		}
		if spec.layout == nil {
			return
		}
		var sum int64
		for _, p := range spec.layout.files {
			for _, e := range strings.Split(p.path, "/") {
				if e == ".." || e == "." || !p.pad && e == "" {
					t.Errorf("path %q", p.path)
				}
			}
			sum += p.size
		}
		if sum > testLimits.Bytes || len(spec.layout.files) > testLimits.Files {
			t.Errorf("%d bytes in %d files", sum, len(spec.layout.files))
		}
		for i := range min(spec.layout.pieces, 1000) {
			for _, s := range spec.layout.piece(i) {
				sum -= s.r.Len()
			}
		}
		if spec.layout.pieces <= 1000 && sum != 0 {
			t.Errorf("pieces miss %d bytes", sum)
		}
	})
}
