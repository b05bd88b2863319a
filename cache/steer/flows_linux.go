package steer

import (
	"context"
	"net/netip"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// flowsEvery is the time between looks at the connections that are tracked.
const flowsEvery = 10 * time.Second

// watchFlows counts the flows of clients with peers outside, until ctx is done or
// the kernel does not say.
func (s *Service) watchFlows(ctx context.Context) {
	c, err := conntrack.Dial(nil)
	if err != nil {
		s.log.Warn("failed to look at tracked connections", "err", err)
		return
	}
	defer c.Close()
	tick := time.NewTicker(flowsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		entries, err := c.Dump(nil)
		if err != nil {
			s.log.Warn("stopped looking at tracked connections", "err", err)
			return
		}
		s.countFlows(entries)
	}
}

func (s *Service) countFlows(entries []conntrack.Flow) {
	peers := map[netip.AddrPort]bool{}
	for _, ap := range s.swarm.Outside() {
		peers[netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())] = true
	}
	now := map[netip.Addr]int{}
	for _, e := range entries {
		to := e.TupleOrig
		if p := to.Proto.Protocol; p != unix.IPPROTO_TCP && p != unix.IPPROTO_UDP {
			continue
		}
		if s.cfg.inside(to.IP.SourceAddress) && peers[netip.AddrPortFrom(to.IP.DestinationAddress.Unmap(), to.Proto.DestinationPort)] {
			now[to.IP.SourceAddress.Unmap()]++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	noteFlows(s.flows, now)
}
