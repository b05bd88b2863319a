package actors

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// StartTracker runs opentracker on a host at addr, port 6969.
func StartTracker(ctx context.Context, host *lab.Host, addr, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("start tracker: %w", err)
	}
	p := host.Command("opentracker", "-i", addr, "-p", "6969", "-P", "6969", "-d", dir)
	if err := p.Start(ctx); err != nil {
		return err
	}
	return waitListening(ctx, host, p, addr+":6969")
}

// Seeds is a swarm of aria2 processes that have a torrent's content.
type Seeds struct {
	host  *lab.Host
	count int
}

// The seeds' ports: that of seed i is the base plus i.
const (
	seedPort = 7001
	rpcPort  = 16801
)

// StartSeeds runs one aria2 for each of addrs on a host. All read the content in
// dir, announce from their own address and upload at most rate bytes a second
// each.
func StartSeeds(ctx context.Context, host *lab.Host, addrs []string, torrent, dir string, rate int) (*Seeds, error) {
	for i, addr := range addrs {
		p := host.Command(
			"aria2c", "--no-conf", "--quiet", "--dir="+dir,
			"--interface="+addr, "--listen-port="+strconv.Itoa(seedPort+i),
			"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
			"--bt-seed-unverified=true", "--seed-ratio=0.0", "--bt-max-peers=0",
			"--max-overall-upload-limit="+strconv.Itoa(rate),
			"--enable-rpc", "--rpc-listen-port="+strconv.Itoa(rpcPort+i), "--disk-cache=0", "--file-allocation=none",
			torrent,
		)
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
		if err := waitListening(ctx, host, p, "127.0.0.1:"+strconv.Itoa(rpcPort+i)); err != nil {
			return nil, err
		}
	}
	return &Seeds{host: host, count: len(addrs)}, nil
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

// Uploaded asks every seed how many piece bytes it has sent and adds them up.
func (s *Seeds) Uploaded(ctx context.Context) (int64, error) {
	client := s.host.HTTPClient()
	defer client.CloseIdleConnections()
	var sum int64
	for i := range s.count {
		url := fmt.Sprintf("http://127.0.0.1:%d/jsonrpc", rpcPort+i)
		n, err := uploaded(ctx, client, url)
		if err != nil {
			return 0, fmt.Errorf("ask seed %d: %w", i, err)
		}
		sum += n
	}
	return sum, nil
}

func uploaded(ctx context.Context, client *http.Client, url string) (int64, error) {
	const call = `{"jsonrpc":"2.0","id":1,"method":"aria2.tellActive","params":[["uploadLength"]]}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(call)))
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Result []struct {
			UploadLength int64 `json:"uploadLength,string"`
		} `json:"result"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if len(answer.Result) != 1 {
		return 0, fmt.Errorf("it has %d active downloads, want 1", len(answer.Result))
	}
	return answer.Result[0].UploadLength, nil
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
