package admin

import (
	"cmp"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
)

// maxRows is how many objects the panel shows.
const maxRows = 40

// panelView is what the panel's templates see.
type panelView struct {
	Now    time.Time
	Status client.Status
	Chart  chart
	// In and Out are bars on one scale, so that the eye sees what was saved.
	In, Out []segment
	// Times is how often each byte that came in was handed out; 0 if not yet
	// more than once.
	Times   float64
	Objects []objectRow
	More    int // objects that are not shown
	Casts   []castRow
	Swarms  []swarmRow
	Agents  []client.Agent
	// Enrol is the line that enrols an agent; empty if multicast is off.
	Enrol     string
	SwarmsOff bool
	// Clients are torrent clients of the LAN, MoreClients how many are not shown,
	// and Avoided the flows that all of them were spared. Routed says that the box
	// sees their flows.
	Clients     []client.TorrentClient
	MoreClients int
	Avoided     int64
	Routed      bool
	Services    []serviceRow
	Scrub       client.Scrub
	ScrubDone   float64 // percent
	Takedowns   []client.Takedown
}

// segment is one stretch of a bar.
type segment struct {
	Kind  string // class of its colour
	Label string
	Bytes int64
	// X and Width are percent of the bar.
	X, Width float64
}

type objectRow struct {
	client.Object
	// File is the last part of the title, Host the host if the title is a URL.
	File, Host string
	Percent    float64
	// From and Served shadow the maps: what came from where, and went where.
	From, Served []segment
	ServedBytes  int64
}

type castRow struct {
	client.Cast
	Percent float64
	Running bool
	Worst   float64
}

type swarmRow struct {
	client.Swarm
	Percent float64
}

type serviceRow struct {
	client.Service
	Percent float64
}

// recent keeps the last view for all pages that are open: listing a large store
// for each of them would be felt.
type recent struct {
	// mu guards what follows. It is held while a view is gathered.
	mu    sync.Mutex
	proxy string
	view  panelView
}

// view is what the panel shows; it is less than a second old.
func (s *Server) view(proxy string, now time.Time) panelView {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	if age := now.Sub(s.recent.view.Now); s.recent.proxy != proxy || age < 0 || age > refresh*3/4 {
		s.recent.proxy, s.recent.view = proxy, s.gather(proxy, now)
	}
	return s.recent.view
}

// gather looks at every part.
func (s *Server) gather(proxy string, now time.Time) panelView {
	v := panelView{Now: now, Status: s.status(proxy), Chart: s.rates.chart(), SwarmsOff: s.parts.Swarms == nil}
	scale := max(v.Status.Served, v.Status.Filled)
	v.In, v.Out = segments(v.Status.Sources, scale), segments(v.Status.Outlets, scale)
	if v.Status.Filled > 0 && v.Status.Served > v.Status.Filled {
		v.Times = float64(v.Status.Served) / float64(v.Status.Filled)
	}
	list := s.parts.Objects.List()
	slices.SortStableFunc(list, busyFirst)
	for _, i := range list[:min(len(list), maxRows)] {
		v.Objects = append(v.Objects, objectRowOf(i))
	}
	v.More = len(list) - len(v.Objects)
	for _, c := range s.casts() {
		row := castRow{Cast: c, Percent: percent(c.SentBytes, c.Size), Running: c.State != castEnded}
		for _, r := range c.Receivers {
			row.Worst = max(row.Worst, r.Loss)
		}
		v.Casts = append(v.Casts, row)
	}
	for _, w := range s.swarms() {
		v.Swarms = append(v.Swarms, swarmRow{w, percent(w.BytesHave, w.Size)})
	}
	v.Clients = s.torrentClients()
	for _, c := range v.Clients {
		v.Avoided += c.Avoided
		v.Routed = v.Routed || c.FlowsPeak > 0
	}
	v.MoreClients = len(v.Clients) - min(len(v.Clients), maxRows)
	v.Clients = v.Clients[:len(v.Clients)-v.MoreClients]
	for _, svc := range v.Status.Services {
		v.Services = append(v.Services, serviceRow{svc, percent(svc.Bytes, svc.Quota)})
	}
	v.Scrub, v.Takedowns = s.scrub.now(), s.takedowns()
	v.ScrubDone = percent(v.Scrub.Bytes, v.Scrub.TotalBytes)
	v.Agents = s.agents()
	if s.parts.Agents != nil {
		v.Enrol = s.enrolment(proxy).Line
	}
	return v
}

// busyFirst puts fills before the rest, then what was used last.
func busyFirst(a, b cache.Info) int {
	rank := func(i cache.Info) int {
		if i.Filling && !i.Complete {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Used.Compare(a.Used), cmp.Compare(b.Num, a.Num))
}

func objectRowOf(i cache.Info) objectRow {
	row := objectRow{
		Object: object(i), Percent: percent(i.Readable, i.Size), From: segments(i.From, sum(i.From)),
		Served: segments(i.Served, sum(i.Served)), ServedBytes: sum(i.Served), File: i.Title,
	}
	if u, err := url.Parse(i.Title); err == nil && u.Host != "" {
		row.Host = u.Host
		row.File = cmp.Or(path.Base(strings.TrimSuffix(u.Path, "/")), u.Host)
		if row.File == "." {
			row.File = i.Title
		}
	}
	return row
}

// percent is how much of whole a part is, 0 to 100. An empty whole is complete.
func percent(part, whole int64) float64 {
	switch {
	case whole < 0:
		return 0
	case whole == 0:
		return 100
	default:
		return min(max(float64(part)/float64(whole), 0), 1) * 100
	}
}

// segments lays counts end to end, the largest first, on a bar of scale bytes.
func segments(by map[string]int64, scale int64) []segment {
	var list []segment
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if n := by[name]; n > 0 {
			list = append(list, segment{Kind: colour(name), Label: strings.TrimPrefix(name, "origin "), Bytes: n})
		}
	}
	slices.SortStableFunc(list, func(a, b segment) int { return cmp.Compare(b.Bytes, a.Bytes) })
	x := 0.0
	for i := range list {
		list[i].X = x
		list[i].Width = percent(list[i].Bytes, scale)
		x += list[i].Width
	}
	return list
}

// colour is the style class of a source or outlet.
func colour(name string) string {
	switch k := kind(name); k {
	case "origin", "swarm", "multicast", "box", "http", "bittorrent":
		return k
	default:
		return "other"
	}
}
