package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Mode says how far the box goes.
type Mode string

// The modes.
const (
	// Polite leads nobody: clients find the box by local discovery (BEP 14) and
	// its tracker by name.
	Polite Mode = "polite"
	// Intercept answers announces on their way out.
	Intercept Mode = "intercept"
	// Enforce also rejects flows to peers that the box has already.
	Enforce Mode = "enforce"
)

// Config says what is taken, from whom.
type Config struct {
	// Mode is Polite where it is empty.
	Mode Mode
	// Interfaces are those of the LAN, such as "br-lan". What comes in by another
	// one is never touched.
	Interfaces []string
	// LAN are the networks inside: flows to them pass, and hosts elsewhere are
	// never clients. Empty: nothing is taken.
	LAN []netip.Prefix
	// Web leads TCP port 80 through the proxy. Without it announces on port 80 are
	// answered all the same, and everything else there passes.
	Web bool
	// Ports are the TCP ports beside 80 on which trackers are looked for; empty
	// means 1337, 2710 and 6969. UDP trackers are recognised on any port.
	Ports []uint16
	// Port is that of the sockets on loopback where what was taken arrives; 0
	// means 3129.
	Port uint16
	// Mark is the routing mark of what is to be delivered here; 0 means 0x43540000.
	// Table is the routing table for it; 0 means 4354.
	Mark  uint32
	Table int
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if !slices.Contains([]Mode{"", Polite, Intercept, Enforce}, c.Mode) {
		faults = append(faults, fmt.Errorf("steer.mode: %q is none of polite, intercept, enforce", c.Mode))
	}
	if c.active() && len(c.Interfaces) == 0 {
		faults = append(faults, errors.New("steer.interfaces: names no interface of the LAN"))
	}
	for i, name := range c.Interfaces {
		if name == "" || len(name) > 15 {
			faults = append(faults, fmt.Errorf("steer.interfaces[%d]: %q is not the name of an interface", i, name))
		}
	}
	for i, p := range c.LAN {
		if !p.IsValid() {
			faults = append(faults, fmt.Errorf("steer.lan[%d]: is no network", i))
		}
	}
	if slices.Contains(c.Ports, 0) {
		faults = append(faults, errors.New("steer.ports: 0 is not a port"))
	}
	if c.Table < 0 {
		faults = append(faults, fmt.Errorf("steer.table: %d is negative", c.Table))
	}
	return errors.Join(faults...)
}

func (c Config) active() bool { return c.Mode == Intercept || c.Mode == Enforce }

func (c Config) withDefaults() Config {
	if len(c.Ports) == 0 {
		c.Ports = []uint16{1337, 2710, 6969}
	}
	if c.Port == 0 {
		c.Port = 3129
	}
	if c.Mark == 0 {
		c.Mark = 0x43540000
	}
	if c.Table == 0 {
		c.Table = 4354
	}
	return c
}

// inside says whether an address lies in the LAN.
func (c Config) inside(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(c.LAN, func(p netip.Prefix) bool { return p.Contains(a) })
}
