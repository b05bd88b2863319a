package peering

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// This file says who else is in the swarms that the box has joined: cache/steer
// keeps LAN clients from whom the box has already.

// Neighbour is a connection with a peer on the LAN.
type Neighbour struct {
	Addr netip.Addr
	// Sent is piece bytes that the peer got by it.
	Sent int64
	// Complete peers want nothing.
	Complete bool
}

// Neighbours lists the connections with peers on the LAN.
func (s *Swarm) Neighbours() []Neighbour {
	var list []Neighbour
	for _, sh := range s.list() {
		for _, pc := range sh.t.PeerConns() {
			ap, err := netip.ParseAddrPort(pc.RemoteAddr.String())
			if err != nil || !s.inLAN(ap.Addr()) {
				continue
			}
			st := pc.Stats()
			n := Neighbour{Addr: ap.Addr().Unmap().WithZone(""), Sent: st.BytesWrittenData.Int64()}
			n.Complete = sh.isWhole(pc)
			list = append(list, n)
		}
	}
	return list
}

// Known lists the endpoints outside the LAN that trackers, the DHT or peers have
// named not long ago as peers of torrents that are not private.
func (s *Swarm) Known() []netip.AddrPort {
	return slices.DeleteFunc(s.met.list(time.Now()), func(ap netip.AddrPort) bool { return s.inLAN(ap.Addr()) })
}

// Part is the box's part in a torrent.
type Part struct {
	// Complete says that every file is here.
	Complete bool
	Private  bool
	// Known is how many peers outside the box was told of, in all torrents.
	Known int
}

// Part says how the box stands to a torrent with that infohash, a v2 one cut to 20
// bytes; false if it takes no part, or has given up.
func (s *Swarm) Part(infohash [20]byte) (Part, bool) {
	sh := s.having(infohash)
	if sh == nil {
		return Part{}, false
	}
	return Part{Complete: sh.stateNow() == StateComplete, Private: sh.private(), Known: len(s.Known())}, true
}

// having gives the torrent with an infohash in which the box takes part, or nil.
func (s *Swarm) having(infohash [20]byte) *share {
	for _, sh := range s.list() {
		if sh.stateNow() != StateFailed && slices.Contains(sh.shortInfohashes(), infohash) {
			return sh
		}
	}
	return nil
}

// Infohashes lists those of all torrents that are not private and in which the
// box takes part, v2 ones cut to 20 bytes.
func (s *Swarm) Infohashes() [][20]byte {
	var all [][20]byte
	for _, sh := range s.list() {
		if sh.stateNow() != StateFailed && !sh.private() {
			all = append(all, sh.shortInfohashes()...)
		}
	}
	return all
}

// private says whether the torrent belongs to its tracker (BEP 27), as far as is
// known.
func (sh *share) private() bool {
	l := sh.specNow().layout
	return l != nil && l.private
}

// acquaintances are peers that the box was told of. Safe for concurrent use.
type acquaintances struct {
	mu   sync.Mutex // guards what follows
	seen map[netip.AddrPort]time.Time
}

// acquaintancesLife is longer than the time between two announces, so that the
// peers of a torrent that is complete are remembered too.
const (
	maxAcquaintances  = 4096
	acquaintancesLife = latest + 30*time.Minute
)

func (a *acquaintances) add(now time.Time, peers ...netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ap := range peers {
		if _, known := a.seen[ap]; known || len(a.seen) < maxAcquaintances {
			a.seen[ap] = now
		}
	}
}

func (a *acquaintances) list(now time.Time) []netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]netip.AddrPort, 0, len(a.seen))
	for ap, at := range a.seen {
		if now.Sub(at) > acquaintancesLife {
			delete(a.seen, ap)
			continue
		}
		list = append(list, ap)
	}
	return list
}
