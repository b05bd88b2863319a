package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// Addresses of the stage. The documentation networks stand for the Internet;
// seeds have one of their own, so that counters can tell them from the origin.
const (
	originAddr  = "203.0.113.10"
	trackerAddr = "198.51.100.2"
	seedsFrom   = "198.51.100.101/24"
	swarmNet    = "198.51.100.0/24"
	routerAddr  = "10.0.0.1"
	boxAddr     = "10.0.0.2"
	agentsFrom  = "10.0.0.65/24"
	plainFrom   = "10.0.0.81/24"
)

// stage is the LAN, the world outside, and what both want.
type stage struct {
	lab    *lab.Lab
	dir    string
	world  *lab.Host
	router *lab.Router
	box    *lab.Host
	boxLAN *lab.Link
	agents []*lab.Host
	plain  []*lab.Host

	origin   *actors.Origin
	seeds    *actors.Seeds
	fileURL  string
	torrent  actors.Torrent
	fileSum  string
	size     int64
	counters linkCounters
}

// linkCounters count IP bytes: what the router passes on towards the LAN, and
// what the box sends to others than its agents.
type linkCounters struct {
	http, swarm *lab.IPCounter
	boxOthers   []*lab.IPCounter
}

// build makes the stage: content, network, origin, tracker and seeds.
func build(ctx context.Context, c *lanCommand, size int64, log *slog.Logger) (*stage, error) {
	dir, err := os.MkdirTemp("", "cistern-demo-")
	if err != nil {
		return nil, fmt.Errorf("make the demo's directory: %w", err)
	}
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		return nil, fmt.Errorf("make the demo's directory: %w", err)
	}
	l, err := lab.New(lab.Config{Dir: logs}, log)
	if err != nil {
		return nil, err
	}
	s := &stage{lab: l, dir: dir, size: size}
	if err := s.connect(ctx, c); err != nil {
		return s, err
	}
	if err := s.count(); err != nil {
		return s, err
	}
	return s, s.populate(ctx, c)
}

// connect builds the network.
func (s *stage) connect(ctx context.Context, c *lanCommand) error {
	wan := s.lab.Switch("wan", lab.SwitchConfig{})
	lan := s.lab.Switch("lan", lab.SwitchConfig{Gateways: []string{routerAddr}, Snooping: true, Querier: true})

	s.world = s.lab.Host("world")
	addrs := []string{originAddr + "/24", trackerAddr + "/24"}
	s.world.Join(wan, lab.LinkConfig{Addrs: append(addrs, lab.Addrs(seedsFrom, c.Seeds)...)})

	s.router = s.lab.Router("router")
	s.router.Masquerade(s.router.Join(wan, lab.LinkConfig{
		Addrs:    []string{"203.0.113.1/24", "198.51.100.1/24"},
		ToHost:   lab.Path{Rate: lab.Bitrate(c.Down) * lab.Mbit},
		FromHost: lab.Path{Rate: lab.Bitrate(c.Up) * lab.Mbit},
	}))
	s.router.Join(lan, lab.LinkConfig{Addrs: []string{routerAddr + "/24"}})

	s.box = s.lab.Host("box")
	s.boxLAN = s.box.Join(lan, lab.LinkConfig{Addrs: []string{boxAddr + "/24"}})
	loss := lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: c.Loss}}
	for i, a := range lab.Addrs(agentsFrom, c.Agents) {
		h := s.lab.Host(fmt.Sprintf("agent%d", i+1))
		h.Join(lan, lab.LinkConfig{Addrs: []string{a}, ToHost: loss})
		s.agents = append(s.agents, h)
	}
	for i, a := range lab.Addrs(plainFrom, c.Plain) {
		h := s.lab.Host(fmt.Sprintf("plain%d", i+1))
		h.Join(lan, lab.LinkConfig{Addrs: []string{a}})
		s.plain = append(s.plain, h)
	}
	return s.lab.Up(ctx)
}

// count sets up the counters.
func (s *stage) count() (err error) {
	towardsLAN := func(src string) *lab.IPCounter {
		if err != nil {
			return nil
		}
		var n *lab.IPCounter
		n, err = s.router.CountIP(lab.Forward, lab.Filter{Src: netip.MustParsePrefix(src)})
		return n
	}
	s.counters.http = towardsLAN(originAddr + "/32")
	s.counters.swarm = towardsLAN(swarmNet)
	// Where it arrives, for the box's own hooks see segments before they are cut
	// into packets.
	for _, h := range append([]*lab.Host{s.router.Host}, s.plain...) {
		if err != nil {
			return err
		}
		var n *lab.IPCounter
		n, err = h.CountIP(lab.Prerouting, lab.Filter{Src: netip.MustParsePrefix(boxAddr + "/32")})
		s.counters.boxOthers = append(s.counters.boxOthers, n)
	}
	return err
}

// populate starts the origin, the tracker and the seeds.
func (s *stage) populate(ctx context.Context, c *lanCommand) error {
	files, swarm := filepath.Join(s.dir, "origin"), filepath.Join(s.dir, "swarm")
	var err error
	if s.fileSum, err = actors.WriteContent(filepath.Join(files, "release.img"), s.size, 1); err != nil {
		return err
	}
	s.fileURL = "http://" + originAddr + "/release.img"
	l, err := s.world.Listen("tcp", originAddr+":80")
	if err != nil {
		return fmt.Errorf("start the origin: %w", err)
	}
	s.origin = actors.NewOrigin(files)
	s.origin.Start(l)

	tracker := trackerAddr + ":6969"
	if _, err := actors.WriteContent(filepath.Join(swarm, "release.iso"), s.size, 2); err != nil {
		return err
	}
	s.torrent, err = actors.MakeTorrent(filepath.Join(swarm, "release.iso"), s.dir, "http://"+tracker+"/announce")
	if err != nil {
		return err
	}
	if err := actors.StartTracker(ctx, s.world, trackerAddr, filepath.Join(s.dir, "tracker"), s.torrent.Hybrid.Infohash, s.torrent.V1.Infohash); err != nil {
		return err
	}
	var from []string
	for _, a := range lab.Addrs(seedsFrom, c.Seeds) {
		from = append(from, netip.MustParsePrefix(a).Addr().String())
	}
	s.seeds, err = actors.StartSeeds(ctx, s.world, from, []string{s.torrent.Hybrid.Path, s.torrent.V1.Path}, swarm, c.SeedRate)
	if err != nil {
		return err
	}
	for _, t := range []actors.TorrentFile{s.torrent.Hybrid, s.torrent.V1} {
		if err := s.seeds.WaitAnnounced(ctx, tracker, t.Infohash); err != nil {
			return err
		}
	}
	return nil
}

// hosts are all that want both files.
func (s *stage) hosts() []*lab.Host { return append(append([]*lab.Host(nil), s.agents...), s.plain...) }

// outsidePeer says whether a flow is an established connection of the box to a
// peer outside.
func outsidePeer(f lab.Flow) bool {
	inside, outside := netip.MustParseAddr(boxAddr), netip.MustParsePrefix(swarmNet)
	return f.Protocol == unix.IPPROTO_TCP && f.Established && f.Src.Addr() == inside &&
		outside.Contains(f.Dst.Addr()) && f.Dst.Port() != 6969
}

// close takes the stage down and removes its files.
func (s *stage) close() error {
	if s == nil {
		return nil
	}
	if s.origin != nil {
		_ = s.origin.Close()
	}
	err := s.lab.Close()
	if rmErr := os.RemoveAll(s.dir); err == nil {
		err = rmErr
	}
	return err
}
