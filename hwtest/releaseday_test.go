package hwtest

import (
	"context"
	"testing"

	"github.com/cistern-edge/cistern/hwtest/actors"
)

// TestUnmodifiedClients: ordinary torrent clients at their default settings, without the
// box and behind it. CI plays a small day in one mode.
func TestUnmodifiedClients(t *testing.T) {
	clients, seeds, dead, size := 3, 10, 5, int64(12<<20)
	if soak() {
		clients, seeds, dead, size = 20, 100, 50, int64(100<<20)
	}
	all, modes := []string{"mixed"}, []string{"enforce"}
	if soak() {
		all, modes = append(all, actors.PeerKinds...), append(modes, "intercept")
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			for _, kind := range all {
				kinds := []string{kind}
				if kind == "mixed" {
					kinds = []string{"aria2", "qbittorrent", "rtorrent", "transmission"}
				}
				t.Run(kind, func(t *testing.T) {
					playRelease(t, newRelease(t, clients, seeds, dead, size), mode, kinds)
				})
			}
		})
	}
}

// TestSecureTracker: clients of an allowed torrent whose only tracker is behind
// TLS, where the box hears nothing of them.
func TestSecureTracker(t *testing.T) {
	kinds, seeds, dead, size, modes := actors.PeerKinds[:2], 10, 5, int64(12<<20), []string{"enforce"}
	if soak() {
		kinds, seeds, dead, size, modes = actors.PeerKinds, 100, 50, 100<<20, append(modes, "intercept")
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			r := newRelease(t, len(kinds), seeds, dead, size)
			r.startBox(t, mode, r.secure)
			r.torrent = r.secure
			r.play(t, kinds, mode, true, nil)
			figure(t, "release: "+mode+", tracker behind TLS: clients that did not finish", float64(r.late), 0, "clients")
		})
	}
}

// playRelease plays a day without the box, one with the box cold and one with it
// warm.
func playRelease(t *testing.T, r *release, mode string, kinds []string) {
	var base day
	if soak() {
		base = r.play(t, kinds, "baseline", false, nil)
	}
	box := r.startBox(t, mode)
	cold := r.play(t, kinds, mode+"-cold", false, func(ctx context.Context) error {
		_, err := box.Command(ctx, "add", r.torrent.V1.Path)
		return err
	})
	warm := r.play(t, kinds, mode+"-warm", true, nil)
	name := "release: " + mode + ", " + t.Name()[len("TestUnmodifiedClients/")+len(mode)+1:] + ": "
	var stats map[string]any
	if err := box.API(t.Context(), "/api/v1/status", &stats); err != nil {
		t.Error(err)
	}
	t.Logf("the box: %v", stats)
	figure(t, name+"piece bytes from outside, box cold", cold.outside, 1.03, "× content")
	figure(t, name+"piece bytes from outside, box warm", warm.outside, 0, "× content")
	figure(t, name+"flows of the box to peers, box cold", float64(cold.boxFlows), 150, "flows")
	figure(t, name+"flows of the box at once", float64(cold.boxPeak), 20, "flows")
	if !soak() {
		return // nothing to be compared with
	}
	figure(t, name+"bytes over the WAN, box warm", 100*warm.wan, 1, "% of content")
	coldShare, warmShare := 2.0, 2.0
	if mode == "intercept" {
		coldShare, warmShare = 25, 5
	}
	figure(t, name+"client flows to peers, box cold", 100*float64(cold.clientFlows)/float64(base.clientFlows), coldShare, "% of baseline")
	figure(t, name+"client flows to peers, box warm", 100*float64(warm.clientFlows)/float64(base.clientFlows), warmShare, "% of baseline")
	figure(t, name+"last client, box cold", cold.last.Seconds(), base.last.Seconds(), "s (baseline)")
}
