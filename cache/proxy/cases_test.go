package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/origin"
)

// TestAnswers is the table of what goes to the origin and what does not. Each
// row sends requests one after the other; want is "status cache-status-part".
func TestAnswers(t *testing.T) {
	type ask struct {
		method, path string
		fields       []string
		want         string
	}
	text := func(control string, more ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", control)
			for i := 0; i+1 < len(more); i += 2 {
				w.Header().Set(more[i], more[i+1])
			}
			http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("0123456789"))
		}
	}
	var n atomic.Int64
	for name, row := range map[string]struct {
		site http.HandlerFunc
		asks []ask
		hits int // requests at the origin
	}{
		"fresh": {text("max-age=60"), []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 hit"}, {"HEAD", "/a", nil, "200 hit"},
			{"GET", "/a?q", nil, "200 uri-miss"},
		}, 2},
		"no-store": {text("no-store"), []ask{
			{"GET", "/a", nil, "200 no-store"}, {"GET", "/a", nil, "200 fwd=uri-miss"},
		}, 2},
		"no validator, no freshness": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") }, []ask{
			{"GET", "/a", nil, "200 uri-miss"}, {"GET", "/a", nil, "200 uri-miss"},
		}, 2},
		"stale and still the same": {text("max-age=0", "ETag", `"e"`), []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd=stale; fwd-status=304"}, {"HEAD", "/a", nil, "200 fwd-status=304"},
		}, 3},
		"stale and changed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=0")
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n.Add(1)))
			fmt.Fprint(w, "x")
		}, []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd=stale; fwd-status=200; stored"},
		}, 2},
		"conditional": {text("max-age=60", "ETag", `"e"`, "Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), []ask{
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 stored"}, // cold: fetched whole, then evaluated
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 hit"}, {"GET", "/a", []string{`If-None-Match: "f"`}, "200 hit"},
			{"GET", "/a", []string{"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"}, "304 hit"},
			{"GET", "/a", []string{"If-Modified-Since: Sun, 06 Nov 1993 08:49:37 GMT"}, "200 hit"},
			{"GET", "/a", []string{`If-Match: "zzz"`}, "412 fwd=request"}, // the origin's to say
		}, 2},
		"ranges": {text("max-age=60", "ETag", `"e"`), []ask{
			{"GET", "/a", []string{"Range: bytes=2-4"}, "206 stored 2-4/10"}, {"GET", "/a", []string{"Range: bytes=-3"}, "206 hit 7-9/10"},
			{"GET", "/a", []string{"Range: bytes=8-"}, "206 hit 8-9/10"}, {"GET", "/a", []string{"Range: bytes=20-"}, "416 nothing of it is within 10 bytes"},
			{"GET", "/a", []string{"Range: bytes=4-2"}, "400 ends before it starts"}, {"GET", "/a", []string{"Range: bytes=x"}, "400 is not first-last"},
			{"GET", "/a", []string{"Range: lines=1-2"}, "200 hit"},
			{"GET", "/a", []string{"Range: bytes=2-4", `If-Range: "e"`}, "206 hit"}, {"GET", "/a", []string{"Range: bytes=2-4", `If-Range: "f"`}, "200 hit"},
		}, 1},
		"range of what is not stored": {text("no-store", "ETag", `"e"`), []ask{
			{"GET", "/a", []string{"Range: bytes=2-4"}, "206 2-4/10"}, {"GET", "/a", []string{"Range: bytes=2-4"}, "206 2-4/10"},
			{"GET", "/a", []string{`If-None-Match: "e"`}, "304 fwd"},
		}, 4},
		"vary": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "X-Kind")
			text("max-age=60")(w, r)
		}, []ask{
			{"GET", "/a", []string{"X-Kind: one"}, "200 uri-miss"}, {"GET", "/a", []string{"X-Kind: two"}, "200 vary-miss"},
			{"GET", "/a", []string{"X-Kind: one"}, "200 hit"}, {"GET", "/a", []string{"X-Kind: two"}, "200 hit"}, {"GET", "/a", nil, "200 vary-miss"},
		}, 3},
		"head alone is not stored": {text("max-age=60"), []ask{
			{"HEAD", "/a", nil, "200 uri-miss"}, {"HEAD", "/a", nil, "200 uri-miss"}, {"GET", "/a", nil, "200 stored"},
		}, 3},
		"authorization": {text("max-age=60"), []ask{
			{"GET", "/a", []string{"Authorization: x"}, "200 Authorization"}, {"GET", "/a", nil, "200 stored"},
		}, 2},
		"authorization, public": {text("public, max-age=60"), []ask{
			{"GET", "/a", []string{"Authorization: x"}, "200 stored"}, {"GET", "/a", nil, "200 hit"},
		}, 1},
		"reload": {text("max-age=60", "ETag", `"e"`), []ask{
			{"GET", "/a", nil, "200 stored"}, {"GET", "/a", []string{"Cache-Control: no-cache"}, "200 fwd=request; fwd-status=304"}, {"GET", "/a", nil, "200 hit"},
		}, 2},
		"only-if-cached": {text("max-age=60"), []ask{{"GET", "/a", []string{"Cache-Control: only-if-cached"}, "504 only-if-cached"}}, 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			http.Redirect(w, r, "/b", http.StatusFound)
		}, []ask{{"GET", "/a", nil, "302 stored"}, {"GET", "/a", nil, "302 hit"}}, 1},
		"not found, for a while": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			http.Error(w, "no", http.StatusNotFound)
		}, []ask{{"GET", "/a", nil, "404 stored"}, {"GET", "/a", nil, "404 hit"}}, 1},
		"unsafe method": {text("max-age=60"), []ask{
			{"GET", "/a", nil, "200 stored"}, {"POST", "/a", nil, "200 fwd=method"}, {"GET", "/a", nil, "200 uri-miss"},
		}, 3},
		"unsafe method drops every variant": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "X-Kind")
			text("max-age=60")(w, r)
		}, []ask{
			{"GET", "/a", []string{"X-Kind: one"}, "200 stored"}, {"GET", "/a", []string{"X-Kind: two"}, "200 stored"},
			{"DELETE", "/a", nil, "200 fwd=method"},
			{"GET", "/a", []string{"X-Kind: two"}, "200 uri-miss"}, {"GET", "/a", []string{"X-Kind: one"}, "200 vary-miss"},
		}, 5},
		"stale if error": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
			text("max-age=0, stale-if-error=60", "ETag", `"e"`)(w, r)
		}, []ask{{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd-status=503"}}, 2},
		"error passes": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
			text("max-age=0", "ETag", `"e"`)(w, r)
		}, []ask{{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "503 fwd-status=503"}}, 2},
		"304 of something else": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				w.Header().Set("ETag", `"other"`)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			text("max-age=0", "ETag", `"e"`)(w, r)
		}, []ask{{"GET", "/a", nil, "200 stored"}, {"GET", "/a", nil, "200 fwd-status=200; stored"}}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, row.site)
			b := simpleBox(t)
			for i, a := range row.asks {
				r := b.do(a.method, s.URL+a.path, a.fields...)
				got := fmt.Sprint(r.StatusCode, " ", r.status(), " ", r.Header.Get("Content-Range"))
				status, parts, _ := strings.Cut(a.want, " ")
				ok := strings.HasPrefix(got, status) && r.err == nil
				for _, part := range strings.Fields(parts) {
					ok = ok && strings.Contains(got+" "+string(r.body), part)
				}
				if !ok {
					t.Errorf("request %d: got %q (%v), want %q", i, got, r.err, a.want)
				}
				if r.StatusCode == 304 && len(r.body) > 0 {
					t.Errorf("request %d: 304 with a body", i)
				}
				b.settle()
			}
			if n := len(s.requests()); n != row.hits {
				t.Errorf("%d requests at the origin, want %d", n, row.hits)
			}
		})
	}
}

func TestStaleWhenTheOriginIsGone(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=0"))
	b := simpleBox(t)
	b.get(s.URL + "/a")
	b.settle()
	s.Close()
	if r := b.get(s.URL + "/a"); string(r.body) != "hello" || !strings.Contains(r.status(), "disconnected") {
		t.Errorf("%d %q %s", r.StatusCode, r.body, r.status())
	}
	if r := b.get(s.URL + "/b"); r.StatusCode != http.StatusBadGateway || !strings.Contains(string(r.body), "refused") {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
}

func TestStaleWhileRevalidate(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=0, stale-while-revalidate=60"))
	b := simpleBox(t)
	b.get(s.URL + "/a")
	b.settle()
	if r := b.get(s.URL + "/a"); !strings.Contains(r.status(), "hit") || !strings.Contains(r.status(), "stale-while-revalidate") {
		t.Errorf("%s", r.status())
	}
	for range 200 {
		if len(s.requests()) == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if all := s.requests(); len(all) != 2 || all[1].Header.Get("If-None-Match") != `"e"` {
		t.Errorf("%d requests", len(all))
	}
}

func TestMultipartRanges(t *testing.T) {
	body := testBody(2 << 20)
	s := newSite(t, file(body, `"e"`, "max-age=60"))
	b := simpleBox(t)
	for range 2 { // cold, then stored
		r := b.get(s.URL+"/a", "Range: bytes=5-9,1000000-1000099,-7")
		mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || mediaType != "multipart/byteranges" || r.StatusCode != 206 || r.ContentLength != int64(len(r.body)) {
			t.Fatalf("%d %v %v", r.StatusCode, r.Header, err)
		}
		mr := multipart.NewReader(bytes.NewReader(r.body), params["boundary"])
		for _, want := range [][2]int{{5, 10}, {1000000, 1000100}, {len(body) - 7, len(body)}} {
			p, err := mr.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(p)
			if !bytes.Equal(got, body[want[0]:want[1]]) || p.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", want[0], want[1]-1, len(body)) {
				t.Errorf("part %v: %d bytes, %v", want, len(got), p.Header)
			}
		}
		if _, err := mr.NextPart(); err != io.EOF {
			t.Errorf("after the last part: %v", err)
		}
	}
}

// cutHalf sends half of a body and then cuts the connection.
func cutHalf(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body[:len(body)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestOriginCutAtHalfGoesOnInFlight(t *testing.T) {
	body := testBody(3 << 20)
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			w.Header().Set("ETag", `"e"`)
			w.Header().Set("Cache-Control", "max-age=60")
			cutHalf(w, body)
		}
		file(body, `"e"`, "max-age=60")(w, r)
	})
	b := simpleBox(t)
	if r := b.get(s.URL + "/a"); !bytes.Equal(r.body, body) {
		t.Errorf("%d bytes", len(r.body))
	}
	if all := s.requests(); len(all) != 2 || all[1].Header.Get("Range") != fmt.Sprintf("bytes=%d-%d", len(body)/2, len(body)-1) || all[1].Header.Get("If-Range") != `"e"` {
		t.Errorf("%d requests, the last with %v", len(all), all[len(all)-1].Header)
	}
}

func TestShortBodyNeverLooksWhole(t *testing.T) {
	body := testBody(1 << 20)
	for name, h := range map[string]http.HandlerFunc{
		"stored": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			cutHalf(w, body)
		},
		"stored, chunked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"passed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			cutHalf(w, body)
		},
		"passed, chunked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, h)
			b := simpleBox(t)
			resp, err := b.client.Get(s.URL + "/a")
			if err == nil {
				var got []byte
				got, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode == 200 && err == nil {
					t.Errorf("%d of %d bytes passed for whole", len(got), len(body))
				}
			}
			b.settle()
			for _, info := range b.store.List() {
				if info.Complete {
					t.Errorf("stored as complete: %+v", info)
				}
			}
		})
	}
}

func TestHTTP10GetsTheLengthOfWhatHadNone(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "some")
		w.(http.Flusher).Flush()
		fmt.Fprint(w, "thing")
	})
	b := simpleBox(t)
	resp := b.raw("GET " + s.URL + "/a HTTP/1.0\r\n\r\n")
	if !strings.Contains(resp, "Content-Length: 9\r\n") || !strings.HasSuffix(resp, "something") {
		t.Errorf("%q", resp)
	}
}

// raw sends bytes to the box and reads until it closes.
func (b *box) raw(text string) string {
	b.t.Helper()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		b.t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		b.t.Fatalf("%q: %v", got, err)
	}
	return string(got)
}

func TestPipelinedRequests(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=60"))
	b := simpleBox(t)
	one := "GET " + s.URL + "/%d HTTP/1.1\r\nHost: x\r\n"
	var text string
	for i := range 10 {
		text += fmt.Sprintf(one, i)
		if i == 9 {
			text += "Connection: close\r\n"
		}
		text += "\r\n"
	}
	r := bufio.NewReader(strings.NewReader(b.raw(text)))
	for range 10 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != "hello" {
			t.Fatalf("%q", body)
		}
	}
}

func TestMalformedRequestsAreNamed(t *testing.T) {
	b := simpleBox(t)
	for line, want := range map[string]string{
		"GET http://example.org/%zz HTTP/1.1":      "invalid URL escape",
		"GET http://[::1/ HTTP/1.1":                "missing ']'",
		"GET http://a b/ HTTP/1.1":                 "version",
		"GET http://example.org:99999/ HTTP/1.1":   "URL port",
		"GET http://user:pw@example.org/ HTTP/1.1": "URL userinfo",
		"GET ftp://example.org/ HTTP/1.1":          "URL scheme",
		"POST ftp://example.org/ HTTP/1.1":         "URL scheme",
		"GET":                                      "request line",
		"GET / HTTP/9.9":                           "protocol version",
		"OPTIONS * HTTP/1.1":                       "method",
		"PUT /get/http/example.org/ HTTP/1.1":      "method",
		"GET /nowhere HTTP/1.1":                    "no such address",
	} {
		got := b.raw(line + "\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, want) || !strings.Contains(got, "Cache-Status: cistern") || !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 505") {
			t.Errorf("%q: %q, want %q in it", line, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := newSite(t, file([]byte("secret"), `"e"`, "max-age=60"))
	port := s.Listener.Addr().(*net.TCPAddr).Port
	b := newBox(t, t.TempDir(), &origin.Dialer{}, nil, nil)
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "10.0.0.1", "169.254.169.254", "[fe80::1]"} {
		r := b.get(fmt.Sprintf("http://%s:%d/", host, port))
		if r.StatusCode != http.StatusForbidden || !strings.Contains(string(r.body), "allow_destinations") {
			t.Errorf("%s: %d %q", host, r.StatusCode, r.body)
		}
		if r := b.raw(fmt.Sprintf("CONNECT %s:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", host)); !strings.HasPrefix(r, "HTTP/1.1 403") || !strings.Contains(r, "Cache-Status: cistern") {
			t.Errorf("CONNECT %s: %q", host, r)
		}
	}
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1"} {
		if r := b.get(fmt.Sprintf("http://%s:%d/", host, port)); r.StatusCode < 400 {
			t.Errorf("%s: %d %q", host, r.StatusCode, r.body)
		}
	}
	for target, want := range map[string]string{"example.org:22": "403", "example.org:0": "400", "example.org:x": "400", "example.org": "400", ":443": "400"} {
		if r := b.raw("CONNECT " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(r, "HTTP/1.1 "+want) {
			t.Errorf("CONNECT %s: %q", target, r)
		}
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("%d requests came through", n)
	}
	if st := b.Stats(); st.Refused == 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestClientsAllowed(t *testing.T) {
	s := newSite(t, file([]byte("hello"), `"e"`, "max-age=60"))
	closed := newBox(t, t.TempDir(), loopback(t), func(c *Config) { c.Clients = []string{"192.0.2.0/24"} }, nil)
	if r := closed.get(s.URL); r.StatusCode != http.StatusForbidden || !strings.Contains(string(r.body), "127.0.0.1") {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
	b := simpleBox(t)
	for addr, want := range map[string]int{
		"192.168.7.7:1": 200, "[fd00::7]:1": 200, "[fe80::7%eth0]:1": 200, "127.0.0.1:1": 200, "[::ffff:10.0.0.1]:1": 200,
		"8.8.8.8:1": 403, "[2001:db8::1]:1": 403,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Host, r.URL.Scheme = "", ""
		r.RemoteAddr = addr
		b.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("client %s: %d, want %d", addr, w.Code, want)
		}
	}
}

func TestConnect(t *testing.T) {
	s := httptest.NewTLSServer(file([]byte("secret"), `"e"`, "max-age=60"))
	defer s.Close()
	port := s.Listener.Addr().(*net.TCPAddr).Port
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) { c.ConnectPorts = []int{port} }, nil)
	b.client.Transport.(*http.Transport).TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	resp, err := b.client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "secret" {
		t.Errorf("%q", body)
	}
	if st := b.Stats(); st.Tunnels != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestTunnelHalfClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { // answers only when the client has said all
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		all, _ := io.ReadAll(c)
		_, err = fmt.Fprintf(c, "got %s", all)
		served <- err
	}()
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) { c.ConnectPorts = []int{l.Addr().(*net.TCPAddr).Port} }, nil)
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nearly", l.Addr())
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Cache-Status"), "fwd=method") {
		t.Fatalf("%v %v", resp, err)
	}
	fmt.Fprint(c, " and late")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "got early and late" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestTunnelIdles(t *testing.T) {
	a, far := net.Pipe()
	b, near := net.Pipe()
	defer far.Close()
	defer near.Close()
	if n := tunnel(a, b, 20*time.Millisecond); n != 0 {
		t.Errorf("%d bytes", n)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end is still open: %v", err)
	}
}

func TestSecureGoesToTheDesk(t *testing.T) {
	pair := httptest.NewUnstartedServer(nil)
	pair.StartTLS()
	defer pair.Close()
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) {
		c.TLS = &tls.Config{Certificates: pair.TLS.Certificates}
		c.Secure = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "desk ", r.URL.Path) })
	}, nil)
	resp, err := pair.Client().Get("https://" + b.addr + "/agent/want")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "desk /agent/want" {
		t.Errorf("%q", body)
	}
	if r := b.get("http://" + b.addr + "/wpad.dat"); r.StatusCode != 200 {
		t.Errorf("plain: %d", r.StatusCode)
	}
}
