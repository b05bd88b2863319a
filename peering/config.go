package peering

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// Config says how the box takes part in swarms.
type Config struct {
	// Dir keeps torrents and piece hashes between runs. It is made if it is not
	// there.
	Dir string
	// Listen is the address for TCP and uTP, as "host:port"; empty means
	// ":6881", and port 0 a free one.
	Listen string
	// MaxConnections bounds the connections to peers outside the LAN over all
	// torrents, half-open ones included; 0 means 20.
	MaxConnections int
	// MaxHalfOpen bounds the connections being opened; 0 means 8.
	MaxHalfOpen int
	// LAN lists the networks whose peers count as inside: neither bounded nor
	// slowed down. Empty means none.
	LAN []netip.Prefix
	// UploadRate bounds what all peers outside get, in bytes per second; 0
	// means 512 KiB/s, a negative value no bound.
	UploadRate int64
	// Hours are parts of the day with an upload rate of their own; the first that
	// matches counts.
	Hours []Hours
	// LANUploadRate bounds what peers on the LAN get; 0 means no bound.
	LANUploadRate int64
	// SeedRatio ends the seeding of a torrent to the outside when that has got so
	// many times its size; 0 means no end.
	SeedRatio float64
	// SeedTime ends it so long after the torrent was added; 0 means no end. The LAN
	// is served on.
	SeedTime time.Duration
	// Watch is a folder whose .torrent files are added; empty means none.
	Watch string
	// Feeds are lists of torrents to follow.
	Feeds []Feed
	// Mirrors have files of torrents, beside those that the torrents name.
	Mirrors []Mirrors
	// DHT joins the distributed hash table (BEP 5). Off by default.
	DHT bool
	// LocalDiscovery announces torrents on the LAN and listens for others
	// (BEP 14). Off by default.
	LocalDiscovery bool
	// LocalDiscoveryInterface is the interface for it; empty leaves the choice
	// to the system.
	LocalDiscoveryInterface string
	// BoxURL is how LAN hosts reach the box by HTTP, such as
	// "http://10.0.0.2:3142"; torrents that the box makes name it as their web
	// seed (BEP 19). Empty means no web seed.
	BoxURL string
	// Trackers are named in torrents that the box makes, and nowhere else.
	Trackers []string
	// Web carries requests to mirrors, web seeds, feeds and .torrent files, with
	// the bounds on the uplink: origin.Mirrors in the box. nil: requests go through
	// the swarm's dialer, as fast as they can.
	Web http.RoundTripper
	// MaxTorrents bounds how many torrents are taken on; 0 means 1000.
	MaxTorrents int
	// MaxFiles bounds the files of one torrent; 0 means 1000.
	MaxFiles int
	// MaxBytes bounds the size of one torrent; 0 means 1 TiB.
	MaxBytes int64

	tick       time.Duration // between looks at everything
	retryAfter time.Duration // before a peer that failed is tried again
	watchEvery time.Duration // between looks at the watched folder
	stealGrace time.Duration // that a peer has to answer a request before another one is asked
	now        func() time.Time
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("peering.dir: no directory named"))
	}
	if c.Listen != "" {
		if err := checkHostPort(c.Listen); err != nil {
			faults = append(faults, fmt.Errorf("peering.listen: %w", err))
		}
	}
	for key, n := range map[string]int64{
		"max_connections": int64(c.MaxConnections), "max_half_open": int64(c.MaxHalfOpen),
		"max_torrents": int64(c.MaxTorrents), "max_files": int64(c.MaxFiles), "max_bytes": c.MaxBytes,
		"lan_upload_rate": c.LANUploadRate, "seed_time": int64(c.SeedTime),
	} {
		if n < 0 {
			faults = append(faults, fmt.Errorf("peering.%s: %d is negative", key, n))
		}
	}
	if c.SeedRatio < 0 {
		faults = append(faults, fmt.Errorf("peering.seed_ratio: %v is negative", c.SeedRatio))
	}
	for i, f := range c.Feeds {
		if err := f.validate(); err != nil {
			faults = append(faults, fmt.Errorf("peering.feed[%d]: %w", i, err))
		}
	}
	for i, m := range c.Mirrors {
		if err := m.validate(); err != nil {
			faults = append(faults, fmt.Errorf("peering.mirror[%d]: %w", i, err))
		}
	}
	for _, p := range c.LAN {
		if !p.IsValid() {
			faults = append(faults, errors.New("peering.lan: has a network that is not valid"))
		}
	}
	if c.BoxURL != "" {
		if err := checkURL(c.BoxURL, "http", "https"); err != nil {
			faults = append(faults, fmt.Errorf("peering.box_url: %w", err))
		}
	}
	for _, tr := range c.Trackers {
		if err := checkURL(tr, "http", "https", "udp"); err != nil {
			faults = append(faults, fmt.Errorf("peering.trackers: %w", err))
		}
	}
	return errors.Join(faults...)
}

// stealGrace keeps requests where they are: the seeds of a swarm were asked for up
// to 1.04 times the content without it, and for 1.00 times with it.
const stealGrace = 8 * time.Second

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = ":6881"
	}
	c.MaxConnections = orDefault(c.MaxConnections, 20)
	c.MaxHalfOpen = orDefault(c.MaxHalfOpen, 8)
	c.MaxTorrents = orDefault(c.MaxTorrents, 1000)
	c.MaxFiles = orDefault(c.MaxFiles, 1000)
	c.MaxBytes = orDefault(c.MaxBytes, 1<<40)
	c.UploadRate = orDefault(c.UploadRate, 512<<10)
	c.tick = orDefault(c.tick, time.Second)
	c.retryAfter = orDefault(c.retryAfter, 30*time.Second)
	c.watchEvery = orDefault(c.watchEvery, watchEvery)
	c.stealGrace = orDefault(c.stealGrace, stealGrace)
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

func orDefault[T comparable](value, instead T) T {
	var zero T
	if value == zero {
		return instead
	}
	return value
}

func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

func checkURL(text string, schemes ...string) error {
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%q is not a URL", clip(text))
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme && u.Host != "" {
			return nil
		}
	}
	return fmt.Errorf("%q is not a URL with one of the schemes %v", clip(text), schemes)
}

// clip keeps foreign text in messages short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
