package admin

import (
	"context"
	"net/url"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// The words of the API, for those who implement the interfaces below.
type (
	Swarm         = client.Swarm
	TorrentClient = client.TorrentClient
	Cast          = client.Cast
	Receiver      = client.Receiver
	Agent         = client.Agent
	Uplink        = client.Uplink
)

// Parts are what the panel shows and commands. All but Objects may be nil: then
// that part is off, and the API says so.
type Parts struct {
	Objects Objects
	Fetcher Fetcher
	Swarms  Swarms
	Casts   Casts
	Agents  Agents
	// System is the appliance under the box; nil where there is none.
	System System
	// Hardware measures the machine.
	Hardware Hardware
	// Requests tell of the past.
	Requests Requests
	// Uplink says whether the outside can be reached.
	Uplink func() Uplink
	// TorrentClients are those that the box keeps from peers outside, those with the
	// most flows avoided first.
	TorrentClients func() []TorrentClient
	// Stats gives each part's figures for /metrics, by the part's name: a struct
	// whose numbers, and maps of numbers, have json names. cistern_<part>_<name>
	// is what comes of them.
	Stats map[string]func() any
}

// Objects is the store; *cache.Store implements it.
type Objects interface {
	Shelf
	Keeper
	Names
	Checker
	Takedowns
	Denials
}

// Shelf lists objects.
type Shelf interface {
	// List gives every object, newest first.
	List() []cache.Info
	Get(num uint64) (cache.Info, bool)
	Stats() cache.Stats
}

// Keeper decides what stays. Errors wrap cache.ErrNotFound if there is no such
// object.
type Keeper interface {
	Pin(num uint64, pinned bool) error
	Evict(num uint64) error
	// EvictMatching removes what a pattern of names fits (see cache.Match).
	EvictMatching(pattern string) (objects int, bytes int64, err error)
}

// Checker looks at what is kept.
type Checker interface {
	Explain(num uint64) (cache.Explanation, error)
	// Scrub checks every body once, at most perSecond bytes in a second, and
	// tells after each object how far it is.
	Scrub(ctx context.Context, perSecond int64, tell ...func(cache.ScrubReport)) (cache.ScrubReport, error)
}

// Takedowns takes things down for good, and lets them back.
type Takedowns interface {
	// Purge gives what it has removed; cache.CheckDenial has seen what.
	Purge(what, why, by string) ([]cache.Info, error)
	// Lift's error wraps cache.ErrNotFound if that was not taken down.
	Lift(what, by string) error
}

// Denials say what is taken down.
type Denials interface {
	// Denied says why a name is; nil if it is not.
	Denied(name string) error
	Denials() []cache.Denial
	Audit() ([]cache.AuditEntry, error)
}

// Names finds objects by what they are called.
type Names interface {
	Lookup(name string) (info cache.Info, meta []byte, ok bool)
	ByID(id content.ID) (cache.Info, bool)
}

// Fetcher brings in what a URL names, through the proxy.
type Fetcher interface {
	// Fetch returns once the head of the answer is here; the fill goes on. The
	// error says why the answer cannot be kept, if that is so.
	Fetch(ctx context.Context, address *url.URL) (cache.Info, error)
}

// Swarms is the box's BitTorrent client.
type Swarms interface {
	List() []Swarm
	// AddLink (a magnet link, or the address of a .torrent file) and AddTorrent
	// join a swarm and return what is known of it at once. An error says what is
	// wrong with the link or the file.
	AddLink(ctx context.Context, link string) (Swarm, error)
	AddTorrent(ctx context.Context, file []byte) (Swarm, error)
}

// Casts is the multicast sender.
type Casts interface {
	// List gives the sessions on air and some that have ended, newest first.
	List() []Cast
	// Start casts a complete object.
	Start(ctx context.Context, num uint64) error
}

// Agents are the hosts enrolled with this box.
type Agents interface {
	List() []Agent
	// Revoke takes an enrolment away; the error wraps cache.ErrNotFound if there
	// is no such node.
	Revoke(ctx context.Context, node string) error
	// Fingerprint is the text form of the box's public key.
	Fingerprint() string
}

// Hardware measures the machine that the box runs on; tell gets the report as far
// as it is, until Qualify returns.
type Hardware interface {
	Qualify(ctx context.Context, order client.QualifyOrder, tell func(client.Qualification)) (client.Qualification, error)
}
