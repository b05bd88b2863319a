package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestTaken: a connection that was meant for an origin is answered as by a
// forward proxy, the second request from the store.
func TestTaken(t *testing.T) {
	body := testBody(50_000)
	origin := newSite(t, file(body, `"a"`, "max-age=60"))
	b := simpleBox(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	led, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	request := "GET /file HTTP/1.1\r\nHost: " + strings.TrimPrefix(origin.URL, "http://") + "\r\n\r\n"
	b.Take(led.(*net.TCPConn), []byte(request))
	r := bufio.NewReader(c)
	for i, want := range []string{"fwd=", "hit"} {
		if i > 0 {
			fmt.Fprint(c, request)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != string(body) || !strings.Contains(resp.Header.Get("Cache-Status"), want) {
			t.Errorf("%d bytes, %v, %q", len(got), err, resp.Header.Get("Cache-Status"))
		}
	}
	if n := len(origin.requests()); n != 1 {
		t.Errorf("the origin was asked %d times", n)
	}
	b.stop()
	b.Take(led.(*net.TCPConn), nil) // and does not wait
}
