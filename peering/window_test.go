package peering

import (
	"testing"

	"github.com/anacrolix/torrent"
)

func TestWindow(t *testing.T) {
	said, silent := &torrent.Peer{}, &torrent.Peer{}
	for _, c := range []struct {
		name               string
		peers              int // 0: not divided yet
		said, silent, most int
	}{
		{"before peers are counted", 0, 2000, 250, 2000},
		{"one peer gets all that it takes", 1, 2000, 250, 2000},
		{"two share", 2, 1000, 250, 2000},
		{"twenty share", 20, 100, 100, 2000},
		{"a crowd gets the least", 500, 64, 64, 2000},
		{"a modest peer gets what it takes", 20, 10, 100, 10},
	} {
		w := &window{most: map[*torrent.Peer]int{}}
		w.heard(said, c.most)
		w.heard(silent, 0)
		w.heard(silent, -1)
		if c.peers > 0 {
			w.divide(c.peers)
		}
		if got := w.of(said); got != c.said {
			t.Errorf("%s: %d requests, not %d", c.name, got, c.said)
		}
		if got := w.of(silent); got != c.silent {
			t.Errorf("%s: %d requests of one that does not say, not %d", c.name, got, c.silent)
		}
		if w.forget(said); len(w.most) != 0 {
			t.Errorf("%s: remembers a peer that has gone", c.name)
		}
	}
}
