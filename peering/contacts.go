package peering

import (
	"time"

	"github.com/anacrolix/torrent"
)

// contact tells the client where others are. A torrent that the box made has
// nobody outside to contact.
func (sh *share) contact(spec *Spec) {
	if sh.made {
		return
	}
	sh.announceTo(spec.Trackers)
	sh.addWebSeeds(spec.WebSeeds)
	var peers []torrent.PeerInfo
	for _, p := range spec.Peers {
		peers = append(peers, torrent.PeerInfo{Addr: torrent.StringAddr(p.String()), Source: torrent.PeerSourceDirect})
	}
	sh.t.AddPeers(peers)
}

// announceDHT looks for peers in the DHT now and then.
func (sh *share) announceDHT() {
	for {
		if info := sh.t.Info(); info != nil && info.Private != nil && *info.Private {
			return
		}
		for _, server := range sh.swarm.client.DhtServers() {
			_, stop, err := sh.t.AnnounceToDht(server)
			if err != nil {
				sh.swarm.log.Debug("failed to announce to the DHT", "title", sh.title(), "err", err)
				continue
			}
			sh.pause(time.Minute)
			stop()
		}
		if !sh.pause(5 * time.Minute) {
			return
		}
	}
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

// conns gives the connections to the outside, how many there are to the LAN, and
// how much those bring in bytes a second.
func (sh *share) conns() (outside []*torrent.PeerConn, lan int, rate float64) {
	for _, pc := range sh.t.PeerConns() {
		if sh.swarm.onLAN(pc.RemoteAddr.String()) {
			lan++
			rate += pc.Stats().DownloadRate
			continue
		}
		outside = append(outside, pc)
	}
	return outside, lan, rate
}
