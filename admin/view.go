package admin

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
)

// totals are the bytes of everything that is in the store.
type totals struct{ served, filled int64 }

func (s *Server) totals() totals {
	st := s.parts.Objects.Stats()
	return totals{served: sum(st.Served), filled: sum(st.Filled)}
}

func sum(by map[string]int64) (n int64) {
	for _, v := range by {
		n += v
	}
	return n
}

// kind is a source's kind: the first word of its name, without the host.
func kind(source string) string {
	word, _, _ := strings.Cut(source, " ")
	return word
}

// byKind adds up what sources of one kind brought.
func byKind(sources map[string]int64) map[string]int64 {
	kinds := map[string]int64{}
	for name, n := range sources {
		kinds[kind(name)] += n
	}
	return kinds
}

// status is the box at a glance.
func (s *Server) status(proxy string) client.Status {
	st := s.parts.Objects.Stats()
	out := client.Status{
		Version: s.cfg.Version, Started: s.started, Proxy: proxy,
		Served: sum(st.Served), Filled: sum(st.Filled), Outlets: st.Served, Sources: byKind(st.Filled),
		Objects: st.Objects, Complete: st.Complete, Fills: st.Fills, Bytes: st.Bytes, MaxBytes: st.MaxBytes,
		Swarms: len(s.swarms()), Agents: len(s.agents()),
	}
	out.Volumes, out.Services = volumes(st), services(st)
	if s.parts.Uplink != nil {
		out.Uplink = s.parts.Uplink()
	}
	out.Damaged, out.Repaired, out.Takedowns = st.Damaged, st.Repaired, len(s.parts.Objects.Denials())
	out.Saved = max(out.Served-out.Filled, 0)
	for _, c := range s.casts() {
		if c.State != castEnded {
			out.Casts++
		}
	}
	return out
}

// volumes are the disks in the API's words.
func volumes(st cache.Stats) []client.Volume {
	list := []client.Volume{}
	for _, v := range st.Volumes {
		out := client.Volume{Dir: v.Dir, Bytes: v.Bytes, Free: v.Free, Total: v.Total, State: client.Well, Why: v.Sick}
		switch {
		case v.Gone:
			out.State = client.Gone
		case v.Sick != "":
			out.State = client.Sick
		}
		list = append(list, out)
	}
	return list
}

// services are those with a quota.
func services(st cache.Stats) []client.Service {
	list := []client.Service{}
	for _, svc := range st.Services {
		if svc.Name != "" {
			list = append(list, client.Service{Name: svc.Name, Bytes: svc.Bytes, Quota: svc.Quota})
		}
	}
	return list
}

// castEnded is the state of a session that is over.
const castEnded = "ended"

func (s *Server) swarms() []client.Swarm {
	if s.parts.Swarms == nil {
		return []client.Swarm{}
	}
	return append([]client.Swarm{}, s.parts.Swarms.List()...)
}

func (s *Server) torrentClients() []client.TorrentClient {
	if s.parts.TorrentClients == nil {
		return []client.TorrentClient{}
	}
	return append([]client.TorrentClient{}, s.parts.TorrentClients()...)
}

func (s *Server) casts() []client.Cast {
	if s.parts.Casts == nil {
		return []client.Cast{}
	}
	list := append([]client.Cast{}, s.parts.Casts.List()...)
	for i := range list {
		if list[i].Receivers == nil {
			list[i].Receivers = []client.Receiver{}
		}
	}
	return list
}

func (s *Server) agents() []client.Agent {
	if s.parts.Agents == nil {
		return []client.Agent{}
	}
	return append([]client.Agent{}, s.parts.Agents.List()...)
}

// enrolment is the line that enrols an agent.
func (s *Server) enrolment(proxy string) client.Enrolment {
	key := s.parts.Agents.Fingerprint()
	return client.Enrolment{Fingerprint: key, Line: "cistern-agent enrol --box http://" + proxy + " --key " + key}
}

func (s *Server) revoke(ctx context.Context, node string) (client.Agent, error) {
	if s.parts.Agents == nil {
		return client.Agent{}, off("multicast")
	}
	for _, a := range s.agents() {
		if a.Node == node {
			return a, s.parts.Agents.Revoke(ctx, node)
		}
	}
	return client.Agent{}, huma.NewError(http.StatusNotFound, "no agent is enrolled as "+node, cache.ErrNotFound)
}
