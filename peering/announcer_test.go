package peering

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/anacrolix/torrent/bencode"
)

// TestWhatATrackerIsTold: the tracker hears each thing once, with figures that
// are so, and the peers that it names are known from then on.
func TestWhatATrackerIsTold(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(43, 500_000)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	s := seed(t, "127.0.0.1", "disk.img", files, mi)
	host, port, _ := net.SplitHostPort(tcpAddr(s))
	n, _ := strconv.Atoi(port)
	var mu sync.Mutex
	var told []url.Values
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		told = append(told, r.URL.Query())
		mu.Unlock()
		peers := append(net.ParseIP(host).To4(), byte(n>>8), byte(n))
		peers = append(peers, 203, 0, 113, 9, 0x1a, 0xe1)
		_, _ = w.Write(bencode.MustMarshal(map[string]any{"interval": 1800, "peers": string(peers)}))
	}))
	defer tracker.Close()
	b := newBox(t, nil)
	snap := b.complete(b.add(withTrackers(t, mi, tracker.URL+"/announce", "")).InfoHash)
	heard := func(event string) (seen []url.Values) {
		mu.Lock()
		defer mu.Unlock()
		for _, q := range told {
			if q.Get("event") == event {
				seen = append(seen, q)
			}
		}
		return seen
	}
	until(t, "completed", func() bool { return len(heard("completed")) == 1 })
	if known := b.swarm.Known(); !slices.Contains(known, netip.MustParseAddrPort("203.0.113.9:6881")) {
		t.Errorf("knows %v", known)
	}
	if part, ok := b.swarm.Part([20]byte(mi.HashInfoBytes())); !ok || !part.Complete || part.Private || len(b.swarm.Infohashes()) != 1 {
		t.Errorf("%+v %t", part, ok)
	}
	b.stop()
	for event, left := range map[string]string{"started": "500000", "completed": "0", "stopped": "0"} {
		seen := heard(event)
		if len(seen) != 1 || seen[0].Get("left") != left || seen[0].Get("port") == "" {
			t.Errorf("%s: %v", event, seen)
		}
	}
	if got := heard("completed")[0].Get("downloaded"); got != strconv.FormatInt(snap.Down, 10) {
		t.Errorf("downloaded %s, told %d", got, snap.Down)
	}
}
