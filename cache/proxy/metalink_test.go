package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// library is an origin with a file, one that may not be shared, one that may not
// be kept, and one that has a metalink of its own.
func library(t *testing.T, body []byte) *site {
	return newSite(t, func(w http.ResponseWriter, r *http.Request) {
		control := "max-age=60"
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Set-Cookie", "a=b")
		case "/no-store":
			control = "no-store"
		case "/stale":
			control = "max-age=0"
		case "/own.meta4":
			_, _ = w.Write([]byte("the origin's"))
			return
		}
		file(body, `"e"`, control)(w, r)
	})
}

// metalinkIn reads a metalink.
func metalinkIn(t *testing.T, r reply) metalink {
	t.Helper()
	var m metalink
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != metalinkType {
		t.Fatalf("%d %v %q", r.StatusCode, r.Header, r.body)
	}
	if err := xml.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return m
}

func idOf(t *testing.T, b *box, suffix string) string {
	t.Helper()
	for _, info := range b.store.List() {
		if strings.HasSuffix(info.Title, suffix) {
			return info.ID.String()
		}
	}
	t.Fatalf("%s is not here", suffix)
	return ""
}

func TestMetalinkSaysWhatTheFileIs(t *testing.T) {
	body := testBody(3<<20 + 5)
	s := library(t, body)
	b := simpleBox(t)
	for _, path := range []string{"/dir/file.iso", "/dir/file.iso?secret=1"} { // one after the other: the first one names both
		b.get(b.via(s, path))
		b.settle()
	}
	id := idOf(t, b, "/dir/file.iso")
	whole := sha256.Sum256(body)
	for _, c := range []struct{ name, at, accept, file, mirror string }{
		{"by parameter", b.via(s, "/dir/file.iso?meta4"), "", "file.iso", s.URL + "/dir/file.iso"},
		{"by suffix", b.via(s, "/dir/file.iso.meta4"), "", "file.iso", s.URL + "/dir/file.iso"},
		{"by Accept", b.via(s, "/dir/file.iso"), "*/*,application/metalink4+xml", "file.iso", ""},
		{"with a query", b.via(s, "/dir/file.iso?secret=1&meta4"), "", "file.iso", s.URL + "/dir/file.iso?secret=1"},
		{"by identity", b.at("/o/" + id + ".meta4?name=x.iso"), "", "x.iso", ""},
		{"by identity and parameter", b.at("/o/" + id + "?meta4"), "", id, ""},
		{"of what is not here", b.via(s, "/stale?meta4"), "", "stale", s.URL + "/stale"},
	} {
		r := b.get(c.at, "Accept: "+c.accept)
		for tries := 0; r.StatusCode == 503 && r.Header.Get("Retry-After") != "" && tries < 100; tries++ {
			b.settle()
			r = b.get(c.at, "Accept: "+c.accept)
		}
		f := metalinkIn(t, r).File
		if f.Name != c.file || f.Size != int64(len(body)) || f.Hash != (metahash{"sha-256", hex.EncodeToString(whole[:])}) {
			t.Errorf("%s: %+v", c.name, f)
		}
		if f.Pieces.Length != 1<<20 || f.Pieces.Type != "sha-256" || len(f.Pieces.Hashes) != 4 {
			t.Fatalf("%s: pieces %+v", c.name, f.Pieces)
		}
		last := sha256.Sum256(body[3<<20:])
		if f.Pieces.Hashes[3] != hex.EncodeToString(last[:]) {
			t.Errorf("%s: the last piece is wrong", c.name)
		}
		if first := f.URLs[0]; first.Priority != 1 || !strings.HasPrefix(first.URL, b.at("/o/"+id)) {
			t.Errorf("%s: the box comes first, not %+v", c.name, first)
		} else if r := b.get(first.URL); string(r.body) != string(body) {
			t.Errorf("%s: %s has something else", c.name, first.URL)
		}
		if c.mirror == "" && len(f.URLs) > 1 || c.mirror != "" && (f.URLs[1].Priority <= 1 || f.URLs[1].URL != c.mirror) {
			t.Errorf("%s: mirrors %+v, want %q", c.name, f.URLs[1:], c.mirror)
		}
		if n := strings.Count(string(r.body), "secret"); n > 0 && !strings.Contains(c.at, "secret") {
			t.Errorf("%s: tells another client's query", c.name)
		}
	}
}

func TestMetalinkRefusals(t *testing.T) {
	s := library(t, testBody(1<<20))
	b := simpleBox(t)
	for _, path := range []string{"/private", "/file"} {
		b.get(b.via(s, path))
	}
	b.settle()
	for path, want := range map[string]int{
		"/private?meta4": 404, "/private.meta4": 404, "/no-store?meta4": 404, "/own.meta4": 200,
	} {
		r := b.get(b.via(s, path))
		if r.StatusCode != want && (path != "/private.meta4" || r.Header.Get("Content-Type") == metalinkType) {
			t.Errorf("%s: %d %q", path, r.StatusCode, r.body)
		}
		if path == "/own.meta4" && string(r.body) != "the origin's" {
			t.Errorf("%s: %q", path, r.body)
		}
	}
	for path, want := range map[string]int{"/o/zz.meta4": 400, "/o/" + strings.Repeat("0", 64) + "-7.meta4": 404} {
		if r := b.get(b.at(path)); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
		}
	}
	if r := b.do("HEAD", b.via(s, "/file?meta4")); r.StatusCode != 200 || r.Header.Get("Content-Type") != metalinkType || len(r.body) > 0 {
		t.Errorf("HEAD: %d %v", r.StatusCode, r.Header)
	}
}

func TestWhoIsGivenAMetalink(t *testing.T) {
	body := testBody(1 << 20)
	s := library(t, body)
	b := simpleBox(t)
	for _, path := range []string{"/file", "/stale"} {
		b.get(b.via(s, path))
	}
	b.settle()
	for _, c := range []struct {
		name, path string
		fields     []string
		want       int
		metalink   bool
	}{
		{"anybody", "/file", nil, 200, false},
		{"aria2", "/file", []string{"Accept: */*,application/metalink4+xml,application/metalink+xml"}, 200, true},
		{"one that refuses", "/file", []string{"Accept: */*, application/metalink4+xml;q=0"}, 200, false},
		{"aria2, for a part", "/file", []string{"Accept: */*,application/metalink4+xml", "Range: bytes=5-9"}, 206, false},
		{"aria2, for what is stale", "/stale", []string{"Accept: */*,application/metalink4+xml"}, 200, false},
		{"wget2", "/file", []string{"User-Agent: wget2/1.99.1"}, 302, false},
		{"wget2, for a part", "/file", []string{"User-Agent: wget2/1.99.1", "Range: bytes=5-9"}, 206, false},
		{"wget", "/file", []string{"User-Agent: Wget/1.21"}, 200, false},
	} {
		r := b.get(b.via(s, c.path), c.fields...)
		if r.StatusCode != c.want || (r.Header.Get("Content-Type") == metalinkType) != c.metalink {
			t.Errorf("%s: %d %v", c.name, r.StatusCode, r.Header)
		}
		links := strings.Join(r.Header.Values("Link"), "\n")
		if !c.metalink && !strings.Contains(links, `rel=describedby; type="`+metalinkType+`"`) {
			t.Errorf("%s: Link %q", c.name, links)
		}
		if c.want != 302 {
			continue
		}
		if !strings.Contains(links, "rel=duplicate; pri=1") || r.Header.Get("Digest") == "" {
			t.Errorf("%s: %v", c.name, r.Header)
		}
		if r := b.get(r.Header.Get("Location")); string(r.body) != string(body) {
			t.Errorf("%s: Location has something else", c.name)
		}
	}
}

func TestDigestFields(t *testing.T) {
	small, large := testBody(1000), testBody(2<<20)
	said := "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/says" {
			w.Header().Set("Repr-Digest", said)
		}
		if r.URL.Path == "/large" {
			file(large, `"e"`, "max-age=60")(w, r)
			return
		}
		file(small, `"e"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	for _, path := range []string{"/small", "/large", "/says"} {
		b.get(s.URL + path)
	}
	b.settle()
	text := func(body []byte) string {
		sum := sha256.Sum256(body)
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	forSmall, forLarge := text(small), text(large)
	for _, c := range []struct {
		name, path string
		fields     []string
		old, repr  string // base64
	}{
		{"small ones are known", "/small", nil, forSmall, forSmall},
		{"a part tells of the whole", "/small", []string{"Range: bytes=1-2"}, forSmall, forSmall},
		{"not in a 304", "/small", []string{`If-None-Match: "e"`}, "", ""},
		{"not in a 416", "/small", []string{"Range: bytes=5000-"}, "", ""},
		{"not of a large one", "/large", nil, "", ""},
		{"another algorithm is wanted", "/small", []string{"Want-Repr-Digest: sha-512=3"}, forSmall, ""},
		{"weight 0", "/small", []string{"Want-Repr-Digest: sha-512=3, sha-256=0", "Want-Digest: sha-256;q=0"}, "", ""},
		{"no dictionary", "/small", []string{"Want-Repr-Digest: ;;"}, forSmall, forSmall},
		{"what the origin says stands", "/says", nil, forSmall, said},
		{"a large one, asked for", "/large", []string{"Want-Repr-Digest: sha-256=10"}, forLarge, forLarge},
		{"from then on it is known", "/large", nil, forLarge, forLarge},
		{"as aria2 asks", "/large", []string{"Want-Digest: SHA-512;q=1, SHA-256;q=1, SHA;q=0.1"}, forLarge, forLarge},
	} {
		r := b.get(s.URL+c.path, c.fields...)
		old, repr := r.Header.Get("Digest"), r.Header.Get("Repr-Digest")
		if c.old != "" {
			c.old = "SHA-256=" + c.old
		}
		if c.repr != "" && c.repr != said {
			c.repr = "sha-256=:" + c.repr + ":"
		}
		if old != c.old || repr != c.repr {
			t.Errorf("%s: Digest %q, want %q; Repr-Digest %q, want %q", c.name, old, c.old, repr, c.repr)
		}
	}
}

func TestMetalinkOfWhatOnlyAPartIsHereOf(t *testing.T) {
	body := testBody(9 << 20)
	s := library(t, body)
	b := simpleBox(t)
	if r := b.get(b.via(s, "/file"), "Range: bytes=5000000-5000009"); r.StatusCode != 206 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	var r reply
	for range 200 {
		if r = b.get(b.via(s, "/file?meta4")); r.StatusCode != 503 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if f := metalinkIn(t, r).File; f.Size != int64(len(body)) || len(f.Pieces.Hashes) != 9 {
		t.Errorf("%+v", f)
	}
}

func TestEncodedBodiesHaveNoMetalink(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
		}
		file([]byte("packed or not"), `"e"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	const packed = "Accept-Encoding: gzip"
	b.get(b.via(s, "/file"), packed)
	b.settle()
	for name, fields := range map[string][]string{
		"anybody": {packed}, "aria2": {packed, "Accept: */*,application/metalink4+xml"}, "wget2": {packed, "User-Agent: wget2/2.1"},
	} {
		r := b.get(b.via(s, "/file"), fields...)
		if r.StatusCode != 200 || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Digest") != "" || r.Header.Get("Repr-Digest") == "" ||
			strings.Contains(strings.Join(r.Header.Values("Link"), ""), metalinkType) {
			t.Errorf("%s: %d %v", name, r.StatusCode, r.Header)
		}
	}
	if r := b.get(b.via(s, "/file?meta4"), packed); r.StatusCode != 404 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

func TestMirrorsAreFewAndTellNoQueries(t *testing.T) {
	info := cache.Info{Names: []string{"btih:00/x", "http://a.test/x", "http://a.test/y\n7-v", "https://b.test/x?token=1", "id:7"}}
	for range 20 {
		info.Names = append(info.Names, "http://c.test/"+strings.Repeat("z", len(info.Names)))
	}
	if got := mirrors(info, ""); len(got) > 0 {
		t.Errorf("by identity: %q", got)
	}
	got := mirrors(info, "https://b.test/x?token=2")
	if len(got) != maxMirrors || got[0] != "https://b.test/x?token=2" || got[1] != "http://a.test/x" || got[2] != "http://a.test/y" {
		t.Errorf("%q", got)
	}
}
