// Package config is the one configuration of a box: a TOML file, read, checked
// and saved.
//
// It says every fault at once, each with its line and key. It refuses unknown
// keys (a typing error would else be a default in disguise) and files of a
// newer version. It knows what a value may be, not what the parts do with it:
// the wiring hands each part its own section. Start reading at [Config] and
// [Load].
package config

import (
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// Version of the file's layout that this program reads and writes.
const Version = 1

// Config is the whole file. [Default] gives the values of keys left out.
type Config struct {
	Version   int       `toml:"version" comment:"Layout of this file; always 1 for now."`
	Proxy     Proxy     `toml:"proxy"`
	Origin    Origin    `toml:"origin"`
	WAN       WAN       `toml:"wan"`
	Admin     Admin     `toml:"admin"`
	Store     Store     `toml:"store"`
	Peering   Peering   `toml:"peering"`
	Tracker   Tracker   `toml:"tracker"`
	Steer     Steer     `toml:"steer"`
	Multicast Multicast `toml:"multicast"`
	Log       Log       `toml:"log"`
}

// Proxy is what LAN clients talk to.
type Proxy struct {
	// Listen is address:port; the address may be empty for every interface.
	Listen string `toml:"listen" comment:"Where clients reach the proxy. Use \":3142\" for the whole LAN."`
	// Advertise is host:port. Empty: the address of the connection, or one of
	// the box's own.
	Advertise string `toml:"advertise" comment:"host:port under which the LAN knows this box; empty: found out."`
	// Names are public host names of the box, for /get/ and /o/.
	Names []string `toml:"names" comment:"Public host names of the box, beside its addresses and names of private domains."`
	// Clients are networks. Empty: loopback, link-local, private, ULA and
	// directly connected ones.
	Clients []netip.Prefix `toml:"clients" comment:"Networks that may use the proxy; empty: private and directly connected ones."`
	// AllowDestinations are what the box may reach although it is private.
	AllowDestinations []Destination `toml:"allow_destinations" comment:"Private destinations opened on purpose, such as \"10.0.0.0/8\" or \"127.0.0.1:8090\"."`
	// CompleteRanges fetches the rest too of what a range is asked for. Off by
	// default: updates ask for a few MB of packs of many GB.
	CompleteRanges bool `toml:"complete_ranges" comment:"Whether the rest of a file is fetched too when a client asks for a range of it."`
	// Surrogate is for boxes that stand before origins of the same owner.
	Surrogate bool `toml:"surrogate" comment:"Whether Surrogate-Control is obeyed, and announced, beside CDN-Cache-Control: for a box that acts for its origins."`
	// AccessLog is a file; empty: none.
	AccessLog string `toml:"access_log" comment:"File for a line on each request, kept below 128 MiB with its predecessor; empty: none."`
}

// Admin is the API, the panel and the metrics page.
type Admin struct {
	// Listen is address:port; never that of the proxy.
	Listen string `toml:"listen" comment:"Where the panel and the API listen."`
	// Names are Host names accepted beside localhost and IP addresses.
	Names []string `toml:"names" comment:"Host names of the panel, beside localhost and every IP address."`
	// Session is how long a login lasts, 1 minute to 30 days.
	Session Duration `toml:"session" comment:"How long a login lasts."`
	// MetricsOpen lets everybody who reaches Listen read /metrics.
	MetricsOpen bool `toml:"metrics_open" comment:"Whether /metrics needs no login."`
}

// Store is where objects are kept.
type Store struct {
	// Dir is the data directory.
	Dir string `toml:"dir" comment:"The data directory."`
	// MaxBytes bounds all objects together, at least 16 MiB.
	MaxBytes Size `toml:"max_bytes" comment:"How large the store may grow."`
	// MinFree stays free on each volume. 0: a sixteenth of it, 24 to 256 MiB.
	MinFree Size `toml:"min_free" comment:"How much of each volume stays free; 0: a sixteenth of it, at most 256MiB."`
	// Volumes are further directories for bodies, each on a disk of its own.
	Volumes []string `toml:"volumes" comment:"Further directories for objects, each on a disk of its own."`
	// SmallBytes bounds objects up to 64 KiB together; 0: a sixteenth of
	// MaxBytes.
	SmallBytes Size `toml:"small_bytes" comment:"How much of max_bytes objects up to 64KiB may take; 0: a sixteenth."`
	// RAM bounds what is kept in memory, 1 MiB to 64 GiB.
	RAM Size `toml:"ram" comment:"Memory for small objects and the index."`
	// ScrubPeriod is how long it takes to check every object once, an hour to a
	// year; 0: never.
	ScrubPeriod Period `toml:"scrub_period" comment:"In what time every object is read and checked once; \"off\": never."`
	// Quotas bound services. An object belongs to the first that matches.
	Quotas []Quota `toml:"quota" comment:"Bounds of services, each a table [[store.quota]] with name, match and max_bytes."`
}

// Quota bounds the objects of one service.
type Quota struct {
	// Name of the service.
	Name string `toml:"name" comment:"What the service is called."`
	// Match are patterns of names, as cache.Match has them.
	Match []string `toml:"match" comment:"Hosts or URLs with * for any text, such as \"*.example.org\" or \"dl.example.org/big/*\"."`
	// MaxBytes of all objects of the service, at least 1 MiB.
	MaxBytes Size `toml:"max_bytes" comment:"How much the service may take of the store."`
}

// Peering is the box's one BitTorrent client.
type Peering struct {
	Enabled bool `toml:"enabled" comment:"Whether torrents can be added and are served."`
	// Listen is address:port, for TCP and uTP. Empty: port 6881 of the proxy's
	// address, so that a box on loopback opens nothing to the network.
	Listen string `toml:"listen" comment:"Where peers connect, by TCP and uTP; empty: port 6881 of the proxy's address."`
	// MaxConnections to peers outside the LAN, 1 to 1000, all swarms together.
	MaxConnections int `toml:"max_connections" comment:"Peer connections to the outside, all swarms together."`
	// Upload to peers outside the LAN; 0: unlimited.
	Upload Rate `toml:"upload" comment:"Upload to the outside; \"0\" is unlimited."`
	// LANUpload to peers on the LAN; 0: unlimited.
	LANUpload Rate `toml:"lan_upload" comment:"Upload to the LAN; \"0\" is unlimited."`
	// SeedRatio ends seeding to the outside; 0: never.
	SeedRatio Ratio `toml:"seed_ratio" comment:"How many times its size the outside gets of a torrent; \"0\": no bound."`
	// SeedTime ends seeding to the outside; 0: never.
	SeedTime Period `toml:"seed_time" comment:"How long after it was added the outside gets a torrent, such as \"7d\"; \"off\": always."`
	// Hours have uploads of their own. The first that matches counts.
	Hours []UploadHours `toml:"hours" comment:"Other uploads by the hour, each a table [[peering.hours]] with from, to, upload and pause."`
	// Watch is a folder; empty: none.
	Watch string `toml:"watch" comment:"Folder whose .torrent and .meta4 files are added by themselves; empty: none."`
	// Mirrors are servers that have files of torrents.
	Mirrors []Mirror `toml:"mirror" comment:"Servers that bring files of torrents beside the peers, each a table [[peering.mirror]] with match and url."`
	// Feeds are followed.
	Feeds []Feed `toml:"feed" comment:"Lists of torrents to follow, each a table [[peering.feed]] with url, match, max_size and every."`
	// LAN are networks whose peers count as inside. Empty: private ones.
	LAN []netip.Prefix `toml:"lan" comment:"Networks whose peers are inside, without a cap; empty: private ones."`
	// Discovery is the interface on which torrent clients of the LAN find the
	// box (BEP 14). Empty: they do not.
	Discovery string `toml:"discovery" comment:"Interface for local discovery (BEP 14), such as \"eth0\"; empty: off."`
	// DHT finds peers of magnets that name no tracker. Off by default: it talks to
	// strangers all over the world before anybody has asked for anything.
	DHT bool `toml:"dht" comment:"Whether to look for peers in the DHT."`
}

// Multicast is how the box casts to enrolled agents.
type Multicast struct {
	// Interfaces to cast on. Empty: no casts.
	Interfaces []string `toml:"interfaces" comment:"Network interfaces to cast on, such as [\"eth0\"]; empty: none."`
	// Mode is "ssm" or "asm".
	Mode string `toml:"mode" comment:"\"ssm\" (source-specific) or \"asm\" (any source)."`
	// Groups is where group addresses come from. Unset: 232.77.0.0/16 for ssm,
	// 239.77.0.0/16 for asm.
	Groups netip.Prefix `toml:"groups" comment:"Range of group addresses; empty: 232.77.0.0/16 for ssm, 239.77.0.0/16 for asm."`
	// Port is the UDP port of NORM, 1 to 65535.
	Port int `toml:"port" comment:"UDP port."`
	// TTL is 1 (the same network) to 255.
	TTL int `toml:"ttl" comment:"How many routers a packet may pass, plus one."`
	// Rate of whole Ethernet frames, 100kbit to 100Gbit.
	Rate Rate `toml:"rate" comment:"Speed of all casts on one interface together, whole Ethernet frames."`
	// MinSize is the least size of an object that is cast.
	MinSize Size `toml:"min_size" comment:"Smaller objects go by HTTP."`
	// MinAgents is how many agents must want an object before it is cast, 1 to
	// 10000.
	MinAgents int `toml:"min_agents" comment:"How many agents must want an object at once before it is cast."`
}

// Log is what the daemon says of itself.
type Log struct {
	// Level is "debug", "info", "warn" or "error".
	Level string `toml:"level" comment:"\"debug\", \"info\", \"warn\" or \"error\"."`
	// Format is "text" or "json".
	Format string `toml:"format" comment:"\"text\" or \"json\"."`
}

// Default is a box on loopback with its data in ./var.
func Default() Config {
	return Config{
		Version: Version,
		Proxy:   Proxy{Listen: "127.0.0.1:3142", Names: []string{}, Clients: []netip.Prefix{}, AllowDestinations: []Destination{}},
		Origin:  Origin{MaxConnections: 512, MaxConnectionsPerHost: 64, MaxWaiting: 10_000, MaxWait: Duration(30 * time.Second), Offline: "auto"},
		WAN:     WAN{Hours: []Hours{}},
		Admin:   Admin{Listen: "127.0.0.1:8080", Names: []string{}, Session: Duration(12 * time.Hour)},
		Store:   Store{Dir: "./var", MaxBytes: 50e9, Volumes: []string{}, RAM: 32 << 20, ScrubPeriod: Period(14 * day), Quotas: []Quota{}},
		Peering: Peering{Enabled: true, MaxConnections: 20, Upload: 20e6, SeedRatio: 2, SeedTime: Period(14 * day), Hours: []UploadHours{}, Mirrors: []Mirror{}, Feeds: []Feed{}, LAN: []netip.Prefix{}},
		Tracker: Tracker{Listen: []string{}, Allow: []string{}},
		Steer:   Steer{Mode: "polite", Interfaces: []string{}},
		Multicast: Multicast{
			Interfaces: []string{}, Mode: "ssm", Port: 6003, TTL: 1, Rate: 100e6, MinSize: 1 << 20, MinAgents: 2,
		},
		Log: Log{Level: "info", Format: "text"},
	}
}

// Cache gives the store its section.
func (s Store) Cache() cache.Config {
	c := cache.Config{
		Dir: s.Dir, Volumes: s.Volumes, MaxBytes: int64(s.MaxBytes), MinFree: int64(s.MinFree),
		SmallBytes: int64(s.SmallBytes), RAM: int64(s.RAM), ScrubPeriod: time.Duration(s.ScrubPeriod),
	}
	if c.ScrubPeriod == 0 {
		c.ScrubPeriod = -1
	}
	for _, q := range s.Quotas {
		c.Quotas = append(c.Quotas, cache.Quota{Name: q.Name, Match: q.Match, MaxBytes: int64(q.MaxBytes)})
	}
	return c
}

// GroupRange is Groups, or the default range of the mode.
func (m Multicast) GroupRange() netip.Prefix {
	switch {
	case m.Groups.IsValid():
		return m.Groups
	case m.Mode == "asm":
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{239, 77}), 16)
	default:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{232, 77}), 16)
	}
}
