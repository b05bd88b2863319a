package actors

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// StartTracker runs opentracker on a host at addr, port 6969, for some torrents:
// Debian's build serves only what its white list names.
func StartTracker(ctx context.Context, host *lab.Host, addr, dir string, infohashes ...[20]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("start tracker: %w", err)
	}
	var allowed []byte
	for _, h := range infohashes {
		allowed = fmt.Appendf(allowed, "%x\n", h)
	}
	if err := os.WriteFile(filepath.Join(dir, "allowed"), allowed, 0o644); err != nil {
		return fmt.Errorf("start tracker: %w", err)
	}
	p := host.Command("opentracker", "-i", addr, "-p", "6969", "-P", "6969", "-d", dir, "-w", "allowed") // seen from inside dir
	if err := p.Start(ctx); err != nil {
		return err
	}
	return waitListening(ctx, host, p, addr+":6969")
}

// Seeds is a swarm of libtorrent sessions that have a torrent's content.
type Seeds struct {
	host  *lab.Host
	count int
}

// seedControl is where the process with the seeds says what they have sent.
const seedControl = "127.0.0.1:16800"

//go:embed seeds.py
var seedsProgram string

// StartSeeds runs one libtorrent session for each of addrs on a host. All read
// the content in dir, serve every one of the torrents, announce from their own
// address and upload at most rate bytes a second each.
func StartSeeds(ctx context.Context, host *lab.Host, addrs, torrents []string, dir string, rate int) (*Seeds, error) {
	arg, err := json.Marshal(map[string]any{
		"dir": dir, "torrents": torrents, "addrs": addrs, "port": 6881, "rate": rate, "control": seedControl,
	})
	if err != nil {
		return nil, fmt.Errorf("start seeds: %w", err)
	}
	// Debian's interpreter by its path: that is the one with python3-libtorrent.
	p := host.Command("/usr/bin/python3", "-c", seedsProgram, string(arg))
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return &Seeds{host: host, count: len(addrs)}, waitListening(ctx, host, p, seedControl)
}

// WaitAnnounced waits until the tracker at addr (host:port) knows of at least
// all the seeds.
func (s *Seeds) WaitAnnounced(ctx context.Context, tracker string, infohash [20]byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	want := []byte("8:completei" + strconv.Itoa(s.count) + "e")
	for {
		url := "http://" + tracker + "/scrape?info_hash=" + escape(infohash[:])
		body, err := get(ctx, s.host.HTTPClient(), url)
		if err == nil && bytes.Contains(body, want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("seeds did not all announce themselves; the tracker said %q, %v: %w", body, err, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// escape percent-encodes every byte, as trackers take it.
func escape(p []byte) string {
	out := make([]byte, 0, 3*len(p))
	for _, b := range p {
		out = fmt.Appendf(out, "%%%02x", b)
	}
	return string(out)
}

// Uploaded is how many piece bytes all seeds have sent.
func (s *Seeds) Uploaded(ctx context.Context) (int64, error) { return s.uploaded(ctx, "/") }

// UploadedOf is how many piece bytes of one torrent (v1) all seeds have sent.
func (s *Seeds) UploadedOf(ctx context.Context, infohash [20]byte) (int64, error) {
	return s.uploaded(ctx, fmt.Sprintf("/%x", infohash))
}

func (s *Seeds) uploaded(ctx context.Context, path string) (int64, error) {
	body, err := get(ctx, s.host.HTTPClient(), "http://"+seedControl+path)
	if err != nil {
		return 0, fmt.Errorf("ask the seeds: %w", err)
	}
	n, err := strconv.ParseInt(string(body), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("ask the seeds: %w", err)
	}
	return n, nil
}

// FetchTorrent downloads a torrent with aria2 at its default settings into dir
// and returns when it is whole. It does not stay to seed.
func FetchTorrent(ctx context.Context, host *lab.Host, torrent, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("fetch torrent: %w", err)
	}
	dht := filepath.Join(dir, "dht.dat")
	_, err := host.Run(
		ctx, "aria2c", "--no-conf", "--quiet", "--dir="+dir, "--seed-time=0",
		"--dht-file-path="+dht, "--dht-file-path6="+dht+"6", torrent,
	)
	return err
}

//go:embed leech.py
var leechProgram string

// Leech downloads a torrent with libtorrent on a host into dir, from peers that
// local discovery (BEP 14) finds, without its web seeds.
func Leech(ctx context.Context, host *lab.Host, torrent, dir string) error {
	arg, err := json.Marshal(map[string]any{"torrent": torrent, "dir": dir, "addr": host.Addr().String(), "seconds": 60})
	if err != nil {
		return fmt.Errorf("leech: %w", err)
	}
	_, err = host.Run(ctx, "/usr/bin/python3", "-c", leechProgram, string(arg))
	return err
}

// AnnounceDead tells the tracker at addr (host:port) of a peer at each address of
// a host, that nobody will find there.
func AnnounceDead(ctx context.Context, host *lab.Host, tracker string, infohashes ...[20]byte) error {
	for i, from := range host.Addrs() {
		for _, infohash := range infohashes {
			var conn net.Conn
			err := host.Do(func() (err error) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
				conn, err = d.DialContext(ctx, "tcp", tracker)
				return err
			})
			if err != nil {
				return fmt.Errorf("announce dead peer: %w", err)
			}
			_, err = fmt.Fprintf(conn, "GET /announce?info_hash=%s&peer_id=-DE0000-%012d&port=6881&uploaded=0&downloaded=0&left=0&compact=1&event=started HTTP/1.0\r\n\r\n", escape(infohash[:]), i)
			if err == nil {
				_, err = io.ReadAll(conn)
			}
			if err = errors.Join(err, conn.Close()); err != nil {
				return fmt.Errorf("announce dead peer: %w", err)
			}
		}
	}
	return nil
}
