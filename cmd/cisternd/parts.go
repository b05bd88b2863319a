package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/cistern-edge/cistern/admin"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/origin"
	"github.com/cistern-edge/cistern/cache/proxy"
	"github.com/cistern-edge/cistern/multicast"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
	"github.com/cistern-edge/cistern/peering"
)

// This file fits the parts to the interfaces that other parts declare.

// torrentMaker is the swarm as the proxy sees it.
type torrentMaker struct{ swarm *peering.Swarm }

func (t torrentMaker) Torrent(ctx context.Context, num uint64, name string) (file []byte, progress float64, err error) {
	file, err = t.swarm.Torrent(ctx, num, name)
	var hashing *peering.HashingError
	if errors.As(err, &hashing) {
		return nil, float64(hashing.Done) / float64(max(hashing.Total, 1)), nil
	}
	return file, 1, err
}

// finder is the proxy as the desk sees it. The proxy carries the desk, so it is
// put in when both are built.
type finder struct{ server *proxy.Server }

func (f *finder) Want(ctx context.Context, req *http.Request) (multicast.Found, error) {
	w, err := f.server.Want(ctx, req)
	if err != nil || !w.Shared {
		return multicast.Found{Why: w.Why}, err
	}
	return multicast.Found{
		Num: w.Info.Num, Status: w.Head.Status, Header: w.Head.Header, Received: w.Head.Received, Public: w.Info.Public,
	}, nil
}

// fetcher is the proxy as the panel sees it.
type fetcher struct{ server *proxy.Server }

func (f fetcher) Fetch(ctx context.Context, address *url.URL) (cache.Info, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return cache.Info{}, fmt.Errorf("fetch %s: %w", address.Redacted(), err)
	}
	w, err := f.server.Want(ctx, req)
	if err != nil {
		return cache.Info{}, err
	}
	if !w.Shared {
		return cache.Info{}, fmt.Errorf("%s cannot be kept: %s", address.Redacted(), w.Why)
	}
	return w.Info, nil
}

// uplinkOf is the uplink as the panel sees it.
func uplinkOf(u *origin.Uplink, mode string) func() admin.Uplink {
	return func() admin.Uplink {
		state := admin.Uplink{Mode: mode}
		if down := u.Down(); down != nil {
			state.Down, state.Since, state.Why = true, down.Since, down.Why
		}
		return state
	}
}

// repairs are the ways to get again what was damaged: the origins, then the
// swarm. It implements cache.Repairer.
type repairs []cache.Repairer

func (r repairs) Repair(ctx context.Context, info cache.Info) (sources []content.Source, err error) {
	for _, way := range r {
		more, werr := way.Repair(ctx, info)
		sources, err = append(sources, more...), errors.Join(err, werr)
	}
	return sources, err
}

// swarms is the swarm as the panel sees it.
type swarms struct{ swarm *peering.Swarm }

// swarmsOf is nil, not a nil inside an interface, where there is no swarm.
func swarmsOf(s *peering.Swarm) admin.Swarms {
	if s == nil {
		return nil
	}
	return swarms{s}
}

func statsOf(s *peering.Swarm) peering.Stats {
	if s == nil {
		return peering.Stats{}
	}
	return s.Stats()
}

func (s swarms) List() []admin.Swarm {
	var list []admin.Swarm
	for _, t := range s.swarm.Stats().Torrents {
		list = append(list, viewOf(t))
	}
	return list
}

func viewOf(t peering.Torrent) admin.Swarm {
	return admin.Swarm{
		Infohash: t.InfoHash, Name: t.Name, State: string(t.State), BytesHave: t.Have, Size: t.Size,
		Down: t.Down, Up: t.Up, Peers: t.Outside + t.LAN, OutsideEstablished: t.Outside,
		Magnet: t.Magnet, Liars: t.Liars, Err: t.Err,
	}
}

func (s swarms) AddLink(ctx context.Context, link string) (admin.Swarm, error) {
	return s.AddTorrent(ctx, []byte(link))
}

func (s swarms) AddTorrent(ctx context.Context, file []byte) (admin.Swarm, error) {
	t, err := s.swarm.Add(ctx, file)
	if err != nil {
		return admin.Swarm{}, err
	}
	return viewOf(t), nil
}

// casts is the caster as the panel sees it.
type casts struct {
	caster *multicast.Caster
	rate   int64
}

func (c casts) List() []admin.Cast {
	var list []admin.Cast
	for _, s := range c.caster.Stats().Sessions {
		cast := admin.Cast{
			Object: s.Object, Title: s.Title, Group: s.Group, Rate: c.rate, SentBytes: s.Sent, WireBytes: s.Wire,
			Size: s.Size, State: s.State, Started: s.Started, Err: s.Err,
		}
		for _, r := range s.Receivers {
			cast.Receivers = append(cast.Receivers, admin.Receiver{
				Node: nodeText(r.Node), Name: r.Name, State: r.State, Loss: r.Loss, LastHeard: r.Heard,
				CompletePercent: 100 * float64(r.Received) / float64(max(s.Size, 1)),
			})
		}
		list = append(list, cast)
	}
	return list
}

func (c casts) Start(ctx context.Context, num uint64) error { return c.caster.Cast(ctx, num) }

// agents is the roster as the panel sees it.
type agents struct {
	roster *multicast.Roster
	key    *announce.Key
}

func (a agents) List() []admin.Agent {
	var list []admin.Agent
	for _, e := range a.roster.List() {
		agent := admin.Agent{Node: nodeText(e.Node), Name: e.Name, Enrolled: e.Enrolled, LastHeard: e.Heard}
		if e.Address.IsValid() {
			agent.Address = e.Address.String()
		}
		list = append(list, agent)
	}
	return list
}

func (a agents) Revoke(_ context.Context, node string) error {
	n, err := strconv.ParseUint(node, 10, 32)
	if err != nil {
		return fmt.Errorf("revoke agent %q: %w", node, cache.ErrNotFound)
	}
	return a.roster.Revoke(norm.NodeID(n))
}

func (a agents) Fingerprint() string { return a.key.Fingerprint().String() }

func nodeText(n norm.NodeID) string { return strconv.FormatUint(uint64(n), 10) }
