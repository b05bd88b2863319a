package main

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/cistern-edge/cistern/admin"
	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/cache/proxy"
	"github.com/cistern-edge/cistern/cache/steer"
	"github.com/cistern-edge/cistern/peering"
	"github.com/cistern-edge/cistern/peering/tracker"
)

// This file leads torrent clients of the LAN to the swarm.

// neighbours is the tracker and the router placement over one swarm; both are
// nil where there is none.
type neighbours struct {
	swarm   *peering.Swarm
	log     *slog.Logger
	wanted  chan wanted
	tracker *tracker.Server
	steer   *steer.Service
}

// wanted is a torrent that a client has announced or looked for, where it did so
// and whom it would have been told of.
type wanted struct {
	infohash [20]byte
	announce string
	peers    []netip.AddrPort
}

// newNeighbours builds them.
func newNeighbours(cfg config.Config, address string, swarm *peering.Swarm, server *proxy.Server, log *slog.Logger) (*neighbours, error) {
	n := &neighbours{swarm: swarm, log: log, wanted: make(chan wanted, 64)}
	if swarm == nil {
		return n, nil
	}
	var err error
	n.tracker, err = tracker.New(tracker.Config{
		Listen: cfg.Tracker.Listen, Clients: lanNetworks(cfg.Peering.LAN), Allow: cfg.Tracker.Hashes(), Peers: peerAddresses(cfg, address),
	}, log, n)
	if err != nil {
		return nil, err
	}
	n.steer, err = steer.New(steer.Config{
		Mode: steer.Mode(cfg.Steer.Mode), Interfaces: cfg.Steer.Interfaces, Web: cfg.Steer.Web, LAN: lanNetworks(cfg.Peering.LAN),
	}, log, n.tracker, n.tracker, swarmOutside{swarm}, server)
	return n, err
}

// Run works until ctx is done.
func (n *neighbours) Run(ctx context.Context) error {
	if n.swarm == nil {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- n.tracker.Run(ctx) }()
	go func() { ended <- n.steer.Run(ctx) }()
	var err error
	for left := 2; left > 0; {
		select {
		case w := <-n.wanted:
			n.join(ctx, w)
		case one := <-ended:
			err = errors.Join(err, one)
			left--
			cancel()
		}
	}
	return err
}

// join adds a torrent by its infohash, or tells the swarm more about it.
func (n *neighbours) join(ctx context.Context, w wanted) {
	magnet := "magnet:?xt=urn:btih:" + hex.EncodeToString(w.infohash[:])
	if w.announce != "" {
		magnet += "&tr=" + url.QueryEscape(w.announce)
	}
	for _, p := range w.peers {
		magnet += "&x.pe=" + p.String()
	}
	if _, err := n.swarm.Add(ctx, []byte(magnet)); err != nil && ctx.Err() == nil {
		n.log.Warn("failed to join an allowed torrent", "err", err)
	}
}

// Torrent implements tracker.Swarm, as do Infohashes and Join.
func (n *neighbours) Torrent(infohash [20]byte) (tracker.Torrent, bool) {
	part, ok := n.swarm.Part(infohash)
	return tracker.Torrent{Complete: part.Complete, Private: part.Private, Peers: part.Known}, ok
}

func (n *neighbours) Infohashes() [][20]byte { return n.swarm.Infohashes() }

func (n *neighbours) Join(infohash [20]byte, announce string, peers []netip.AddrPort) {
	select {
	case n.wanted <- wanted{infohash, announce, peers}:
	default: // the client asks again
	}
}

// Greet implements tracker.Swarm.
func (n *neighbours) Greet(infohash [20]byte, client netip.AddrPort, wants bool) {
	n.swarm.Greet(infohash, client, wants)
}

// stats are what the panel shows of each.
func (n *neighbours) stats() (tracker.Stats, steer.Stats) {
	if n.swarm == nil {
		return tracker.Stats{}, steer.Stats{}
	}
	return n.tracker.Stats(), n.steer.Stats()
}

// clients are the torrent clients of the LAN as the panel shows them: what they
// were told of, and the flows that the kernel tracks.
func (n *neighbours) clients() []admin.TorrentClient {
	told, led := n.stats()
	return clientsOf(told.Clients, led.Flows)
}

func clientsOf(told []tracker.ClientStats, flows []steer.ClientFlows) []admin.TorrentClient {
	list := make([]admin.TorrentClient, 0, len(told))
	at := map[netip.Addr]int{}
	for _, c := range told {
		at[c.Addr] = len(list)
		list = append(list, admin.TorrentClient{Address: c.Addr.String(), Answered: c.Answered, Avoided: c.Avoided})
	}
	for _, f := range flows {
		i, known := at[f.Addr]
		if !known {
			i = len(list)
			list = append(list, admin.TorrentClient{Address: f.Addr.String()})
		}
		list[i].FlowsNow, list[i].FlowsPeak = f.Now, f.Peak
	}
	return list
}

// swarmOutside is the swarm as the router placement sees it.
type swarmOutside struct{ swarm *peering.Swarm }

func (s swarmOutside) Outside() []netip.AddrPort { return s.swarm.Known() }

func (s swarmOutside) Inside() []steer.Peer {
	var list []steer.Peer
	for _, n := range s.swarm.Neighbours() {
		list = append(list, steer.Peer(n))
	}
	return list
}

// peerAddresses are where clients of the LAN reach the swarm: the addresses of
// the interfaces that are steered, or the one that is advertised.
func peerAddresses(cfg config.Config, address string) []netip.AddrPort {
	host, text, err := net.SplitHostPort(peerAddress(cfg))
	if err != nil {
		host, text = "", "6881"
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return nil // a port of the system's choice can only be found, not told
	}
	port := uint16(n)
	if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
		return []netip.AddrPort{netip.AddrPortFrom(a, port)}
	}
	var list []netip.AddrPort
	for _, name := range cfg.Steer.Interfaces {
		list = append(list, addressesOf(name, port)...)
	}
	if a, err := netip.ParseAddrPort(address); err == nil && len(list) == 0 {
		list = append(list, netip.AddrPortFrom(a.Addr(), port))
	}
	return list
}

func addressesOf(name string, port uint16) (list []netip.AddrPort) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil // steering says so
	}
	addrs, err := i.Addrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			list = append(list, netip.AddrPortFrom(p.Addr(), port))
		}
	}
	return list
}
