package peering

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/anacrolix/torrent/tracker"
	trackerhttp "github.com/anacrolix/torrent/tracker/http"
)

func FuzzPEX(f *testing.F) {
	f.Add([]byte("d5:added6:\x01\x02\x03\x04\x1a\xe17:added.f1:\x00e"))
	f.Add([]byte("d6:added618:\xfd\x00aaaaaaaaaaaaaa\x1a\xe1e"))
	f.Add([]byte("d5:added5:\x01\x02\x03\x04\x1ae"))
	f.Add([]byte("d5:addedi1ee"))
	f.Add([]byte("d5:addedle7:dropped"))
	f.Fuzz(func(t *testing.T, message []byte) {
		named := namedBy(message)
		if len(named) > len(message)/6 {
			t.Fatalf("%d peers of %d bytes", len(named), len(message))
		}
		for _, ap := range named {
			if !ap.IsValid() || ap.Port() == 0 {
				t.Fatalf("peer %v", ap)
			}
		}
	})
}

// FuzzTrackerAnswer: what a tracker says by HTTP ends in peers or an error.
func FuzzTrackerAnswer(f *testing.F) {
	f.Add([]byte("d8:intervali60e5:peers6:\x01\x02\x03\x04\x1a\xe1e"))
	f.Add([]byte("d8:intervali60e5:peersld2:ip9:127.0.0.14:porti6881eee6:peers618:\xfd\x00aaaaaaaaaaaaaa\x1a\xe1e"))
	f.Add([]byte("d14:failure reason3:noye"))
	f.Add([]byte("d8:intervali-5e5:peersi99999999999999999999e"))
	f.Add([]byte("d5:peersld2:ipi5e4:port1:xeee"))
	f.Add([]byte("d8:intervali9223372036854775807e5:peers5:abcdee"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		dial := func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
					var whole bytes.Buffer
					fmt.Fprintf(&whole, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
					_, _ = far.Write(whole.Bytes())
				}
			}()
			return near, nil
		}
		opts := tracker.NewClientOpts{Http: trackerhttp.NewClientOpts{DialContext: dial}, Slogger: testLog()}
		wait, named, err := tell(t.Context(), "http://tracker.example/announce", opts, tracker.AnnounceRequest{})
		switch {
		case err != nil && named != nil:
			t.Fatal("both peers and an error")
		case err == nil && (wait < soonest || wait > latest || wait%time.Second != 0 && wait != soonest && wait != latest):
			t.Fatalf("asks again in %v", wait)
		}
	})
}
