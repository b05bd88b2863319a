package admin

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is the page that Prometheus reads.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(figures{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// figures turns the parts' snapshots into metrics at the moment they are asked
// for. Which there are depends on the parts, so it describes none beforehand.
type figures struct{ s *Server }

// Describe says nothing: the collector is unchecked.
func (figures) Describe(chan<- *prometheus.Desc) {}

// Collect takes a snapshot of every part.
func (f figures) Collect(out chan<- prometheus.Metric) {
	s := f.s
	st := s.parts.Objects.Stats()
	st.Filled = byKind(st.Filled) // a host for each label would have no bound
	snapshots := map[string]any{"store": st}
	for part, stats := range s.parts.Stats {
		snapshots[part] = stats()
	}
	for _, part := range slices.Sorted(maps.Keys(snapshots)) {
		flatten(out, "cistern_"+metricName(part), reflect.ValueOf(snapshots[part]))
	}
	metric(out, "cistern_saved_bytes", "Bytes that the LAN got and the outside link did not carry.", float64(s.status("").Saved), nil, nil)
	metric(out, "cistern_start_time_seconds", "When the daemon started.", float64(s.started.Unix()), nil, nil)
	s.collectSwarms(out)
	s.collectCasts(out)
}

func (s *Server) collectSwarms(out chan<- prometheus.Metric) {
	var peers, outside int
	var down, up int64
	swarms := s.swarms()
	for _, w := range swarms {
		peers, outside, down, up = peers+w.Peers, outside+w.OutsideEstablished, down+w.Down, up+w.Up
	}
	metric(out, "cistern_swarms", "Torrents joined.", float64(len(swarms)), nil, nil)
	metric(out, "cistern_swarm_peers", "Peers connected.", float64(peers), nil, nil)
	metric(out, "cistern_swarm_outside_connections", "Established connections to peers outside the LAN.", float64(outside), nil, nil)
	metric(out, "cistern_swarm_down_bytes", "Piece bytes that came from peers since the start.", float64(down), nil, nil)
	metric(out, "cistern_swarm_up_bytes", "Piece bytes sent to peers since the start.", float64(up), nil, nil)
}

func (s *Server) collectCasts(out chan<- prometheus.Metric) {
	metric(out, "cistern_agents", "Agents enrolled.", float64(len(s.agents())), nil, nil)
	worst := map[string]float64{} // an agent may take part in several sessions
	running := 0
	for _, c := range s.casts() {
		if c.State == castEnded {
			continue
		}
		running++
		for _, r := range c.Receivers {
			worst[r.Node] = max(worst[r.Node], r.Loss)
		}
	}
	metric(out, "cistern_casts", "Multicast sessions running.", float64(running), nil, nil)
	for _, node := range slices.Sorted(maps.Keys(worst)) {
		metric(out, "cistern_receiver_loss_ratio", "Fraction of packets lost on the way to an agent, in its worst session.",
			worst[node], []string{"node"}, []string{node})
	}
}

// flatten makes a metric of each number in a struct, by its json name, and of
// each map of numbers one with a label.
func flatten(out chan<- prometheus.Metric, prefix string, v reflect.Value) {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if tag == "" || tag == "-" || !v.Type().Field(i).IsExported() {
			continue
		}
		name, field := prefix+"_"+metricName(tag), v.Field(i)
		if n, ok := number(field); ok {
			metric(out, name, "", n, nil, nil)
			continue
		}
		switch {
		case field.Kind() == reflect.Struct:
			flatten(out, name, field)
		case field.Kind() == reflect.Map && field.Type().Key().Kind() == reflect.String:
			for _, key := range field.MapKeys() {
				if n, ok := number(field.MapIndex(key)); ok {
					metric(out, name, "", n, []string{"name"}, []string{strings.ToValidUTF8(key.String(), "?")})
				}
			}
		}
	}
}

func number(v reflect.Value) (float64, bool) {
	switch {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	default:
		return 0, false
	}
}

// metric sends one figure. Its type is left open: what a part counts may start
// anew or shrink when objects go.
func metric(out chan<- prometheus.Metric, name, help string, value float64, labels, values []string) {
	if help == "" {
		help = "See " + strconv.Quote(name) + " in the part's Stats."
	}
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, labels, nil), prometheus.UntypedValue, value, values...)
}

// metricName keeps what a metric's name may hold.
func metricName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower(s))
}
