package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// talk is one connection to a box, over which a test asks again and again.
type talk struct {
	*box
	net.Conn
	in *bufio.Reader
}

func (b *box) dial() *talk {
	b.t.Helper()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &talk{b, c, bufio.NewReader(c)}
}

// plain is a request that the box can answer at once; more lines may spoil that.
func plain(target string, lines ...string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(target, "http://"), "/")
	return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: test\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// ask sends a request and reads the answer. quick says whether net/http had no
// part in it: that sorts its fields, and Age comes last but one otherwise.
func (c *talk) ask(request string) (resp *http.Response, body string, quick bool) {
	c.t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		c.t.Fatal(err)
	}
	return c.answer()
}

func (c *talk) answer() (resp *http.Response, body string, quick bool) {
	c.t.Helper()
	var seen bytes.Buffer
	c.in = bufio.NewReader(io.TeeReader(c.in, &seen))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	head, _, _ := strings.Cut(seen.String(), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	return resp, string(text), strings.HasPrefix(lines[len(lines)-2], "Age: ") && strings.HasPrefix(lines[len(lines)-1], "Cache-Status: cistern;hit")
}

func TestQuickSaysWhatNetHTTPWould(t *testing.T) {
	heads := map[string]http.Header{
		"/plain":   {"Cache-Control": {"max-age=60"}, "Etag": {`"e"`}, "Content-Type": {"text/plain"}},
		"/untyped": {"Cache-Control": {"max-age=60"}, "Content-Type": nil},
		"/aged":    {"Cache-Control": {"max-age=60"}, "Age": {"20"}},
		"/vary":    {"Cache-Control": {"max-age=60"}, "Vary": {"Accept-Encoding, Cookie"}},
		"/caches":  {"Cdn-Cache-Control": {"max-age=60"}, "Cache-Control": {"no-cache"}, "Cache-Status": {"cistern-far;hit"}, "Via": {"1.1 far"}},
		"/cookie":  {"Cache-Control": {"public, max-age=60"}, "Set-Cookie": {"a=1", "b=2"}},
		"/bytes":   {"Cache-Control": {"max-age=60"}, "X-Name": {"caf\xe9"}},
		"/large":   {"Cache-Control": {"max-age=60"}},
		"/empty":   {"Cache-Control": {"max-age=60"}, "Content-Length": {"0"}},
	}
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), heads[r.URL.Path])
		switch r.URL.Path {
		case "/empty":
		case "/large":
			_, _ = w.Write(testBody(40000))
		default:
			_, _ = io.WriteString(w, "hello")
		}
	})
	b := simpleBox(t)
	for path := range heads {
		t.Run(path, func(t *testing.T) {
			b.get(s.URL+path, "User-Agent: test", "Accept-Encoding: gzip", "Cookie: c=1")
			b.settle()
			lines := []string{"Accept-Encoding: gzip", "Cookie: c=1"}
			same := func(a, b http.Header) bool {
				return maps.EqualFunc(a, b, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) })
			}
			slow := func() (*http.Response, string) {
				resp, body, quick := b.dial().ask(plain(s.URL+path, append(lines, "X-Unknown: 1")...))
				if quick {
					t.Error("an unknown field was passed over")
				}
				return resp, body
			}
			want, wantBody := slow()
			got, body, quick := b.dial().ask(plain(s.URL+path, lines...))
			if !quick {
				t.Error("went to net/http")
			}
			for range 5 {
				after, _ := slow()
				if same(want.Header, after.Header) {
					break
				}
				want = after // a second has passed, and Age says so
				got, _, _ = b.dial().ask(plain(s.URL+path, lines...))
			}
			if body != wantBody || got.Status != want.Status || got.ContentLength != want.ContentLength {
				t.Errorf("%s, %d bytes; want %s, %d bytes", got.Status, len(body), want.Status, len(wantBody))
			}
			if !same(got.Header, want.Header) {
				t.Errorf("header\n%q\nwant\n%q", got.Header, want.Header)
			}
		})
	}
	if n := len(s.requests()); n != len(heads) {
		t.Errorf("%d requests upstream for %d objects", n, len(heads))
	}
}

func TestQuickKeepsToWhatIsStored(t *testing.T) {
	version := "one"
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/varied" {
			w.Header().Set("Vary", "Cookie")
		}
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, version)
	})
	for _, c := range []struct {
		name   string
		path   string
		change func(b *box)
		then   []string
		want   string
		status int
	}{
		{"as it was", "/", func(*box) {}, nil, "one", 200},
		{"another variant", "/varied", func(*box) {}, []string{"Cookie: other"}, "two", 200},
		{"invalidated", "/", func(b *box) { b.do("POST", s.URL+"/") }, nil, "two", 200},
		{"fetched anew", "/", func(b *box) { b.get(s.URL+"/", "Cache-Control: no-cache"); b.settle() }, nil, "two", 200},
		{"evicted", "/", func(b *box) {
			if _, _, err := b.store.EvictMatching(s.URL + "/*"); err != nil {
				b.t.Fatal(err)
			}
		}, nil, "two", 200},
		{"taken down", "/", func(b *box) {
			if _, err := b.store.Purge(s.URL+"/*", "test", "test"); err != nil {
				b.t.Fatal(err)
			}
		}, nil, "", 451},
		{"conditional", "/", func(*box) {}, []string{"If-None-Match: *"}, "", 304},
		{"a part", "/", func(*box) {}, []string{"Range: bytes=1-1"}, "n", 206},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := simpleBox(t)
			version = "one"
			b.get(s.URL + c.path)
			b.settle()
			client := b.dial()
			for range 2 {
				if _, body, quick := client.ask(plain(s.URL + c.path)); !quick || body != "one" {
					t.Fatalf("%q, quick: %v", body, quick)
				}
			}
			version = "two"
			c.change(b)
			resp, body, quick := client.ask(plain(s.URL+c.path, c.then...))
			if resp.StatusCode != c.status || c.want != "" && body != c.want || quick != (c.name == "as it was" || c.name == "fetched anew") {
				t.Errorf("%s %q, quick: %v", resp.Status, body, quick)
			}
		})
	}
}

func TestQuickCounts(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=60"))
	log := filepath.Join(t.TempDir(), "access.log")
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) { c.AccessLog = log }, nil)
	target := s.URL + "/a"
	b.get(target, "User-Agent: test")
	b.settle()
	c := b.dial()
	pipelined := plain(target) + plain(target) + plain(target, "X-Unknown: 1") + plain(target)
	if _, err := io.WriteString(c, pipelined); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false, false} {
		if _, body, quick := c.answer(); body != "hello" || quick != want {
			t.Errorf("answer %d: %q, quick: %v", i, body, quick)
		}
	}
	st := b.Stats()
	if st.Requests != 5 || st.Hits != 4 || st.Misses != 1 || st.Bytes != 25 || st.Clients[0].Requests != 5 || st.Clients[0].Hits != 4 || st.Clients[0].Bytes != 25 {
		t.Errorf("%+v", st)
	}
	info, _, _ := b.store.Lookup(target)
	if info.Served["http"] != 25 {
		t.Errorf("store counted %v", info.Served)
	}
	b.get(s.URL + "/\"b") // is logged so that it can be read
	c.Close()
	b.client.CloseIdleConnections()
	b.stop()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	request := `] "GET ` + target + ` HTTP/1.1" 200 5 `
	hits, misses := strings.Count(string(text), request+"hit\n"), strings.Count(string(text), request+"-\n")
	// What net/http answers is taken down when it is done with it, which may be
	// after the next one.
	if hits != 4 || misses != 1 || strings.Count(string(text), "127.0.0.1 - - [") != 6 {
		t.Errorf("%d hits and %d misses of\n%s", hits, misses, text)
	}
}

// TestQuickEnds lets connections wait that have had an answer and such that have
// said nothing.
func TestQuickEnds(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=60"))
	b := simpleBox(t)
	b.get(s.URL+"/a", "User-Agent: test")
	b.settle()
	silent, asked := b.dial(), b.dial()
	asked.ask(plain(s.URL + "/a"))
	b.stop()
	for _, c := range []*talk{silent, asked} {
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

func TestPlainHead(t *testing.T) {
	const start = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n"
	for _, c := range []struct {
		text string
		want bool
	}{
		{start + "\r\n", true},
		{start + "user-agent:x\r\n\r\nGET", true},
		{start + "Connection: Keep-Alive\r\nProxy-Connection: keep-alive\r\n\r\n", true},
		{"GET http://a.example:80/x?y=%20 HTTP/1.1\r\nHost: a.example:80\r\n\r\n", true},
		{start, false},
		{start + "\r", false},
		{"GET http://a.example/ HTTP/1.1\r\n\r\n", false},
		{"GET http://a.example/ HTTP/1.0\r\nHost: a.example\r\n\r\n", false},
		{"GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{"GET http:/// HTTP/1.1\r\nHost: \r\n\r\n", false},
		{"GET http://a@a.example/ HTTP/1.1\r\nHost: a@a.example\r\n\r\n", false},
		{"GET http://[::1]/ HTTP/1.1\r\nHost: [::1]\r\n\r\n", false},
		{"GET http://a.example/#x HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{"GET http://a.example/\x00 HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{"GET  http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{"HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", false},
		{start + "Host: a.example\r\n\r\n", false},
		{start + "Content-Length: 0\r\n\r\n", false},
		{start + "Transfer-Encoding: chunked\r\n\r\n", false},
		{start + "Accept : x\r\n\r\n", false},
		{start + "Accept: x\n\r\n", false},
		{start + "Accept: x\ry\r\n\r\n", false},
		{start + "Accept: x\r\n y\r\n\r\n", false},
		{start + "Accept: \xe9\r\n\r\n", false},
		{start + "Accept: x\x00\r\n\r\n", false},
		{start + " Accept: x\r\n\r\n", false},
		{start + "Connection: close\r\n\r\n", false},
		{start + "Connection: keep-alive, accept\r\n\r\n", false},
		{start + "Upgrade: h2c\r\n\r\n", false},
		{start + "Authorization: x\r\n\r\n", false},
		{start + "Cache-Control: no-cache\r\n\r\n", false},
		{start + "Pragma: no-cache\r\n\r\n", false},
		{start + "Range: bytes=0-\r\n\r\n", false},
		{start + "If-Modified-Since: x\r\n\r\n", false},
		{start + strings.Repeat("Accept: x\r\n", maxFields) + "\r\n", false},
	} {
		var h plainHead
		if got := h.parse([]byte(c.text)); got != c.want {
			t.Errorf("%q: %v", c.text, got)
		}
	}
}

// FuzzPlainHead makes sure that net/http reads what is plain in the same way: no
// request may hide in another.
func FuzzPlainHead(f *testing.F) {
	f.Add([]byte(plain("http://a.example/x?y=1", "Accept-Encoding: gzip", "Connection: keep-alive")))
	f.Add([]byte(plain("http://a.example:8080/%7Ex") + plain("http://b.example/")))
	f.Add([]byte("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var h plainHead
		if !h.parse(text) {
			return
		}
		in := bytes.NewReader(text)
		buffered := bufio.NewReaderSize(in, 16)
		r, err := http.ReadRequest(buffered)
		if err != nil {
			return // net/http refuses more; nothing is stored under what has no key
		}
		if read := len(text) - in.Len() - buffered.Buffered(); read != h.length {
			t.Fatalf("the head has %d bytes, net/http read %d", h.length, read)
		}
		if r.Method != http.MethodGet || r.RequestURI != string(h.target) || r.Host != string(h.authority) || r.URL.Host != r.Host ||
			r.ContentLength != 0 || r.Body != http.NoBody || r.Close || r.ProtoMinor != 1 || len(r.TransferEncoding) > 0 {
			t.Fatalf("%q: net/http reads %+v", text, r)
		}
		lines := 1 // Host
		for _, values := range r.Header {
			lines += len(values)
		}
		if lines != len(h.fields) {
			t.Fatalf("%d fields, net/http reads %v", len(h.fields), r.Header)
		}
		for _, f := range h.fields {
			if name := http.CanonicalHeaderKey(string(f.name)); name != "Host" && !strings.Contains("\n"+strings.Join(r.Header[name], "\n")+"\n", "\n"+string(f.value)+"\n") {
				t.Fatalf("%s is %q, net/http reads %q", name, f.value, r.Header[name])
			}
		}
	})
}
