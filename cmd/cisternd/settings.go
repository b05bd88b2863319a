package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cistern-edge/cistern/admin"
	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/index"
	"github.com/cistern-edge/cistern/cache/origin"
	"github.com/cistern-edge/cistern/cache/proxy"
	"github.com/cistern-edge/cistern/multicast"
	"github.com/cistern-edge/cistern/peering"
)

// This file hands each part its section of the configuration.

func proxyConfig(cfg config.Proxy, dir string, uplink *origin.Uplink, desk http.Handler, certificate tls.Certificate) proxy.Config {
	out := proxy.Config{
		Listen: cfg.Listen, Address: cfg.Advertise, Names: cfg.Names, Dial: uplink.DialContext, Offline: uplink.Down, Secure: desk, CompleteRanges: cfg.CompleteRanges,
		AccessLog: cfg.AccessLog, Surrogate: cfg.Surrogate,
		Dir: dir,
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
	}
	for _, p := range cfg.Clients {
		out.Clients = append(out.Clients, p.String())
	}
	return out
}

// storeConfig has an appliance come up whatever its disk is like: nobody there has
// a shell to make room.
func storeConfig(cfg config.Store, appliance string) cache.Config {
	out := cfg.Cache()
	if appliance != "" {
		out.Spare = filepath.Join(os.TempDir(), "cistern-spare")
	}
	return out
}

func originConfig(cfg config.Config, uplink *origin.Uplink) origin.Config {
	return origin.Config{
		Dial: uplink.DialContext, Uplink: uplink, MaxConns: cfg.Origin.MaxConnections, MaxConnsPerHost: cfg.Origin.MaxConnectionsPerHost,
		MaxWaiting: cfg.Origin.MaxWaiting, MaxWait: time.Duration(cfg.Origin.MaxWait), Pace: pacer(cfg.WAN),
		IsLAN: isLAN,
	}
}

// isLAN reports whether the way to an address is not the uplink.
func isLAN(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() }

// pacer caps the uplink by the hour; nil if it is never capped.
func pacer(cfg config.WAN) *origin.Pacer {
	capped := cfg.Rate > 0
	for _, h := range cfg.Hours {
		capped = capped || h.Rate > 0
	}
	if !capped {
		return nil
	}
	return origin.NewPacer(func(now time.Time) int64 {
		for _, h := range cfg.Hours {
			if (origin.Hours{From: time.Duration(h.From), To: time.Duration(h.To)}).Contains(now) {
				return int64(h.Rate) / 8
			}
		}
		return int64(cfg.Rate) / 8
	})
}

func swarmConfig(cfg config.Config, address string, web http.RoundTripper) peering.Config {
	out := peering.Config{
		Dir: filepath.Join(cfg.Store.Dir, "torrents"), Listen: peerAddress(cfg),
		MaxConnections: cfg.Peering.MaxConnections, UploadRate: uploadRate(cfg.Peering.Upload),
		LAN: lanNetworks(cfg.Peering.LAN), DHT: cfg.Peering.DHT, LocalDiscovery: cfg.Peering.Discovery != "",
		LocalDiscoveryInterface: cfg.Peering.Discovery, BoxURL: "http://" + address, Web: web,
		LANUploadRate: int64(cfg.Peering.LANUpload) / 8, SeedRatio: float64(cfg.Peering.SeedRatio),
		SeedTime: time.Duration(cfg.Peering.SeedTime), Watch: cfg.Peering.Watch,
	}
	for _, h := range cfg.Peering.Hours {
		hours := peering.Hours{Hours: origin.Hours{From: time.Duration(h.From), To: time.Duration(h.To)}}
		if !h.Pause {
			hours.UploadRate = uploadRate(h.Upload)
		}
		out.Hours = append(out.Hours, hours)
	}
	for _, m := range cfg.Peering.Mirrors {
		out.Mirrors = append(out.Mirrors, peering.Mirrors{Match: m.Match, URL: m.URL})
	}
	for _, f := range cfg.Peering.Feeds {
		out.Feeds = append(out.Feeds, peering.Feed{URL: f.URL, Match: f.Match, MaxBytes: int64(f.MaxSize), Every: time.Duration(f.Every)})
	}
	return out
}

// peerAddress is where peers connect: where clients do, unless it is named.
func peerAddress(cfg config.Config) string {
	host, _, err := net.SplitHostPort(cfg.Proxy.Listen)
	if cfg.Peering.Listen != "" || err != nil {
		return cfg.Peering.Listen
	}
	return net.JoinHostPort(host, "6881")
}

// uploadRate turns bits a second with 0 for "no bound" into what peering takes.
func uploadRate(rate config.Rate) int64 {
	if rate == 0 {
		return -1
	}
	return int64(rate) / 8
}

// lanNetworks are the networks named, or the private ones.
func lanNetworks(named []netip.Prefix) []netip.Prefix {
	if len(named) > 0 {
		return named
	}
	var private []netip.Prefix
	for _, s := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10"} {
		private = append(private, netip.MustParsePrefix(s))
	}
	return private
}

func casterConfig(cfg config.Multicast) multicast.CasterConfig {
	return multicast.CasterConfig{
		Interfaces: cfg.Interfaces, Mode: multicast.Mode(cfg.Mode), Groups: cfg.GroupRange(),
		Port: uint16(cfg.Port), TTL: cfg.TTL, Rate: int64(cfg.Rate),
	}
}

func deskConfig(cfg config.Multicast) multicast.DeskConfig {
	return multicast.DeskConfig{MinSize: int64(cfg.MinSize), MinAgents: cfg.MinAgents}
}

func adminConfig(cfg config.Config) admin.Config {
	return admin.Config{
		Listen: cfg.Admin.Listen, DataDir: cfg.Store.Dir, Names: cfg.Admin.Names, Session: time.Duration(cfg.Admin.Session),
		MetricsOpen: cfg.Admin.MetricsOpen, Proxy: cmp.Or(cfg.Proxy.Advertise, cfg.Proxy.Listen), Version: version,
	}
}

// destinations opens what the configuration opens.
func destinations(named []config.Destination) ([]origin.Destination, error) {
	var open []origin.Destination
	var faults []error
	for i, d := range named {
		o, err := origin.ParseDestination(d.String())
		if err != nil {
			faults = append(faults, fmt.Errorf("proxy.allow_destinations[%d]: %w", i, err))
		}
		open = append(open, o)
	}
	return open, errors.Join(faults...)
}

// advertised is the host:port under which the LAN reaches the proxy, where no
// client's connection says it: the configured one, that of the listener, or the
// first address of this machine that is not loopback.
func advertised(cfg config.Proxy) string {
	if cfg.Advertise != "" {
		return cfg.Advertise
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return cfg.Listen
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return cfg.Listen // an address, or localhost
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return net.JoinHostPort("127.0.0.1", port)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() {
			return net.JoinHostPort(p.Addr().String(), port)
		}
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// advise adds to an error of the data directory what to do about it, if its disk
// is to blame.
func advise(dir string, err error) error {
	var todo string
	switch err := disk.Classify(err); {
	case errors.Is(err, disk.ErrFull), errors.Is(err, index.ErrFull):
		todo = "make room on its disk"
	case errors.Is(err, disk.ErrReadOnly), errors.Is(err, index.ErrReadOnly):
		todo = "its disk is read-only: check it (dmesg, fsck) and mount it for writing"
	case errors.Is(err, disk.ErrGone):
		todo = "its disk does not answer: replace it, or name a directory on another one (store.dir, --data)"
	default:
		return err
	}
	return fmt.Errorf("the data directory %s cannot be used; %s, then start the box again (%w)", dir, todo, err)
}
