package peering

import (
	"context"
	"net/netip"
	"time"

	"github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// contact tells the client where others are. A torrent that the box made has
// nobody outside to contact.
func (sh *share) contact(spec *Spec) {
	if sh.made {
		return
	}
	sh.announceTo(spec.Trackers)
	sh.addWebSeeds(spec.WebSeeds)
	sh.addMirrors(spec.mirrors)
	sh.meet(spec.Peers, torrent.PeerSourceDirect)
}

// meet takes in peers that the box was told of.
func (sh *share) meet(named []netip.AddrPort, source torrent.PeerSource) {
	var peers []torrent.PeerInfo
	var addrs []netip.AddrPort
	for _, ap := range named {
		if ap.Port() == 0 {
			continue
		}
		ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		addrs = append(addrs, ap)
		peers = append(peers, torrent.PeerInfo{Addr: torrent.StringAddr(ap.String()), Source: source})
	}
	if !sh.private() {
		sh.swarm.met.add(time.Now(), addrs...)
	}
	if sh.needsData() {
		sh.t.AddPeers(peers)
	}
}

// Lookups in the DHT: how long one may take, and how long until the next.
const (
	lookupTime  = time.Minute
	lookupEvery = 5 * time.Minute
)

// announceDHT looks for peers in the DHT now and then, also for a torrent that is
// complete: whom its clients could find there the box should know.
func (sh *share) announceDHT() {
	for !sh.private() {
		for _, infohash := range sh.shortInfohashes() {
			if err := sh.lookUp(infohash); err != nil {
				sh.swarm.log.Debug("failed to look up in the DHT", "title", sh.title(), "err", err)
			}
		}
		if !sh.pause(lookupEvery) {
			return
		}
	}
}

// lookUp asks the DHT once who has a torrent, and says that the box is there if
// the outside may have it.
func (sh *share) lookUp(infohash [20]byte) error {
	var opts []dht.AnnounceOpt
	if sh.isOpen(sh.swarm.cfg.now()) {
		opts = append(opts, dht.AnnouncePeer(dht.AnnouncePeerOpts{Port: int(sh.swarm.net.addr.Port()), ImpliedPort: true}))
	}
	ctx, cancel := context.WithTimeout(sh.ctx, lookupTime)
	defer cancel()
	lookup, err := sh.swarm.net.dht.AnnounceTraversal(infohash, opts...)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, lookup.Close)()
	for answer := range lookup.Peers {
		sh.meet(endpoints(answer.Peers), torrent.PeerSourceDhtGetPeers)
	}
	return nil
}

// endpoints are those of peers in the DHT's form that have a port.
func endpoints(named []krpc.NodeAddr) (list []netip.AddrPort) {
	for _, n := range named {
		if a, ok := netip.AddrFromSlice(n.IP); ok && n.Port > 0 && n.Port < 1<<16 {
			list = append(list, netip.AddrPortFrom(a.Unmap(), uint16(n.Port)))
		}
	}
	return list
}

// pause waits; it returns false if the share is over.
func (sh *share) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-sh.ctx.Done():
		return false
	}
}

// conns gives the connections to the outside and to the LAN.
func (sh *share) conns() (outside, lan []*torrent.PeerConn) {
	for _, pc := range sh.t.PeerConns() {
		if sh.swarm.onLAN(pc.RemoteAddr.String()) {
			lan = append(lan, pc)
			continue
		}
		outside = append(outside, pc)
	}
	return outside, lan
}

// broughtBy says how many bytes have come by connections, and whether one of the
// peers has everything.
func (sh *share) broughtBy(conns []*torrent.PeerConn) (got int64, whole bool) {
	for _, pc := range conns {
		st := pc.Stats()
		got += st.BytesReadUsefulData.Int64()
		whole = whole || sh.isWhole(pc)
	}
	return got, whole
}

// isWhole says whether a peer has all of the torrent.
func (sh *share) isWhole(pc *torrent.PeerConn) bool {
	return sh.t.Info() != nil && pc.PeerPieces().GetCardinality() == uint64(sh.t.NumPieces())
}

// readExtended takes in whom a peer has named (BEP 11): the client does not say
// what it knows. It calls this with its lock held.
func (s *Swarm) readExtended(e torrent.PeerConnReadExtensionMessageEvent) {
	name, _, err := e.PeerConn.LocalLtepProtocolMap.LookupId(e.ExtensionNumber)
	if err != nil || name != pp.ExtensionNamePex {
		return
	}
	if info := e.PeerConn.Torrent().Info(); info == nil || info.Private != nil && *info.Private {
		return
	}
	s.met.add(time.Now(), namedBy(e.Payload)...)
}

// namedBy gives the peers that a message names (BEP 11); none if it is faulty,
// then the client closes the connection.
func namedBy(message []byte) []netip.AddrPort {
	named, err := pp.LoadPexMsg(message)
	if err != nil {
		return nil
	}
	return append(endpoints(named.Added), endpoints(named.Added6)...)
}

// greeted keeps from peers on the LAN the names of those outside: they are to
// have the box instead. It notes how many requests a peer takes. The client calls it
// before it takes the message in.
func (s *Swarm) greeted(pc *torrent.PeerConn, msg *pp.ExtendedHandshakeMessage) {
	if _, made := s.forLAN.Load(pc.Torrent()); !made && s.onLAN(pc.RemoteAddr.String()) {
		delete(msg.M, pp.ExtensionNamePex)
	}
	s.window.heard(&pc.Peer, msg.Reqq)
	if msg.Reqq > 0 {
		msg.Reqq = s.window.of(&pc.Peer)
	}
}
