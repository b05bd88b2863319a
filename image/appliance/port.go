package appliance

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is that of the one bridge.
const bridgeName = "br0"

// port brings a wired interface up and gives what has the address: itself, the
// bridge that it is a port of, or a VLAN on either.
func (n *network) port(link netlink.Link, s networkSettings) (netlink.Link, error) {
	if s.Bridge {
		br, err := bridge(link)
		if err != nil {
			return nil, fmt.Errorf("bridge: %w", err)
		}
		if err := netlink.LinkSetMaster(link, br); err != nil {
			return nil, fmt.Errorf("bridge: %w", err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, err
		}
		link = br
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, err
	}
	if s.VLAN == 0 {
		return link, nil
	}
	tagged := &netlink.Vlan{LinkAttrs: netlink.NewLinkAttrs(), VlanId: s.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	tagged.Name, tagged.ParentIndex = fmt.Sprintf("%s.%d", link.Attrs().Name, s.VLAN), link.Attrs().Index
	return made(tagged)
}

// bridge gives the bridge, and makes it with the first port's address.
func bridge(first netlink.Link) (netlink.Link, error) {
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name, br.HardwareAddr = bridgeName, first.Attrs().HardwareAddr
	return made(br)
}

// made makes a link if it is not there, and gives it, up.
func made(l netlink.Link) (netlink.Link, error) {
	if err := netlink.LinkAdd(l); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	there, err := netlink.LinkByName(l.Attrs().Name)
	if err != nil {
		return nil, err
	}
	return there, netlink.LinkSetUp(there)
}
