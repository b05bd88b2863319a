package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// metainfo stands in for the swarm: its files say what they are of.
type metainfo struct{ progress float64 }

func (m metainfo) Torrent(_ context.Context, num uint64, name string) ([]byte, float64, error) {
	if m.progress < 1 {
		return nil, m.progress, nil
	}
	return fmt.Appendf(nil, "torrent of %d as %s", num, name), 1, nil
}

// at is an address of the box's own.
func (b *box) at(path string) string { return "http://" + b.addr + path }

// via is the box's address for a site's path.
func (b *box) via(s *site, path string) string {
	return b.at("/get/http/" + strings.TrimPrefix(s.URL, "http://") + path)
}

func TestGetAddress(t *testing.T) {
	var seen http.Header
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		h := w.Header()
		h.Set("Cache-Control", "max-age=60")
		h.Set("Set-Cookie", "a=b")
		switch r.URL.Path {
		case "/page":
			h.Set("Content-Type", "text/html")
		case "/pic":
			h.Set("Content-Type", "image/svg+xml")
		case "/moved":
			h.Set("Location", "/a b?x=1")
			w.WriteHeader(http.StatusFound)
		case "/away":
			h.Set("Location", "https://[2001:db8::1]:8443/p?q#f")
			w.WriteHeader(http.StatusMovedPermanently)
		case "/odd":
			h.Set("Location", "javascript:alert(1)")
			w.WriteHeader(http.StatusFound)
		default:
			h.Set("Content-Type", "text/plain")
		}
		fmt.Fprint(w, r.URL.RequestURI())
	})
	b := newBox(t, t.TempDir(), loopback(t), nil, metainfo{1})
	host := strings.TrimPrefix(s.URL, "http://")
	for path, want := range map[string]string{
		"/plain%2Fpath/%C3%A9//x?a=%20&b": "", "/page": "attachment", "/pic": "attachment",
	} {
		r := b.get(b.via(s, path), "Cookie: session=1", "Authorization: Basic x", "Referer: http://box/")
		h := r.Header
		if r.StatusCode != 200 || string(r.body) != path {
			t.Errorf("%s: %d %q", path, r.StatusCode, r.body)
		}
		if h.Get("Content-Security-Policy") != "sandbox" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Set-Cookie") != "" || h.Get("Content-Disposition") != want {
			t.Errorf("%s: %v", path, h)
		}
		if seen.Get("Cookie")+seen.Get("Authorization")+seen.Get("Referer") != "" {
			t.Errorf("%s: the origin saw %v", path, seen)
		}
	}
	for path, want := range map[string]string{
		"/moved": "/get/http/" + url.PathEscape(host) + "/a%20b?x=1",
		"/away":  "/get/https/" + url.PathEscape("[2001:db8::1]:8443") + "/p?q#f",
		"/odd":   "",
	} {
		if r := b.get(b.via(s, path)); r.Header.Get("Location") != want {
			t.Errorf("%s: Location %q, want %q", path, r.Header.Get("Location"), want)
		}
	}
	n := len(s.requests())
	if r := b.get(s.URL + "/page"); !strings.Contains(r.status(), "hit") || r.Header.Get("Content-Security-Policy") != "" {
		t.Errorf("by proxy: %s %v", r.status(), r.Header)
	}
	if len(s.requests()) != n {
		t.Error("by proxy and by address are two objects")
	}
}

func TestGetAddressFaults(t *testing.T) {
	b := simpleBox(t)
	for path, want := range map[string]string{
		"/get/":                                "scheme",
		"/get/ftp/example.org/":                `scheme "ftp"`,
		"/get/http/":                           "host is missing",
		"/get/http//x":                         "host is missing",
		"/get/http/a%2Fb/":                     "character",
		"/get/http/u%40example.org/":           "character",
		"/get/http/example.org%00/":            "character",
		"/get/http/exa%20mple/":                "character",
		"/get/http/example.org:99999/":         "port",
		"/get/http/example.org:x/":             "port",
		"/get/http/[::1/":                      "]",
		"/o/":                                  "object identity",
		"/o/zz-1":                              "hash",
		"/o/" + strings.Repeat("0", 64):        "object identity",
		"/o/" + strings.Repeat("a", 64) + "-x": "size",
		"/o/btih:12/x":                         "infohash",
		"/o/btih:" + strings.Repeat("a", 40):   "path of the file",
	} {
		if r := b.raw("GET " + path + " HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(r, "HTTP/1.1 400") || !strings.Contains(r, want) {
			t.Errorf("%s: %q, want 400 and %q", path, r, want)
		}
	}
	if r := b.get(b.at("/o/" + strings.Repeat("a", 64) + "-5")); r.StatusCode != 404 {
		t.Errorf("unknown object: %d", r.StatusCode)
	}
}

func TestObjectsAndTorrents(t *testing.T) {
	body := testBody(3<<20 + 5)
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/private":
			file(body[1:], `"e"`, "private, max-age=60")(w, r)
		case "/cookie":
			w.Header().Set("Set-Cookie", "a=b")
			file(body[2:], `"e"`, "max-age=60")(w, r)
		case "/vary":
			w.Header().Set("Vary", "Cookie")
			file(body[3:], `"e"`, "max-age=60")(w, r)
		case "/missing":
			w.Header().Set("Cache-Control", "max-age=60")
			http.NotFound(w, r)
		default:
			file(body, `"e"`, "max-age=60")(w, r)
		}
	})
	b := newBox(t, t.TempDir(), loopback(t), nil, metainfo{1})
	for _, path := range []string{"/dir/file.iso", "/private", "/cookie", "/vary", "/missing"} {
		b.get(b.via(s, path))
	}
	b.settle()
	var id string
	for _, info := range b.store.List() {
		if info.Public {
			id = info.ID.String()
		}
		if info.Public != strings.HasSuffix(info.Title, "/file.iso") {
			t.Errorf("%s: public %v", info.Title, info.Public)
		}
		if info.Public || info.Size == 0 {
			continue
		}
		if r := b.get(b.at("/o/" + info.ID.String())); r.StatusCode != 404 {
			t.Errorf("%s by identity: %d", info.Title, r.StatusCode)
		}
	}
	links := b.get(b.via(s, "/dir/file.iso")).Header.Values("Link")
	if want := "</o/" + id + `?torrent&name=file.iso>; rel=describedby; type="application/x-bittorrent"`; !slices.Contains(links, want) {
		t.Errorf("Link %q, want %q", links, want)
	}
	r := b.get(b.at("/o/"+id), "Range: bytes=-5")
	if r.StatusCode != 206 || !bytes.Equal(r.body, body[len(body)-5:]) || r.Header.Get("Content-Security-Policy") != "sandbox" || r.Header.Get("Etag") != `"`+id+`"` {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	if r := b.get(b.at("/o/"+id), `If-None-Match: "`+id+`"`); r.StatusCode != 304 {
		t.Errorf("conditional: %d", r.StatusCode)
	}
	for path, want := range map[string]string{
		b.via(s, "/dir/file.iso?torrent"):        "as file.iso",
		b.at("/o/" + id + "?torrent&name=x.iso"): "as x.iso",
		b.at("/o/" + id + "?torrent&name=../x"):  "as " + id,
		b.at("/o/" + id + "?torrent"):            "as " + id,
	} {
		r := b.get(path)
		if r.StatusCode != 200 || !strings.Contains(string(r.body), want) || r.Header.Get("Content-Type") != "application/x-bittorrent" || !strings.Contains(r.status(), "unvouched") {
			t.Errorf("%s: %d %q %v", path, r.StatusCode, r.body, r.Header)
		}
	}
	for _, path := range []string{"/private?torrent", "/cookie?torrent", "/vary?torrent", "/missing?torrent", "/other?torrent"} {
		if r := b.get(b.via(s, path)); r.StatusCode != 404 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
}

func TestTorrentNotReady(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=60"))
	b := newBox(t, t.TempDir(), loopback(t), nil, metainfo{0.25})
	b.get(b.via(s, "/x"))
	b.settle()
	if r := b.get(b.via(s, "/x?torrent")); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(string(r.body), "25 %") {
		t.Errorf("%d %q %v", r.StatusCode, r.body, r.Header)
	}
}

// gated brings a body in two halves, the second when the gate opens.
type gated struct {
	body []byte
	gate chan struct{}
}

func (g gated) Name() string { return "gated" }

func (g gated) Fill(ctx context.Context, sink content.Sink) error {
	half := int64(len(g.body) / 2)
	for _, r := range []content.Range{{Off: 0, End: half}, {Off: half, End: int64(len(g.body))}} {
		if _, err := sink.WriteAt(g.body[r.Off:r.End], r.Off); err != nil {
			return err
		}
		if err := sink.Accept(r); err != nil {
			return err
		}
		select {
		case <-g.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func TestTorrentFileWhileItFills(t *testing.T) {
	b := simpleBox(t)
	body := testBody(2 << 20)
	hash := strings.Repeat("ab", 20)
	f, err := b.store.Create(cache.Spec{Object: content.Object{Size: int64(len(body)), Trust: content.TrustPieces}, Title: "x", Public: true}, "btih:"+hash+"/dir/a b.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := gated{body, make(chan struct{})}
	f.Start(g)
	address := b.at("/o/btih:" + strings.ToUpper(hash) + "/dir/a%20b.bin")
	r := b.get(address, "Range: bytes=10-19")
	if r.StatusCode != 206 || !bytes.Equal(r.body, body[10:20]) {
		t.Errorf("while it fills: %d, %d bytes", r.StatusCode, len(r.body))
	}
	close(g.gate)
	whole := b.get(address)
	if !bytes.Equal(whole.body, body) || whole.Header.Get("Etag") != r.Header.Get("Etag") {
		t.Errorf("whole: %d bytes, %v then %v", len(whole.body), r.Header, whole.Header)
	}
}

func TestPAC(t *testing.T) {
	b := simpleBox(t)
	got := b.raw("GET /wpad.dat HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, `"PROXY `+b.addr+`; DIRECT"`) || strings.Contains(got, "evil") || !strings.Contains(got, "application/x-ns-proxy-autoconfig") {
		t.Errorf("%q", got)
	}
	named := newBox(t, t.TempDir(), loopback(t), func(c *Config) { c.Address = "box.lan:3142" }, nil)
	if r := named.get(named.at("/wpad.dat")); !strings.Contains(string(r.body), "PROXY box.lan:3142; DIRECT") {
		t.Errorf("%q", r.body)
	}
	if r := named.get(named.at("/")); !strings.Contains(string(r.body), "box.lan:3142") {
		t.Errorf("%q", r.body)
	}
}

func TestWant(t *testing.T) {
	body := testBody(1 << 20)
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		control := "max-age=60"
		if r.URL.Path == "/private" {
			control = "private"
		}
		file(body, `"e"`, control)(w, r)
	})
	b := simpleBox(t)
	ask := func(path string) Wanted {
		req, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=1-2")
		w, err := b.Want(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := ask("/a")
	if !w.Shared || w.Head.Header.Get("ETag") != `"e"` || w.Info.Size != int64(len(body)) {
		t.Errorf("%+v", w)
	}
	b.settle()
	if w := ask("/a"); !w.Shared || !w.Info.Complete || w.Info.ID.IsZero() {
		t.Errorf("%+v", w)
	}
	if w := ask("/private"); w.Shared || w.Why == "" {
		t.Errorf("%+v", w)
	}
	if n := len(s.requests()); n != 2 {
		t.Errorf("%d origin requests", n)
	}
}

func FuzzParseGet(f *testing.F) {
	for _, p := range []string{"/get/http/example.org/a", "/get/https/[::1]:80/", "/get/http/a%2fb/", "/get/http/h/%zz", "/get/http/h%3A8/x", "/get//", "/get/http/user@h/"} {
		f.Add(p, "a=b")
	}
	f.Fuzz(func(t *testing.T, escaped, query string) {
		u, err := parseGet(escaped, query)
		if err != nil {
			return
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Opaque != "" || strings.ContainsAny(u.Host, "/@?# ") {
			t.Fatalf("%q gives %#v", escaped, u)
		}
	})
}

func FuzzParseObject(f *testing.F) {
	for _, p := range []string{"/o/" + strings.Repeat("a", 64) + "-5", "/o/btih:" + strings.Repeat("a", 40) + "/x", "/o/btih:a/x", "/o/%zz", "/o/btih:" + strings.Repeat("a", 64) + "/%2e%2e/x"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		id, name, err := parseObject(escaped)
		if err != nil {
			return
		}
		if name == "" && (len(id.String()) < 66 || id.Size < 0) || name != "" && !strings.HasPrefix(name, "btih:") {
			t.Fatalf("%q gives %v, %q", escaped, id, name)
		}
	})
}

func FuzzBadLine(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "GET http://h/%zz HTTP/1.1\r\n", "\r\n", "GET  \r\n", "A B C D\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if len(badLine(head)) > 2000 {
			t.Fatal("the answer is longer than what it is about")
		}
	})
}
