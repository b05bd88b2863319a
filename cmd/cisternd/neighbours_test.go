package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cistern-edge/cistern/admin"
	"github.com/cistern-edge/cistern/cache/steer"
	"github.com/cistern-edge/cistern/peering/tracker"
)

// What the tracker and the kernel know of a client becomes one line.
func TestClientsOf(t *testing.T) {
	one, two, three := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::3")
	got := clientsOf([]tracker.ClientStats{{Addr: one, Answered: 3, Avoided: 90}, {Addr: two, Answered: 1, Avoided: 5}},
		[]steer.ClientFlows{{Addr: three, Now: 4, Peak: 9}, {Addr: two, Now: 0, Peak: 2}})
	want := []admin.TorrentClient{
		{Address: "10.0.0.1", Answered: 3, Avoided: 90},
		{Address: "10.0.0.2", Answered: 1, Avoided: 5, FlowsPeak: 2},
		{Address: "fd00::3", FlowsNow: 4, FlowsPeak: 9},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
