package steer

import (
	"cmp"
	"net/netip"
	"slices"
)

// maxFlowClients bounds the clients whose flows are remembered.
const maxFlowClients = 256

// noteFlows takes in how many flows each client has now.
func noteFlows(flows map[netip.Addr]*ClientFlows, now map[netip.Addr]int) {
	for addr, f := range flows {
		f.Now = now[addr]
	}
	for addr, n := range now {
		f := flows[addr]
		if f == nil {
			if len(flows) >= maxFlowClients {
				continue
			}
			f = &ClientFlows{Addr: addr}
			flows[addr] = f
		}
		f.Now, f.Peak = n, max(f.Peak, n)
	}
}

func sortedFlows(flows map[netip.Addr]*ClientFlows) []ClientFlows {
	list := make([]ClientFlows, 0, len(flows))
	for _, f := range flows {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b ClientFlows) int { return cmp.Or(cmp.Compare(b.Peak, a.Peak), a.Addr.Compare(b.Addr)) })
	return list
}
