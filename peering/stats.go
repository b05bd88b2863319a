package peering

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// State says how far a torrent is.
type State string

// The states of a torrent.
const (
	// StateMetadata: the info is being fetched from peers.
	StateMetadata State = "fetching metadata"
	// StateFetching: files are being filled.
	StateFetching State = "fetching"
	// StateComplete: every file is in the store and served.
	StateComplete State = "complete"
	// StateFailed: Err says why; nothing is done for it any more.
	StateFailed State = "failed"
)

// Torrent is a snapshot of one torrent.
type Torrent struct {
	// InfoHash is the v1 infohash in hexadecimal, or the v2 one of a torrent
	// that has no other. It can change once from v2 to v1, when the info of a
	// magnet arrives; both keep naming the torrent.
	InfoHash string `json:"infohash"`
	// InfoHashV2 is the v2 infohash in hexadecimal, if there is one.
	InfoHashV2 string `json:"infohash_v2,omitempty"`
	Name       string `json:"name"`
	State      State  `json:"state"`
	Err        string `json:"err,omitempty"`
	// Made torrents were made by this box; they are served on the LAN only.
	Made    bool      `json:"made"`
	Private bool      `json:"private"`
	Added   time.Time `json:"added"`
	// Size and Have are bytes of files, without padding.
	Size int64 `json:"size"`
	Have int64 `json:"have"`
	// Down is piece bytes from peers and mirrors that were wanted, Wasted
	// those that were not, Up the piece bytes sent to peers, since the start.
	Down   int64 `json:"down"`
	Wasted int64 `json:"wasted"`
	Up     int64 `json:"up"`
	// Outside and LAN count established connections.
	Outside  int      `json:"outside"`
	LAN      int      `json:"lan"`
	Trackers []string `json:"trackers"`
	Mirrors  []Mirror `json:"mirrors,omitempty"`
	// Magnet is the link that names the torrent.
	Magnet string `json:"magnet"`
	// Given is what the outside was sent of it, ever, in bytes.
	Given int64 `json:"given"`
	// Liars are the addresses that sent pieces that failed their hash.
	Liars []string `json:"liars,omitempty"`
	Files []File   `json:"files"`
}

// File is one file of a torrent.
type File struct {
	// Path within the torrent, and Name in the store.
	Path string `json:"path"`
	Name string `json:"name"`
	Size int64  `json:"size"`
	Have int64  `json:"have"`
	// Object is the number of the object in the store.
	Object uint64 `json:"object"`
}

// Stats are the swarm's figures.
type Stats struct {
	// Listen is the address of the listening sockets; empty before Run.
	Listen string `json:"listen"`
	// Outside counts connections to peers outside the LAN now, Peak the most
	// there ever were since the start, Max the bound. Reserved includes those
	// being opened.
	Outside  int `json:"outside"`
	Reserved int `json:"reserved"`
	Peak     int `json:"peak"`
	Max      int `json:"max"`
	// Down, Wasted and Up add up the torrents, also those removed since.
	// FromMirrors is how much of Down came by HTTP.
	Down        int64 `json:"down"`
	FromMirrors int64 `json:"from_mirrors"`
	Wasted      int64 `json:"wasted"`
	Up          int64 `json:"up"`
	// Faults counts pieces that failed their hash, by the address of a peer that
	// took part, honest ones included; at most 256 addresses. Banned lists those
	// that were to blame.
	Faults   map[string]int64 `json:"faults"`
	Banned   []string         `json:"banned"`
	Torrents []Torrent        `json:"torrents"`
	// Followed are the feeds and the watched folder.
	Followed []Followed `json:"followed,omitempty"`
}

// Stats gives a snapshot.
func (s *Swarm) Stats() Stats {
	now, reserved, peak := s.budget.figures()
	st := Stats{Outside: now, Reserved: reserved, Peak: peak, Max: s.cfg.MaxConnections, Faults: s.faults.counts()}
	select {
	case <-s.ready:
	default:
		return st
	}
	st.Listen = s.net.addr.String()
	st.Followed = s.follower.statusNow()
	for _, sh := range s.list() {
		st.Torrents = append(st.Torrents, sh.snapshot())
	}
	slices.SortFunc(st.Torrents, func(a, b Torrent) int {
		return cmp.Or(b.Added.Compare(a.Added), cmp.Compare(a.InfoHash, b.InfoHash))
	})
	st.Banned = s.banned()
	total := s.client.Stats()
	useful := total.BytesReadUsefulData.Int64()
	st.Down = useful + s.mirrored.Load()
	st.FromMirrors = s.mirrored.Load()
	st.Wasted = total.BytesReadData.Int64() - useful + s.mirrorWaste.Load()
	st.Up = total.BytesWrittenData.Int64()
	return st
}

// banned lists the peers that were to blame for what failed.
func (s *Swarm) banned() (all []string) {
	for _, text := range s.client.BadPeerIPs() {
		if ip, err := netip.ParseAddr(text); err == nil {
			all = append(all, ip.Unmap().String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all) // the client knows an IPv4 address in two forms
}

// liars lists who sent what was wrong of this torrent: peers that were banned for
// it, and mirrors.
func (sh *share) liars() (all []string) {
	counts := sh.faults.counts()
	if len(counts) == 0 {
		return nil
	}
	banned := sh.swarm.banned()
	sh.plan.mu.Lock()
	for _, m := range sh.plan.mirrors {
		if m.lied() > 0 {
			banned = append(banned, m.host)
		}
	}
	sh.plan.mu.Unlock()
	for host := range counts {
		if slices.Contains(banned, host) {
			all = append(all, host)
		}
	}
	slices.Sort(all)
	return all
}

// faults remembers who sent pieces that failed their hash.
type faults struct {
	// mu guards what follows; nothing else is taken under it.
	mu sync.Mutex
	by map[string]int64
}

const maxFaults = 256

func newFaults() *faults { return &faults{by: map[string]int64{}} }

func (f *faults) add(addr string, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.by[addr]; known || len(f.by) < maxFaults {
		f.by[addr] += n
	}
}

func (f *faults) counts() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.by)
}
