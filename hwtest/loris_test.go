package hwtest

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
)

// TestSlowLoris: hundreds of connections that send a byte now and then, of a head,
// of a body or of nothing. Others are served meanwhile, hits and misses alike, and
// the slow ones are let go.
func TestSlowLoris(t *testing.T) {
	s := newScene(t)
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = fmt.Fprint(w, "hello ", r.URL.Path)
	})}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		done.Wait()
	})
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	at := "http://" + s.origin.Addr().String()
	count := 150
	if soak() {
		count = 1500
	}
	begins := []string{
		"G", // and then silence would be the same
		"GET " + at + "/x HTTP/1.1\r\nHost: x\r\nX-Long: ",
		"POST " + at + "/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
		"POST /get/http/x/y HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n",
	}
	var open atomic.Int64
	var slow sync.WaitGroup
	began := time.Now()
	for i := range count {
		c, err := s.clients[0].DialContext(t.Context(), "tcp", net.JoinHostPort(s.box.Addr().String(), actors.ProxyPort))
		if err != nil {
			t.Fatal(err)
		}
		open.Add(1)
		slow.Go(func() {
			defer open.Add(-1)
			defer c.Close()
			trickle(c, begins[i%len(begins)], began.Add(2*time.Minute))
		})
	}
	worst := time.Duration(0)
	for i := 0; i < 40; i++ {
		got := fetchThrough(t, s.clients[1], box, fmt.Sprint(at, "/", i/2), "")
		if got.status != http.StatusOK {
			t.Fatalf("another client: %+v", got)
		}
		worst = max(worst, got.took)
		time.Sleep(20 * time.Millisecond)
	}
	if n := open.Load(); n < int64(count)/2 {
		t.Errorf("%d of %d slow connections are left: the story did not happen", n, count)
	}
	slow.Wait()
	took := time.Since(began)
	if took > 2*time.Minute {
		t.Errorf("slow connections were still open after %s", took)
	}
	if soak() {
		figure(t, "slow loris: worst answer to others beside 1,500 slow connections", worst.Seconds(), 1, "s")
		figure(t, "slow loris: until the last was let go", took.Seconds(), 60, "s")
	}
}

// trickle sends the beginning of a request and then a byte each second, until the
// connection is closed or the time is over.
func trickle(c net.Conn, begin string, until time.Time) {
	if _, err := c.Write([]byte(begin)); err != nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}()
	defer func() { c.Close(); <-gone }()
	for time.Now().Before(until) {
		select {
		case <-gone:
			return
		case <-time.After(time.Second):
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return
		}
	}
}
