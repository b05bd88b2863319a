package steer

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes deliver to this host whatever carries the mark, for both families.
type routes struct {
	rules  []*netlink.Rule
	routes []*netlink.Route
}

// addRoutes replaces what a box that was killed has left.
func addRoutes(mark uint32, table int) (*routes, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	r := &routes{}
	for family, bits := range map[int]int{unix.AF_INET: 32, unix.AF_INET6: 128} {
		route := &netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: table, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
			Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
		}
		if err := netlink.RouteReplace(route); err != nil {
			return nil, errors.Join(fmt.Errorf("add route for what is taken: %w", err), r.remove())
		}
		r.routes = append(r.routes, route)
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table = family, mark, table
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, errors.Join(fmt.Errorf("add routing rule for what is taken: %w", err), r.remove())
		}
		r.rules = append(r.rules, rule)
	}
	return r, nil
}

func (r *routes) remove() error {
	var errs []error
	for _, rule := range r.rules {
		errs = append(errs, netlink.RuleDel(rule))
	}
	for _, route := range r.routes {
		errs = append(errs, netlink.RouteDel(route))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove routes for what is taken: %w", err)
	}
	return nil
}
