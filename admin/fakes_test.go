package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

var _ Objects = (*cache.Store)(nil)

// shelf is a store of what a test puts on it.
type shelf struct {
	mu   sync.Mutex
	all  []cache.Info
	meta map[string][]byte

	denials []cache.Denial
}

func (s *shelf) List() []cache.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func (s *shelf) Get(num uint64) (cache.Info, bool) {
	for _, i := range s.List() {
		if i.Num == num {
			return i, true
		}
	}
	return cache.Info{}, false
}

func (s *shelf) Stats() cache.Stats {
	st := cache.Stats{
		MaxBytes: 50e9, Filled: map[string]int64{}, Served: map[string]int64{},
		Volumes: []cache.VolumeStats{
			{Dir: "/var/lib/cistern", Bytes: 5_900_000_000, Free: 41_000_000_000, Total: 60_000_000_000},
			{Dir: "/mnt/second", Gone: true, Sick: "stat /mnt/second: input/output error"},
		},
		Services: []cache.ServiceStats{{Bytes: 5e9}, {Name: "steam", Bytes: 900_000_000, Quota: 10e9}},
	}
	for _, i := range s.List() {
		st.Objects++
		if i.Complete {
			st.Complete++
		}
		if i.Filling {
			st.Fills++
		}
		st.Bytes += max(i.Size, 0)
		for name, n := range i.From {
			st.Filled[name] += n
		}
		for name, n := range i.Served {
			st.Served[name] += n
		}
	}
	return st
}

func (s *shelf) edit(num uint64, how func(i int)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.all, func(i cache.Info) bool { return i.Num == num })
	if i < 0 {
		return fmt.Errorf("object %d: %w", num, cache.ErrNotFound)
	}
	how(i)
	return nil
}

func (s *shelf) Pin(num uint64, pinned bool) error {
	return s.edit(num, func(i int) { s.all[i].Pinned = pinned })
}

func (s *shelf) Evict(num uint64) error {
	return s.edit(num, func(i int) { s.all = slices.Delete(s.all, i, i+1) })
}

func (s *shelf) EvictMatching(string) (int, int64, error) { return 0, 0, nil }

func (s *shelf) Explain(num uint64) (cache.Explanation, error) {
	i, ok := s.Get(num)
	if !ok {
		return cache.Explanation{}, cache.ErrNotFound
	}
	return cache.Explanation{Info: i}, nil
}

func (s *shelf) Scrub(context.Context, int64, ...func(cache.ScrubReport)) (cache.ScrubReport, error) {
	return cache.ScrubReport{}, nil
}

func (s *shelf) Purge(string, string, string) ([]cache.Info, error) { return nil, nil }
func (s *shelf) Lift(string, string) error                          { return cache.ErrNotFound }
func (s *shelf) Denied(string) error                                { return nil }
func (s *shelf) Denials() []cache.Denial                            { return s.denials }
func (s *shelf) Audit() ([]cache.AuditEntry, error)                 { return nil, nil }

func (s *shelf) Lookup(name string) (cache.Info, []byte, bool) {
	for _, i := range s.List() {
		if slices.Contains(i.Names, name) {
			return i, s.meta[name], true
		}
	}
	return cache.Info{}, nil, false
}

func (s *shelf) ByID(id content.ID) (cache.Info, bool) {
	for _, i := range s.List() {
		if i.ID == id && i.Public {
			return i, true
		}
	}
	return cache.Info{}, false
}

type fetcher struct{}

func (fetcher) Fetch(_ context.Context, u *url.URL) (cache.Info, error) {
	switch u.Hostname() {
	case "private.test":
		return cache.Info{}, errors.New("10.0.0.1 is a private address")
	case "big.test":
		return cache.Info{}, fmt.Errorf("create: %w", content.ErrFull)
	}
	return cache.Info{Num: 7, Title: u.String()}, nil
}

type swarmList struct {
	mu  sync.Mutex
	all []Swarm
}

func (s *swarmList) List() []Swarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func (s *swarmList) AddLink(_ context.Context, link string) (Swarm, error) {
	if !strings.HasPrefix(link, "magnet:?xt=urn:bt") {
		return Swarm{}, errors.New("magnet link has no infohash")
	}
	return s.AddTorrent(context.Background(), []byte("d"))
}

func (s *swarmList) AddTorrent(_ context.Context, file []byte) (Swarm, error) {
	if !strings.HasPrefix(string(file), "d") {
		return Swarm{}, errors.New("torrent is no dictionary")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := Swarm{Infohash: strings.Repeat("ab", 20), Name: "added", State: "metadata"}
	s.all = append(s.all, w)
	return w, nil
}

type castList struct{ all []Cast }

func (c *castList) List() []Cast { return c.all }

func (c *castList) Start(_ context.Context, num uint64) error {
	if num == 3 {
		return fmt.Errorf("cast object 3: %w", cache.ErrIncomplete)
	}
	return nil
}

type agentList struct{ all []Agent }

func (a *agentList) List() []Agent { return a.all }

func (a *agentList) Revoke(_ context.Context, node string) error {
	a.all = slices.DeleteFunc(a.all, func(g Agent) bool { return g.Node == node })
	return nil
}

func (a *agentList) Fingerprint() string { return "SHA256:4ZqOQ8mV2yq1" }

// sample is a box in the middle of a busy afternoon.
func sample(now time.Time) Parts {
	id := func(b byte, size int64) content.ID { return content.ID{Root: content.Hash{0xab, b}, Size: size} }
	store := &shelf{denials: []cache.Denial{{
		What: "http://warez.example/*", Why: "court order 7 O 12/26", By: "cli", At: now.Add(-72 * time.Hour),
	}}, all: []cache.Info{
		{
			Num: 6, Size: 1474873344, Readable: 611_000_000, Filling: true, Public: true, Trust: content.TrustTransport,
			Title:   "http://releases.ubuntu.com/24.04/ubuntu-24.04.3-live-server-amd64.iso",
			Names:   []string{"http://releases.ubuntu.com/24.04/ubuntu-24.04.3-live-server-amd64.iso"},
			Created: now.Add(-40 * time.Second), Used: now, From: map[string]int64{"origin releases.ubuntu.com": 611_000_000},
			Served: map[string]int64{"http": 1_770_000_000},
		},
		{
			Num: 5, ID: id(5, 4_700_372_992), Size: 4_700_372_992, Readable: 4_700_372_992, Complete: true, Public: true, Pinned: true, Trust: content.TrustPieces,
			Title: "debian-12.8.0-amd64-DVD-1.iso", Names: []string{"btih:" + strings.Repeat("0c", 20) + "/debian-12.8.0-amd64-DVD-1.iso"},
			Created: now.Add(-5 * time.Hour), Used: now.Add(-30 * time.Second),
			From:   map[string]int64{"swarm": 4_200_000_000, "origin cdimage.debian.org": 500_372_992},
			Served: map[string]int64{"multicast": 37_602_983_936, "http": 9_100_000_000, "bittorrent": 2_200_000_000},
		},
		{
			Num: 4, ID: id(4, 13_512_244), Size: 13_512_244, Readable: 13_512_244, Complete: true, Public: true,
			Title: "http://deb.debian.org/debian/pool/main/l/linux/linux-image-6.1.0-28-amd64_6.1.119-1_amd64.deb",
			Names: []string{"http://deb.debian.org/debian/pool/main/l/linux/linux-image.deb"}, Created: now.Add(-26 * time.Hour), Used: now.Add(-11 * time.Minute),
			From: map[string]int64{"origin deb.debian.org": 13_512_244}, Served: map[string]int64{"http": 310_781_612},
		},
		{
			Num: 3, Size: 209_715_200, Readable: 96_468_992, Public: true, Title: "lecture.mp4", Names: []string{"http://video.example.edu/lecture.mp4"},
			Created: now.Add(-3 * time.Hour), Used: now.Add(-2 * time.Hour), From: map[string]int64{"origin video.example.edu": 96_468_992},
		},
		{
			Num: 2, ID: id(2, 51_000), Size: 51_000, Readable: 51_000, Complete: true, Title: "http://intranet.example.edu/report.pdf", Names: []string{"http://intranet.example.edu/report.pdf"},
			Created: now.Add(-50 * time.Hour), Used: now.Add(-49 * time.Hour), From: map[string]int64{"origin intranet.example.edu": 51_000}, Served: map[string]int64{"http": 51_000},
		},
	}}
	var receivers []Receiver
	for n, loss := range []float64{0.001, 0.021, 0, 0.12, 0.004, 0.019} {
		receivers = append(receivers, Receiver{
			Node: fmt.Sprint(101 + n), Name: fmt.Sprintf("lab-pc-%02d", n+1), State: "joined", Loss: loss,
			LastHeard: now.Add(-time.Duration(n) * time.Second), CompletePercent: 62 - loss*200,
		})
	}
	casts := &castList{all: []Cast{{
		Object: 5, Title: "debian-12.8.0-amd64-DVD-1.iso", Group: "232.77.3.9:6003", Rate: 100e6, SentBytes: 2_900_000_000,
		Size: 4_700_372_992, State: "on air", Started: now.Add(-4 * time.Minute), Receivers: receivers,
	}, {
		Object: 4, Title: "linux-image-6.1.0-28-amd64.deb", Group: "232.77.0.2:6003", Rate: 100e6, SentBytes: 13_512_244,
		Size: 13_512_244, State: "ended", Started: now.Add(-11 * time.Minute),
	}}}
	swarms := &swarmList{all: []Swarm{
		{Infohash: strings.Repeat("0c", 20), Name: "debian-12.8.0-amd64-DVD-1.iso", State: "seeding", BytesHave: 4_700_372_992, Size: 4_700_372_992, Up: 1_800_000, Peers: 14, OutsideEstablished: 6},
		{Infohash: strings.Repeat("7e", 20), State: "metadata", Peers: 3, OutsideEstablished: 3},
	}}
	agents := &agentList{}
	for n := range 6 {
		agents.all = append(agents.all, Agent{Node: fmt.Sprint(101 + n), Name: fmt.Sprintf("lab-pc-%02d", n+1), Address: fmt.Sprintf("192.168.1.%d", 40+n), Enrolled: now.Add(-90 * time.Hour), LastHeard: now.Add(-time.Duration(n*n*9) * time.Second)})
	}
	return Parts{Objects: store, Fetcher: fetcher{}, Swarms: swarms, Casts: casts, Agents: agents, TorrentClients: func() []TorrentClient {
		return []TorrentClient{
			{Address: "192.168.1.51", Answered: 12, Avoided: 402, FlowsNow: 1, FlowsPeak: 7}, {Address: "fd00::9", Answered: 1, Avoided: 50},
		}
	}}
}

// newServer is an opened server over parts, with its files in a directory of
// the test's.
func newServer(t *testing.T, cfg Config, parts Parts) *Server {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	s, err := New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), parts)
	if err != nil {
		t.Fatal(err)
	}
	s.account.cost.Memory, s.account.cost.Iterations = 64, 1
	if err := s.open(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}); err != nil {
		t.Fatal(err)
	}
	return s
}
