package proxy

import (
	"net/http"
	"testing"
)

// TestContentOnlyUnderOwnNames: a page of the outside whose name was made to
// lead to the box reads nothing through it.
func TestContentOnlyUnderOwnNames(t *testing.T) {
	s := &Server{cfg: Config{Address: "cache.example.edu:3142", Names: []string{"iso.example.org"}}}
	for host, mine := range map[string]bool{
		"10.0.0.2:3142": true, "10.0.0.2": true, "[fd00::1]:3142": true, "box": true, "box:3142": true, "": true,
		"localhost:3142": true, "box.lan": true, "box.local.": true, "Cache.Example.edu:3142": true, "iso.example.org": true,
		"evil.example.com:3142": false, "10.0.0.2.evil.example.com": false, "lan.evil.example": false, "example.org": false,
	} {
		if got := s.isMine(&http.Request{Host: host}); got != mine {
			t.Errorf("Host %q: %v, want %v", host, got, mine)
		}
	}
}

func TestRebindingIsMisdirected(t *testing.T) {
	b := newBox(t, t.TempDir(), loopback(t), nil, nil)
	for _, path := range []string{"/get/http/example.org/x", "/o/btih:0000000000000000000000000000000000000000/x"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "evil.example.com"
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMisdirectedRequest || resp.Header.Get("Cache-Status") == "" {
			t.Errorf("%s: %s, Cache-Status %q", path, resp.Status, resp.Header.Get("Cache-Status"))
		}
	}
}
