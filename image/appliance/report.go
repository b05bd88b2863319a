package appliance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/cistern-edge/cistern/image"
)

// Report is a State with what somebody wants to know who looks after the box.
type Report struct {
	State
	Name     string    `json:"name"`
	Now      time.Time `json:"now"` // by the box's own clock
	MemTotal int64     `json:"mem_total,omitempty"`
	Slots    []Slot    `json:"slots"` // a, then b
	Links    []Link    `json:"links"`
	Gateways []string  `json:"gateways"`
	DNS      []string  `json:"dns"`
	Fixed    bool      `json:"fixed"`             // the address is that of network.toml; else DHCP's
	NTP      []string  `json:"ntp"`               // servers that are asked
	Syslog   string    `json:"syslog,omitempty"`  // server for the log; empty: none
	Channel  string    `json:"channel,omitempty"` // URL; empty: none
	At       string    `json:"at,omitempty"`      // HH:MM in UTC at which the channel is looked at
	SSH      SSH       `json:"ssh"`
}

// Slot is one of the two places for a system, as far as anything was noted of it
// since the data was made.
type Slot struct {
	Slot    image.Slot `json:"slot"`
	Version string     `json:"version,omitempty"` // empty: nobody knows what is in it
	Serial  uint64     `json:"serial,omitempty"`
	State   string     `json:"state"`  // running, trial, next, previous, failed, unknown
	Starts  uint64     `json:"starts"` // of this version from this slot
	Reason  string     `json:"reason,omitempty"`
}

// What a Slot can be.
const (
	SlotRunning  = "running"
	SlotTrial    = "trial"    // runs, and has still to show that it works
	SlotNext     = "next"     // the next start is into it
	SlotPrevious = "previous" // what comes back if need be
	SlotFailed   = "failed"   // did not work here
	SlotUnknown  = "unknown"
)

// slotsFile is what was noted of the slots, by their names.
const slotsFile = "slots.json"

// Link is a network interface of the box, or the bridge or VLAN that it made.
type Link struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"` // wired, bridge, VLAN 20
	MAC       string   `json:"mac,omitempty"`
	Up        bool     `json:"up"`               // with a cable, and somebody at its end
	Bridge    string   `json:"bridge,omitempty"` // that it is a port of
	Addresses []string `json:"addresses"`        // with their prefixes
}

// Report is a snapshot.
func (b *Box) Report() Report {
	r := Report{State: b.State(), Name: hostname(), Now: time.Now(), MemTotal: meminfo("MemTotal"), Slots: b.slots(), Links: links(), Gateways: gateways(), DNS: nameServers()}
	s := b.updates.get()
	r.Channel, r.At = s.Channel, s.At
	settings, err := readSettings[networkSettings](networkFile)
	if err == nil { // a fault was told of at the start
		r.Fixed, r.Syslog = settings.Address != "", settings.Syslog
	}
	r.SSH = b.SSH()
	r.NTP = b.net.timeServers(settings.NTP)
	return r
}

// slots tells what is in both.
func (b *Box) slots() []Slot {
	noted := b.notedSlots()
	s := b.State()
	var list []Slot
	for _, name := range []image.Slot{image.SlotA, image.SlotB} {
		slot := noted[name]
		slot.Slot = name
		switch mine := s.Last != nil && s.Last.Slot == string(name); {
		case name == s.Slot && s.OnTrial:
			slot.State = SlotTrial
		case name == s.Slot:
			slot.State, slot.Reason = SlotRunning, ""
		case mine && s.Last.State == "trial":
			slot.State = SlotNext
		case mine && s.Last.State == "failed":
			slot.Version, slot.State, slot.Reason = s.Last.Version, SlotFailed, s.Last.Reason
		case slot.Version == "":
			slot.State = SlotUnknown
		case slot.Reason != "":
			slot.State = SlotFailed
		default:
			slot.State = SlotPrevious
		}
		if name == s.Slot {
			slot.Version, slot.Serial = s.Release.Version, s.Release.Serial
		}
		list = append(list, slot)
	}
	return list
}

func (b *Box) notedSlots() map[image.Slot]Slot {
	noted := map[image.Slot]Slot{}
	if err := readJSON(filepath.Join(b.state, slotsFile), &noted); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("failed to read what was noted of the slots", "err", err)
	}
	if noted == nil { // the file says null
		noted = map[image.Slot]Slot{}
	}
	return noted
}

// noteSlots counts this start in its slot, and keeps why the other one failed.
func (b *Box) noteSlots() {
	noted := b.notedSlots()
	own := noted[b.boot.Slot]
	if own.Serial != b.release.Serial {
		own = Slot{}
	}
	own.Version, own.Serial, own.Reason = b.release.Version, b.release.Serial, ""
	own.Starts++
	noted[b.boot.Slot] = own
	if last := b.State().Last; last != nil && last.State == "failed" && last.Slot == string(b.boot.Slot.Other()) {
		noted[b.boot.Slot.Other()] = Slot{Version: last.Version, Serial: last.Serial, Starts: uint64(max(last.Starts, 0)), Reason: last.Reason}
	}
	b.keepSlots(noted)
}

// noteUpdate keeps what was written to a slot; nothing whole, if version is
// empty.
func (b *Box) noteUpdate(slot image.Slot, version string, serial uint64) {
	noted := b.notedSlots()
	noted[slot] = Slot{Version: version, Serial: serial}
	b.keepSlots(noted)
}

func (b *Box) keepSlots(noted map[image.Slot]Slot) {
	text, err := json.Marshal(noted)
	if err == nil {
		err = writeFile(filepath.Join(b.state, slotsFile), text, 0o644)
	}
	if err != nil {
		b.log.Error("failed to note what the slots hold", "err", err)
	}
}

// links are the interfaces but loopback, with what they have.
func links() []Link {
	list := []Link{}
	all, err := netlink.LinkList()
	if err != nil {
		return list
	}
	names := map[int]string{}
	for _, l := range all {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range all {
		a := l.Attrs()
		kind := "wired"
		switch l := l.(type) {
		case *netlink.Bridge:
			kind = "bridge"
		case *netlink.Vlan:
			kind = fmt.Sprintf("VLAN %d", l.VlanId)
		case *netlink.Device:
		default:
			kind = l.Type()
		}
		if a.Flags&net.FlagLoopback != 0 {
			continue
		}
		link := Link{Name: a.Name, Kind: kind, MAC: a.HardwareAddr.String(), Up: carrier(l), Bridge: names[a.MasterIndex], Addresses: []string{}}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			addrs = nil // it has just gone
		}
		for _, addr := range addrs {
			link.Addresses = append(link.Addresses, addr.IPNet.String())
		}
		list = append(list, link)
	}
	return list
}

// gateways are the ways out.
func gateways() []string {
	list := []string{}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return list
	}
	for _, r := range routes {
		if ones := prefix(r.Dst); ones == 0 && r.Gw != nil {
			list = append(list, r.Gw.String())
		}
	}
	return list
}

// prefix is a network's length; that of no network is 0.
func prefix(n *net.IPNet) int {
	if n == nil {
		return 0
	}
	ones, _ := n.Mask.Size()
	return ones
}

// nameServers are those of resolv.conf.
func nameServers() []string {
	list := []string{}
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return list
	}
	for line := range bytes.Lines(text) {
		if fields := strings.Fields(string(line)); len(fields) == 2 && fields[0] == "nameserver" {
			list = append(list, fields[1])
		}
	}
	return list
}
