package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/origin"
)

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
		"GET http:example.org HTTP/1.1":            "URL host",
		"GET http:///x HTTP/1.1":                   "URL host",
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
	var moved atomic.Int64
	tunnel(a, b, 20*time.Millisecond, &moved)
	if moved.Load() != 0 {
		t.Errorf("%d bytes", moved.Load())
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

func TestSecureAsksForTheClientsNetwork(t *testing.T) {
	pair := httptest.NewUnstartedServer(nil)
	pair.StartTLS()
	defer pair.Close()
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) {
		c.Clients = []string{"192.0.2.0/24"}
		c.TLS = &tls.Config{Certificates: pair.TLS.Certificates}
		c.Secure = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the desk was asked") })
	}, nil)
	resp, err := pair.Client().Get("https://" + b.addr + "/agent/enrol")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, want %d", resp.StatusCode, http.StatusForbidden)
	}
}

// A body may look like an answer that net/http gives on its own.
func TestBodyThatLooksLikeAnAnswer(t *testing.T) {
	trap := "HTTP/1.1 400 Bad Request" + string(blind) + "evil"
	for _, control := range []string{"no-store", "max-age=60"} {
		s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", control)
			w.Header().Set("Content-Length", fmt.Sprint(1+len(trap)))
			for _, part := range []string{"x", trap} {
				_, _ = io.WriteString(w, part)
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond) // so that it travels alone
			}
		})
		b := simpleBox(t)
		got := b.raw("GET " + s.URL + "/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, body, _ := strings.Cut(got, "\r\n\r\n"); body != "x"+trap {
			t.Errorf("%s: %q", control, body)
		}
	}
}
