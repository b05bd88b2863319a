// Package proxy is the HTTP side of the box: the forward proxy, CONNECT, the
// explicit addresses /get/ and /o/, and the PAC file, all on one listener.
//
// It decides nothing about caching (cache/httpcache does), keeps no bytes
// (cache does) and makes no connection of its own but through Config.Dial. It
// refuses clients outside the configured networks, and never looks into TLS.
// Start reading at [Server.ServeHTTP], then resolve.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/origin"
)

// Upstream is the way in: origin.Mirrors in the box; an agent's asks its box.
type Upstream interface {
	// Open sends a request of any method and returns the head of the answer and
	// the ways to its body. ctx lives as long as the body is wanted.
	Open(ctx context.Context, req *http.Request) (*content.Offer, error)
	// Resume goes on with the answer to req whose head was stored and of which
	// the bytes of missing are not here, up to the end where that is
	// math.MaxInt64. An Offer with status 206 brings them, of that very
	// representation; any other is a new answer, as from Open.
	Resume(ctx context.Context, req *http.Request, stored *httpcache.Response, missing content.Range) (*content.Offer, error)
	// Ranges brings what a sink with a proof misses of the answer to req whose
	// head was stored, and nothing beyond it.
	Ranges(req *http.Request, stored *httpcache.Response) content.Source
}

// Torrents makes torrents of stored objects: peering.Swarm.
type Torrents interface {
	// Torrent gives the metainfo file of a complete object, under the given
	// file name. While it is still being hashed, file is nil and progress says
	// how far that is, from 0 to 1.
	Torrent(ctx context.Context, num uint64, name string) (file []byte, progress float64, err error)
}

// Config says who may use the proxy and for what.
type Config struct {
	// Listen is the address of the listener; "" means 127.0.0.1:3142.
	Listen string
	// Address is the host:port under which clients reach the listener, for the
	// PAC file; "" means the address that the client's connection came to.
	Address string
	// Names are host names of the box beside its addresses, names without a dot
	// and names of private domains, under which /get/ and /o/ answer.
	Names []string
	// Name is the box's pseudonym in Via; "" means "cistern".
	Name string
	// Clients are the networks whose hosts may use the proxy; empty means
	// loopback, link-local, private and directly connected networks.
	Clients []string
	// ConnectPorts are the ports that CONNECT may reach; empty means 443.
	ConnectPorts []int
	// ConnectIdle ends a CONNECT tunnel that was silent so long; 0 means 5 min.
	ConnectIdle time.Duration
	// CompleteRanges fetches all of an object of which a range is asked for.
	// Otherwise only the blocks that ranges touch come, with a read-ahead that
	// grows.
	CompleteRanges bool
	// Surrogate obeys Surrogate-Control and says so to origins, for boxes that act
	// for them (W3C Note Edge Architecture).
	Surrogate bool
	// Dial makes the connections of CONNECT: origin.Dialer.DialContext. nil
	// refuses CONNECT.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Offline says why nothing outside can be reached, nil if it can:
	// origin.Uplink.Down. nil: that is not known.
	Offline func() *origin.OfflineError
	// OpenObject finds an object of /o/ that is not in the store, by identity or
	// else by the name of a torrent's file: an agent asks its box. nil means that
	// what is not here is not found.
	OpenObject func(ctx context.Context, id content.ID, name string) (*content.Offer, error)
	// AccessLog is the file that gets a line for each request of plain HTTP once
	// that is answered; "" means none. It is moved to a second one, with .1 behind
	// its name, at 64 MiB.
	AccessLog string
	// Dir is where it keeps what it would have to compute or to see again: the
	// SHA-256 of objects and of their pieces, and how requests that were slow were
	// answered. "" means in memory only, and less.
	Dir string
	// Vouched says who vouches for what upstream promises by identity, for
	// `explain`: "the box at …" on an agent.
	Vouched string
	// TLS and Secure answer clients that speak TLS to the listener: the desk
	// for agents. nil closes such connections.
	TLS    *tls.Config
	Secure http.Handler
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			faults = append(faults, fmt.Errorf("proxy.listen: %q is not host:port", c.Listen))
		}
	}
	if c.Address != "" {
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			faults = append(faults, fmt.Errorf("proxy.address: %q is not host:port", c.Address))
		}
	}
	for i, s := range c.Clients {
		if _, err := netip.ParsePrefix(s); err != nil {
			faults = append(faults, fmt.Errorf("proxy.clients[%d]: %q is not a network such as 10.0.0.0/8", i, s))
		}
	}
	for i, p := range c.ConnectPorts {
		if p < 1 || p > 65535 {
			faults = append(faults, fmt.Errorf("proxy.connect_ports[%d]: %d is not a port", i, p))
		}
	}
	if c.ConnectIdle < 0 {
		faults = append(faults, fmt.Errorf("proxy.connect_idle: %s is negative", c.ConnectIdle))
	}
	if (c.TLS == nil) != (c.Secure == nil) {
		faults = append(faults, errors.New("proxy.tls: TLS and Secure go together"))
	}
	return errors.Join(faults...)
}

// Wanted is what Want found behind a request.
type Wanted struct {
	// Head is the head of the answer as it is stored; nil if not Shared.
	Head *httpcache.Response
	// Info is the object that has the body; it may still be filling.
	Info cache.Info
	// Shared says that the answer is in the store, a 200 and publicly
	// cacheable, so that other outlets may have it. Otherwise the request can
	// only be passed through.
	Shared bool
	// Why says in one line which rule decided.
	Why string
}

// Stats are the figures of a Server since it was made.
type Stats struct {
	Requests int64 `json:"requests"`
	// Hits were answered from the store without asking upstream, Misses not;
	// Collapsed waited for the answer to somebody else's request.
	Hits      int64 `json:"hits"`
	Misses    int64 `json:"misses"`
	Collapsed int64 `json:"collapsed"`
	// Refused counts answers of 403.
	Refused int64 `json:"refused"`
	// Upstream counts requests sent upstream.
	Upstream int64 `json:"upstream"`
	// Tunnels counts CONNECTs that are open now.
	Tunnels int64 `json:"tunnels"`
	// Bytes counts body bytes sent to clients, Passed those of them that went
	// past the store, Tunnelled the bytes of CONNECT both ways.
	Bytes     int64 `json:"bytes"`
	Passed    int64 `json:"passed"`
	Tunnelled int64 `json:"tunnelled"`
	// Clients are figures by client, those with the most bytes first.
	Clients []ClientStats `json:"clients"`
}

// ClientStats are the figures of one client address. The zero address stands
// for all those that there was no room to count singly.
type ClientStats struct {
	Addr     netip.Addr `json:"addr"`
	Requests int64      `json:"requests"`
	Hits     int64      `json:"hits"`
	Bytes    int64      `json:"bytes"`
}

// New builds a Server on a store; it listens to nothing. torrents may be nil:
// then ?torrent is not found.
func New(cfg Config, log *slog.Logger, store *cache.Store, up Upstream, torrents Torrents) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return newServer(cfg, log, store, up, torrents), nil
}
