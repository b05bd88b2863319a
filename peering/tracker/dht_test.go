package tracker

import (
	"net/netip"
	"strings"
	"testing"
)

func getPeers(h [20]byte, more string) string {
	return "d1:ad2:id20:nnnnnnnnnnnnnnnnnnnn9:info_hash20:" + string(h[:]) + more + "e1:q9:get_peers1:t2:xy1:v4:UT001:y1:qe"
}

const (
	nodeAnswer = "d2:ip6:abcdef1:rd2:id20:mmmmmmmmmmmmmmmmmmmm5:nodes26:mmmmmmmmmmmmmmmmmmmmbbbbbb5:token2:to6:valuesl6:\x01\x02\x03\x04\x1a\xe16:\x05\x06\x07\x08\x1a\xe25:shorte"
	nodeTail   = "e1:t2:xy1:y1:re"
)

// TestLookups: of a node's answer about a torrent that the box takes part in, the
// peers alone become another.
func TestLookups(t *testing.T) {
	fetching := hash('f')
	for _, c := range []struct {
		name, query, answer string
		client              netip.AddrPort
		ok                  bool
		want                string // the list in the answer; "" if it stays
		joined              int
	}{
		{"held", getPeers(held, ""), nodeAnswer + nodeTail, client4, true, "l6:\x0a\x00\x00\x01\x1a\xe1e", 0},
		{"with options", getPeers(held, "6:noseedi1e6:scrapei1e4:wantl2:n4e"), nodeAnswer + nodeTail, client4, true, "l6:\x0a\x00\x00\x01\x1a\xe1e", 0},
		{"by IPv6", getPeers(held, ""), nodeAnswer + nodeTail, client6, true, "l18:\xfd" + strings.Repeat("\x00", 14) + "\x01\x1a\xe1e", 0},
		{"the box wants some too", getPeers(fetching, ""), nodeAnswer + nodeTail, client4, true, "l6:\x0a\x00\x00\x01\x1a\xe1e", 1},
		{"nodes alone", getPeers(held, ""), "d1:rd2:id20:mmmmmmmmmmmmmmmmmmmm5:nodes0:5:token2:toe1:t2:xy1:y1:re", client4, true, "", 0},
		{"no peers", getPeers(held, ""), "d1:rd2:id20:mmmmmmmmmmmmmmmmmmmm6:valueslee1:t2:xy1:y1:re", client4, true, "", 0},
		{"an error", getPeers(held, ""), "d1:eli201e3:abce1:t2:xy1:y1:ee", client4, true, "", 0},
		{"cut off", getPeers(held, ""), nodeAnswer[:len(nodeAnswer)-4], client4, true, "", 0},
		{"nonsense", getPeers(held, ""), "d1:r6:valuese", client4, true, "", 0},
		{"peers that are no list", getPeers(held, ""), "d1:rd6:values6:abcdefee", client4, true, "", 0},
		{"nothing", getPeers(held, ""), "", client4, true, "", 0},
		{"not known", getPeers(strange, ""), "", client4, false, "", 0},
		{"private", getPeers(private, ""), "", client4, false, "", 0},
		{"allowed, and not here yet", getPeers(allowed, ""), "", client4, false, "", 1},
		{"from elsewhere", getPeers(held, ""), "", netip.MustParseAddrPort("8.8.8.8:1"), false, "", 0},
		{"announce", strings.Replace(getPeers(held, ""), "9:get_peers", "13:announce_peer", 1), "", client4, false, "", 0},
		{"no query", "d1:q9:get_peerse", "", client4, false, "", 0},
		{"short", "d1:ad9:info_hash3:abce1:q9:get_peerse", "", client4, false, "", 0},
		{"deep", strings.Repeat("l", 2000), "", client4, false, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, swarm := newServer(t, nil)
			swarm.torrents[fetching] = Torrent{}
			rewrite, ok := s.AnswerDHT(c.client, []byte(c.query))
			if ok != c.ok {
				t.Fatalf("answered: %t", ok)
			}
			if ok {
				want := c.answer
				if c.want != "" {
					head, _, _ := strings.Cut(nodeAnswer, "l6:")
					want = head + c.want + nodeTail
				}
				if got := string(rewrite([]byte(c.answer))); got != want {
					t.Errorf("%q, want %q", got, want)
				}
				if avoided := s.Stats().Avoided; avoided != map[bool]int64{true: 2}[c.want != ""] {
					t.Errorf("%d avoided", avoided)
				}
			}
			if len(swarm.joined) != c.joined || c.name == "the box wants some too" && !strings.Contains(swarm.joined[0], "[1.2.3.4:6881 5.6.7.8:6882]") {
				t.Errorf("joined %q", swarm.joined)
			}
		})
	}
}

func FuzzLookup(f *testing.F) {
	f.Add([]byte(getPeers(held, "")), []byte(nodeAnswer+nodeTail))
	f.Add([]byte("d1:ad9:info_hash3:abce1:q9:get_peerse"), []byte("d1:rd6:valuesl18:"))
	f.Fuzz(func(t *testing.T, query, answer []byte) {
		s, _ := newServer(t, nil)
		_, _ = s.AnswerDHT(client4, query)
		rewrite, ok := s.AnswerDHT(client4, []byte(getPeers(held, "")))
		if !ok {
			t.Fatal("not answered")
		}
		before := string(answer)
		got := rewrite(answer)
		if string(answer) != before {
			t.Error("the argument was changed")
		}
		_, _, was := values(answer)
		_, _, is := values(got)
		if len(was) > 0 && (len(is) != 1 || is[0] != box4) {
			t.Errorf("%q became %q", answer, got)
		}
	})
}
