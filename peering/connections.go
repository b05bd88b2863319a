package peering

import (
	"cmp"
	"context"
	"encoding/hex"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
	"github.com/anacrolix/torrent/types/infohash"
)

// lanRoom is how many connections more than it has a torrent may get between
// two divisions, for peers on the LAN.
const lanRoom = 32

// While peers on the LAN bring lanEnough bytes a second, as measured over
// lanWindow, a torrent has one in lanFirst of its part of the connections to the
// outside; and none if one of them has all of it.
const (
	lanEnough = 1 << 20
	lanWindow = 2 * time.Second
	lanFirst  = 4
)

// nearby is what the LAN brings of a torrent. Only divide changes it.
type nearby struct {
	at     time.Time // when the window began
	got    int64     // bytes until then
	enough bool
	feeds  atomic.Bool // nothing outside is needed
}

// update takes in how much has come by the connections with the LAN there are, and
// whether one of these peers has everything.
func (n *nearby) update(now time.Time, got int64, whole bool) {
	switch {
	case n.at.IsZero() || now.Before(n.at) || got < n.got: // somebody has left
		n.at, n.got, n.enough = now, got, false
	case now.Sub(n.at) >= lanWindow:
		n.enough = float64(got-n.got)/now.Sub(n.at).Seconds() >= lanEnough
		n.at, n.got = now, got
	}
	n.feeds.Store(n.enough && whole)
}

// seedingShare is the part of the budget that complete torrents get together:
// one in seedingShare.
const seedingShare = 4

// rebalance asks for a new division of the budget.
func (s *Swarm) rebalance() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// divide shares the budget between the torrents: those that still need data
// get equal parts of it, complete ones a small part together. A torrent over
// its part loses its slowest connections while another waits for room.
func (s *Swarm) divide() {
	shares := s.list()
	needy := 0
	for _, sh := range shares {
		if sh.needsData() {
			needy++
		}
	}
	spare := max(1, s.cfg.MaxConnections/seedingShare)
	each := s.cfg.MaxConnections
	if needy > 0 {
		each = max(1, s.cfg.MaxConnections/needy)
	}
	_, taken, _ := s.budget.figures()
	asked := 0
	free := max(0, s.cfg.MaxConnections-taken)
	type claim struct {
		*share
		outside []*torrent.PeerConn
		lan     int
	}
	var claims []claim
	now := s.cfg.now()
	for _, sh := range shares {
		if sh.stateNow() != StateFailed {
			outside, lan := sh.conns()
			if sh.needsData() {
				asked += len(outside) + len(lan)
			}
			got, whole := sh.broughtBy(lan)
			sh.near.update(now, got, whole)
			claims = append(claims, claim{sh, outside, len(lan)})
		}
	}
	s.window.divide(asked)
	// Who has least is let go first.
	slices.SortFunc(claims, func(a, b claim) int { return cmp.Compare(len(a.outside), len(b.outside)) })
	for _, sh := range claims {
		part := each
		if !sh.needsData() {
			part = spare
		}
		held := len(sh.outside)
		switch {
		case !sh.isOpen(now):
			s.closeSlowest(sh.outside, held)
			part, held = 0, 0
		case sh.near.enough && sh.needsData(): // the LAN comes first
			part = max(1, part/lanFirst)
			if held > part {
				s.closeSlowest(sh.outside, held-part)
				held = part
			}
		case held > part && free == 0 && needy > 0:
			s.closeSlowest(sh.outside, held-part)
			held = part
		}
		room := min(free, max(0, part-held))
		if len(s.cfg.LAN) > 0 {
			room += lanRoom
		}
		sh.t.SetMaxEstablishedConns(held + sh.lan + room)
	}
}

// needsData says whether the torrent is to fetch something still.
func (sh *share) needsData() bool {
	state := sh.stateNow()
	return state == StateMetadata || state == StateFetching
}

// closeSlowest closes n connections that bring least.
func (s *Swarm) closeSlowest(conns []*torrent.PeerConn, n int) {
	rate := map[*torrent.PeerConn]float64{}
	for _, pc := range conns {
		rate[pc] = pc.Stats().DownloadRate
	}
	slices.SortFunc(conns, func(a, b *torrent.PeerConn) int { return cmp.Compare(rate[a], rate[b]) })
	for _, pc := range conns[:n] {
		_ = pc.Close()
	}
}

// looking lists the torrents that look for peers outside.
func (s *Swarm) looking() []*share {
	return slices.DeleteFunc(s.list(), func(sh *share) bool { return sh.made || !sh.needsData() })
}

// retry gives the torrents the peers that are due again. A private torrent
// (BEP 27) shares none with others.
func (s *Swarm) retry(now time.Time) {
	looking := s.looking()
	wants := func(sh *share) bool {
		spec := sh.specNow()
		public := spec.layout == nil || !spec.layout.private
		return slices.Contains(looking, sh) && (public || len(looking) == 1)
	}
	for ap, sh := range s.book.due(now, wants) {
		sh.t.AddPeers([]torrent.PeerInfo{{Addr: torrent.StringAddr(ap.String()), Source: torrent.PeerSourceDirect}})
	}
}

// handshaken learns for which torrent a connection to the outside is, and
// closes it if that torrent is for the LAN alone, now or at all. The client calls it without its lock.
func (s *Swarm) handshaken(pc *torrent.PeerConn, ih infohash.T) {
	conn := s.budget.conn(pc.RemoteAddr.String())
	if conn == nil {
		return
	}
	s.mu.Lock()
	sh := s.shares[hex.EncodeToString(ih[:])]
	s.mu.Unlock()
	if conn.of.Store(sh); sh != nil && !sh.isOpen(s.cfg.now()) {
		_ = conn.Close()
	}
}

// peerClosed notes a peer that has gone. The client calls it with its lock held,
// so the peer's figures are read later.
func (s *Swarm) peerClosed(p *torrent.Peer) {
	s.window.forget(p)
	if p.RemoteAddr == nil || p.Torrent() == nil {
		return
	}
	select {
	case s.parted <- p:
	default: // figures for people only
	}
}

// blame counts the pieces that a peer took part in and that failed.
func (s *Swarm) blame(p *torrent.Peer) {
	figures := p.Stats()
	if bad := figures.PiecesDirtiedBad.Int64(); bad > 0 {
		host, _, err := net.SplitHostPort(p.RemoteAddr.String())
		if err != nil {
			return
		}
		s.faults.add(host, bad)
		if t := p.Torrent(); t != nil {
			s.mu.Lock()
			sh := s.shares[t.InfoHash().HexString()]
			s.mu.Unlock()
			if sh != nil {
				sh.faults.add(host, bad)
			}
		}
	}
}

// readMessage gives a peer that brings something its window, and keeps from the
// client what it cannot stand: messages about hashes of a v2 torrent that has an
// empty file make it panic. The client calls it with its lock held, before it looks
// at the message.
func (s *Swarm) readMessage(pc *torrent.PeerConn, msg *pp.Message) {
	switch msg.Type {
	case pp.Unchoke, pp.Piece:
		pc.PeerMaxRequests = s.window.of(&pc.Peer)
		return
	case pp.HashRequest, pp.Hashes, pp.HashReject:
	default:
		return
	}
	if info := pc.Torrent().Info(); msg.Keepalive || info == nil || !info.HasV2() {
		return
	}
	for _, f := range pc.Torrent().Files() {
		if f.Length() == 0 {
			*msg = pp.Message{Keepalive: true}
			return
		}
	}
}

// quiet turns the client's log down: what it calls an error is a warning here,
// and everything else is for debugging.
type quiet struct{ slog.Handler }

func (s *Swarm) quietLog() *slog.Logger { return slog.New(&quiet{s.log.Handler()}) }

func lower(level slog.Level) slog.Level {
	if level >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (q *quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, lower(level))
}

func (q *quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q *quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quiet{q.Handler.WithAttrs(attrs)}
}

func (q *quiet) WithGroup(name string) slog.Handler { return &quiet{q.Handler.WithGroup(name)} }
