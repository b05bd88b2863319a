//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Members tells how many ports of a snooping switch have reported that they want
// a group. A host reports some milliseconds after the join; until then the switch
// keeps the group from it.
func (s *Switch) Members(group netip.Addr) (int, error) {
	if err := s.lab.alive(); err != nil {
		return 0, fmt.Errorf("members of %s: %w", group, err)
	}
	var messages [][]byte
	err := s.ns.do(func() (err error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETMDB, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_BRIDGE))
		messages, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_GETMDB)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("list groups of switch %s: %w", s.name, err)
	}
	ports := map[uint32]bool{}
	for _, m := range messages {
		const header = 8 // struct br_port_msg: family, ifindex
		if len(m) < header {
			continue
		}
		err := eachAttr(m[header:], 1, func(mdb []byte) error { // MDBA_MDB
			return eachAttr(mdb, 1, func(entry []byte) error { // MDBA_MDB_ENTRY
				return eachAttr(entry, 1, func(info []byte) error { // MDBA_MDB_ENTRY_INFO
					if port, of, ok := parseMember(info); ok && of == group {
						ports[port] = true
					}
					return nil
				})
			})
		})
		if err != nil {
			return 0, fmt.Errorf("list groups of switch %s: %w", s.name, err)
		}
	}
	return len(ports), nil
}

// eachAttr calls f with the value of each netlink attribute of a kind.
func eachAttr(data []byte, kind uint16, f func([]byte) error) error {
	attrs, err := nl.ParseRouteAttr(data)
	if err != nil {
		return fmt.Errorf("parse attributes: %w", err)
	}
	for _, a := range attrs {
		if a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			if err := f(a.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseMember reads struct br_mdb_entry: the port and the group it wants.
func parseMember(b []byte) (port uint32, group netip.Addr, ok bool) {
	const address, proto, size = 8, 24, 28
	if len(b) < size {
		return 0, group, false
	}
	port = binary.NativeEndian.Uint32(b)
	switch binary.BigEndian.Uint16(b[proto:]) {
	case unix.ETH_P_IP:
		return port, netip.AddrFrom4([4]byte(b[address:])), true
	case unix.ETH_P_IPV6:
		return port, netip.AddrFrom16([16]byte(b[address:])), true
	}
	return 0, group, false
}
