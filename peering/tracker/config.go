package tracker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Config says who is answered about what.
type Config struct {
	// Listen are the addresses, as "host:port", for HTTP and UDP. Empty: none; the
	// Server answers what is handed to it.
	Listen []string
	// Clients are the networks whose hosts are answered. Empty: nobody is.
	Clients []netip.Prefix
	// Peers is where clients find the box's BitTorrent listener, TCP and uTP: the
	// first of each family counts.
	Peers []netip.AddrPort
	// Allow names torrents that the box joins as soon as a client announces them,
	// beside those that it has anyway. v2 infohashes are cut to 20 bytes (BEP 52).
	Allow [][20]byte
	// Interval is when clients are to announce again; 0 means 2 minutes. It is
	// short because announces on the LAN cost nothing and a client should soon find
	// its own tracker again once the box is gone.
	Interval time.Duration
	// Rate bounds the answers to one client, per second; 0 means 20.
	Rate float64
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	for i, l := range c.Listen {
		if _, _, err := net.SplitHostPort(l); err != nil {
			faults = append(faults, fmt.Errorf("tracker.listen[%d]: %q is not host:port", i, l))
		}
	}
	for i, p := range c.Clients {
		if !p.IsValid() {
			faults = append(faults, fmt.Errorf("tracker.clients[%d]: is no network", i))
		}
	}
	for i, p := range c.Peers {
		if !p.IsValid() || p.Port() == 0 || p.Addr().IsUnspecified() {
			faults = append(faults, fmt.Errorf("tracker.peers[%d]: %v is no address that peers can connect to", i, p))
		}
	}
	if c.Interval < 0 || c.Interval > 24*time.Hour {
		faults = append(faults, fmt.Errorf("tracker.interval: %v is not between 0 and 24h", c.Interval))
	}
	if c.Rate < 0 {
		faults = append(faults, errors.New("tracker.rate: is negative"))
	}
	return errors.Join(faults...)
}
