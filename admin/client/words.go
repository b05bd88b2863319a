package client

import "time"

// Status is a box at a glance. All counts are bytes.
type Status struct {
	Version string    `json:"version" doc:"Version of the daemon"`
	Started time.Time `json:"started" doc:"When the daemon started"`
	Proxy   string    `json:"proxy" doc:"host:port under which the LAN reaches the proxy"`
	// Saved is Served minus Filled, at least 0.
	Saved    int64            `json:"saved" doc:"Bytes that the LAN got and the outside link did not carry"`
	Served   int64            `json:"served" doc:"Bytes handed out to the LAN"`
	Filled   int64            `json:"filled" doc:"Bytes brought in"`
	Outlets  map[string]int64 `json:"outlets" doc:"Bytes handed out, by outlet: http, bittorrent, multicast"`
	Sources  map[string]int64 `json:"sources" doc:"Bytes brought in, by kind of source: origin, swarm, multicast, box"`
	Objects  int              `json:"objects" doc:"Objects in the store"`
	Complete int              `json:"complete" doc:"Objects that are whole"`
	Fills    int              `json:"fills" doc:"Objects on their way in"`
	Bytes    int64            `json:"bytes" doc:"Bytes that objects take"`
	MaxBytes int64            `json:"max_bytes" doc:"Bytes that objects may take"`
	Swarms   int              `json:"swarms" doc:"Torrents joined"`
	Casts    int              `json:"casts" doc:"Multicast sessions running"`
	Agents   int              `json:"agents" doc:"Agents enrolled"`
	Volumes  []Volume         `json:"volumes" nullable:"false" doc:"Disks of the store"`
	Services []Service        `json:"services" nullable:"false" doc:"Services with a quota"`
	// Damaged and Repaired count since the start.
	Damaged   int64 `json:"damaged" doc:"Blocks and small objects found damaged since the start"`
	Repaired  int64 `json:"repaired" doc:"Objects repaired since the start"`
	Takedowns int   `json:"takedowns" doc:"What is taken down"`
	// Uplink is the way outside.
	Uplink Uplink `json:"uplink" doc:"Whether the outside can be reached"`
}

// Uplink says whether the outside can be reached. While it is down the box serves
// what it has, stale where the origin does not forbid that.
type Uplink struct {
	Mode  string    `json:"mode,omitempty" doc:"auto (found out), on (offline as configured) or off (never offline)"`
	Down  bool      `json:"down" doc:"Nothing outside can be reached"`
	Since time.Time `json:"since,omitzero" doc:"When that was noticed"`
	Why   string    `json:"why,omitempty" doc:"What showed it"`
}

// Object is one file in the store. All counts are bytes.
type Object struct {
	Num      uint64           `json:"num" doc:"Number in this store"`
	ID       string           `json:"id,omitempty" doc:"Identity: pieces root of BEP 52, a hyphen, the size"`
	Title    string           `json:"title" doc:"What people see"`
	State    string           `json:"state" enum:"complete,filling,partial" doc:"Whether the object is whole"`
	Size     int64            `json:"size" doc:"Size in bytes, -1 if not known yet"`
	Readable int64            `json:"readable" doc:"Bytes that are here and proved as far as they can be"`
	Trust    string           `json:"trust" enum:"transport,whole,pieces" doc:"What vouches for the bytes"`
	Public   bool             `json:"public" doc:"Whether it may be had under other names than the one it came by"`
	Pinned   bool             `json:"pinned" doc:"Whether it stays whatever room is needed"`
	Names    []string         `json:"names" nullable:"false" doc:"Names in the store"`
	Created  time.Time        `json:"created" doc:"When its fill started"`
	Used     time.Time        `json:"used" doc:"When it was last asked for"`
	From     map[string]int64 `json:"from" doc:"Bytes that each source brought"`
	Served   map[string]int64 `json:"served" doc:"Bytes that each outlet handed out"`
}

// States of an object.
const (
	Complete = "complete" // whole and hashed
	Filling  = "filling"  // on its way in
	Partial  = "partial"  // not whole, and nobody brings the rest just now
)

// Addition is something to bring in: exactly one field is set.
type Addition struct {
	URL     string `json:"url,omitempty" maxLength:"8192" doc:"An http or https URL to fetch through the proxy"`
	Magnet  string `json:"magnet,omitempty" maxLength:"65536" doc:"A magnet link"`
	Torrent []byte `json:"torrent,omitempty" doc:"A .torrent file, or a metalink that names one, in base64"`
}

// Added is what came of it.
type Added struct {
	Object   uint64 `json:"object,omitempty" doc:"Number of the object, for a URL"`
	Infohash string `json:"infohash,omitempty" doc:"Infohash of the swarm, for a torrent"`
	Name     string `json:"name" doc:"Title of what was added"`
}

// Swarm is a torrent that the box has joined. Rates are bytes each second.
type Swarm struct {
	Infohash string `json:"infohash" doc:"Infohash in hexadecimal: v1, or v2 if there is no v1"`
	Name     string `json:"name" doc:"Name of the torrent, empty until its metadata is here"`
	State    string `json:"state" doc:"What it is doing: fetching metadata, fetching, complete, failed"`
	// BytesHave is at most Size; Size is 0 until the metadata is here.
	BytesHave int64 `json:"bytes_have" doc:"Bytes that are here and proved"`
	Size      int64 `json:"size" doc:"Size in bytes, 0 until known"`
	Down      int64 `json:"down" doc:"Piece bytes that came from peers since the start"`
	Up        int64 `json:"up" doc:"Piece bytes sent to peers since the start"`
	Peers     int   `json:"peers" doc:"Peers connected, LAN included"`
	// OutsideEstablished counts connections against the cap.
	OutsideEstablished int `json:"outside_established" doc:"Established connections to peers outside the LAN"`
	// Magnet is a link for any client.
	Magnet string   `json:"magnet,omitempty" doc:"Magnet link"`
	Liars  []string `json:"liars,omitempty" doc:"Addresses that sent pieces that failed their hash"`
	Err    string   `json:"err,omitempty" doc:"Why it failed"`
}

// TorrentClient is a host of the LAN whose announces or lookups the box has
// answered, or whose flows to peers outside it sees.
type TorrentClient struct {
	Address  string `json:"address" doc:"Its address"`
	Answered int64  `json:"answered" doc:"Announces that the box answered since its start"`
	Avoided  int64  `json:"avoided" doc:"Flows avoided: peers outside that it was not told of, for each torrent once"`
	// FlowsNow and FlowsPeak are 0 where the box is not the router.
	FlowsNow  int `json:"flows_now" doc:"Tracked connections with known peers outside now, where the box is the router"`
	FlowsPeak int `json:"flows_peak" doc:"The most of these at once since the start"`
}

// Cast is one multicast session.
type Cast struct {
	Object    uint64     `json:"object" doc:"Number of the object"`
	Title     string     `json:"title" doc:"Its title"`
	Group     string     `json:"group" doc:"Group address and port"`
	Rate      int64      `json:"rate" doc:"Bits each second, whole Ethernet frames"`
	SentBytes int64      `json:"sent_bytes" doc:"Bytes of the object sent, repairs not counted"`
	WireBytes int64      `json:"wire_bytes" doc:"Bytes put on each interface for it, repairs and Ethernet, IP and UDP headers included"`
	Size      int64      `json:"size" doc:"Size of the object in bytes"`
	State     string     `json:"state" doc:"What it is doing: due, on air, ended"`
	Started   time.Time  `json:"started" doc:"When it began"`
	Err       string     `json:"err,omitempty" doc:"What ended it early"`
	Receivers []Receiver `json:"receivers" nullable:"false" doc:"Agents that were heard"`
}

// Receiver is an agent in a Cast.
type Receiver struct {
	Node            string    `json:"node" doc:"NormNodeId"`
	Name            string    `json:"name" doc:"Name of the agent"`
	State           string    `json:"state" doc:"What it is doing: expected, joined, complete, left"`
	Loss            float64   `json:"loss" doc:"Fraction of packets lost on the way to it, 0 to 1"`
	LastHeard       time.Time `json:"last_heard" doc:"When it was last heard"`
	CompletePercent float64   `json:"complete_percent" doc:"How much of the object it has, 0 to 100"`
}

// Agent is an enrolled agent.
type Agent struct {
	Node      string    `json:"node" doc:"NormNodeId"`
	Name      string    `json:"name" doc:"Name of its host"`
	Address   string    `json:"address,omitempty" doc:"Where it was last heard from"`
	Enrolled  time.Time `json:"enrolled" doc:"When it was enrolled"`
	LastHeard time.Time `json:"last_heard,omitzero" doc:"When it was last heard"`
}

// Enrolment is what an agent needs to enrol.
type Enrolment struct {
	Fingerprint string `json:"fingerprint" doc:"Fingerprint of the box's key"`
	Line        string `json:"line" doc:"The command to run on the agent's host"`
}

// Explanation says what the box would do with a URL, or does with an object, and
// why.
type Explanation struct {
	URL    string  `json:"url,omitempty" doc:"The URL asked about"`
	Key    string  `json:"key" doc:"The name under which the store keeps it, or would"`
	State  string  `json:"state" enum:"absent,denied,complete,filling,partial" doc:"What is here"`
	Object *Object `json:"object,omitempty" doc:"The object, if there is one"`
	Kept   *Kept   `json:"kept,omitempty" doc:"How the store keeps it"`
	// Reasons are sentences, the decisive one last.
	Reasons []string `json:"reasons" nullable:"false" doc:"Why, step by step"`
	// Decision is there if the store has a response for the URL.
	Decision *Decision `json:"decision,omitempty" doc:"What a plain GET would get now"`
	Past     []Request `json:"past,omitempty" doc:"How the last requests for it were answered, newest first"`
}

// Decision is what a plain GET for a stored response would get now.
type Decision struct {
	Action string `json:"action" enum:"serve,revalidate,fetch,gateway timeout" doc:"What the box would do"`
	Rule   string `json:"rule" doc:"The rule that decides, with its section"`
	Age    int64  `json:"age" doc:"Age of what is stored, in seconds"`
	// StaleAt may be in the past.
	StaleAt    time.Time `json:"stale_at" doc:"When it ceases to be fresh"`
	RenewUntil time.Time `json:"stale_while_revalidate_until,omitzero" doc:"Until when it is served stale while it is asked for again"`
	ErrorUntil time.Time `json:"stale_if_error_until,omitzero" doc:"Until when it is served stale if the origin fails"`
}

// Snippet is text to paste into a server's configuration.
type Snippet struct {
	Name string `json:"name" doc:"The server it is for: dnsmasq, kea, isc or openwrt"`
	Hint string `json:"hint" doc:"Where it goes"`
	Text string `json:"text" doc:"The lines"`
}
