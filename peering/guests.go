package peering

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
)

// guests are clients of the LAN that have announced a torrent and want data of it.
// The box connects to them: at once, by TCP, for over uTP a LAN full of clients took
// three times as long and lost connections; and again when a connection is lost, for
// some clients do not come back themselves for hours. Safe for concurrent use.
type guests struct {
	mu   sync.Mutex // guards what follows
	seen map[netip.AddrPort]*guest
}

type guest struct {
	heard time.Time
	due   time.Time // when it is dialled if it is not connected
	tries int
}

// A guest is forgotten when it has not announced itself for guestLife, which is
// more than two announces; between two dials lies guestWait, each time twice as
// long up to guestWait<<maxGuestTries.
const (
	maxGuests     = 1024 // of one torrent
	guestLife     = 10 * time.Minute
	guestWait     = 10 * time.Second
	maxGuestTries = 5
)

// heard takes a client in, to be dialled at once, or lets it go if it wants nothing
// more. It says whether the client is new.
func (g *guests) heard(now time.Time, client netip.AddrPort, wants bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.seen[client]
	switch {
	case !wants:
		delete(g.seen, client)
		return false
	case known != nil:
		known.heard = now
		return false
	case len(g.seen) >= maxGuests:
		return false
	}
	if g.seen == nil {
		g.seen = map[netip.AddrPort]*guest{}
	}
	g.seen[client] = &guest{heard: now, due: now}
	return true
}

// wants says whether somebody on a host wants data.
func (g *guests) wants(host netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for client := range g.seen {
		if client.Addr() == host {
			return true
		}
	}
	return false
}

// missed lists who is to be dialled now: guests on hosts that the torrent has no
// connection with, which connected lists.
func (g *guests) missed(now time.Time, connected func() map[netip.Addr]bool) (list []netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for client, is := range g.seen {
		switch {
		case now.Sub(is.heard) > guestLife:
			delete(g.seen, client)
		case !now.Before(is.due):
			list = append(list, client)
		}
	}
	if len(list) == 0 {
		return nil
	}
	hosts := connected()
	return slices.DeleteFunc(list, func(client netip.AddrPort) bool {
		is := g.seen[client]
		if hosts[client.Addr()] {
			is.tries, is.due = 0, now.Add(guestWait)
			return true
		}
		is.due = now.Add(guestWait << is.tries)
		is.tries = min(is.tries+1, maxGuestTries)
		return false
	})
}

// firsts are hosts of the LAN that the box is about to reach by TCP: they are not let
// in by uTP meanwhile. Safe for concurrent use.
type firsts struct {
	mu sync.Mutex // guards what follows
	at map[netip.Addr]time.Time
}

// tcpFirst is shorter than the 3 s after which clients ask once more (libutp and
// libtorrent both), so whoever cannot be reached by TCP loses no more than these.
const tcpFirst = 2500 * time.Millisecond

func (f *firsts) begin(now time.Time, host netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil || len(f.at) >= maxGuests {
		f.at = map[netip.Addr]time.Time{}
	}
	f.at[host] = now
}

func (f *firsts) end(host netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.at, host)
}

func (f *firsts) pending(now time.Time, host netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.at[host]
	return ok && now.Sub(at) < tcpFirst
}

// refuses says whether a host that asks for a uTP connection gets none now.
func (s *Swarm) refuses(from net.Addr) bool {
	ap, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return true
	}
	if s.inLAN(ap.Addr()) {
		return s.firsts.pending(s.cfg.now(), ap.Addr().Unmap().WithZone(""))
	}
	return s.budget.full()
}

// lull is how long a uTP connection with a guest has brought it nothing.
type lull struct {
	sent  int64
	since time.Time
}

// maxLull is when such a connection is given up, while all that the guest can want
// is here: it may have lost a packet that neither side sends again. The next one is
// by TCP.
const maxLull = 20 * time.Second

// closeLulled closes the uTP connections of guests that have come to a halt. Only
// the Swarm's loop calls it.
func (sh *share) closeLulled(now time.Time) {
	before := sh.lulls
	sh.lulls = map[*torrent.PeerConn]lull{}
	if sh.stateNow() != StateComplete {
		return
	}
	for _, pc := range sh.t.PeerConns() {
		ap, err := netip.ParseAddrPort(pc.RemoteAddr.String())
		if err != nil || !strings.Contains(pc.Network, "udp") || !sh.guests.wants(ap.Addr().Unmap().WithZone("")) {
			continue
		}
		st := pc.Stats()
		is, sent := before[pc], st.BytesWrittenData.Int64()
		if is.since.IsZero() || sent != is.sent {
			is = lull{sent, now}
		}
		if now.Sub(is.since) >= maxLull {
			sh.swarm.log.Debug("closed a uTP connection that had come to a halt", "title", sh.title(), "client", ap.Addr().String())
			_ = pc.Close()
			continue
		}
		sh.lulls[pc] = is
	}
}

// Greet tells the swarm that a client of the LAN has announced a torrent, and
// whether it wants data of it. It is nothing to the swarm if the box takes no part
// in the torrent, or the address is none to dial. It returns at once.
func (s *Swarm) Greet(infohash [20]byte, client netip.AddrPort, wants bool) {
	client = netip.AddrPortFrom(client.Addr().Unmap().WithZone(""), client.Port())
	sh := s.having(infohash)
	if sh == nil || client.Port() < 1024 || !s.inLAN(client.Addr()) {
		return
	}
	if sh.guests.heard(s.cfg.now(), client, wants) {
		s.firsts.begin(s.cfg.now(), client.Addr())
		s.rebalance() // soon
	}
}

// invite dials the guests whose connection was lost, or never came to be.
func (sh *share) invite(now time.Time) {
	var peers []torrent.PeerInfo
	for _, ap := range sh.guests.missed(now, sh.hosts) {
		peers = append(peers, torrent.PeerInfo{Addr: torrent.StringAddr(ap.String()), Source: torrent.PeerSourceTracker})
	}
	if len(peers) > 0 {
		sh.t.AddPeers(peers)
	}
}

// hosts lists those that the torrent has connections with.
func (sh *share) hosts() map[netip.Addr]bool {
	list := map[netip.Addr]bool{}
	for _, pc := range sh.t.PeerConns() {
		if ap, err := netip.ParseAddrPort(pc.RemoteAddr.String()); err == nil {
			list[ap.Addr().Unmap().WithZone("")] = true
		}
	}
	return list
}
