package config

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Tracker answers announces of torrent clients on the LAN with the box.
type Tracker struct {
	// Listen are address:port, HTTP and UDP. Empty: announces are answered on
	// their way to other trackers only, as steer.mode says.
	Listen []string `toml:"listen" comment:"Where torrent clients announce, by HTTP and UDP, such as [\":6969\"]; with \":80\" also as retracker.local."`
	// Allow are infohashes, 40 or 64 hexadecimal digits.
	Allow []string `toml:"allow" comment:"Infohashes of torrents that the box joins once a client announces them."`
}

// Steer leads hosts of the LAN to a box that is their router.
type Steer struct {
	// Mode is "polite", "intercept" or "enforce".
	Mode string `toml:"mode" comment:"\"polite\": nobody is led; \"intercept\": announces are answered on their way; \"enforce\": also no flows to peers that the box has."`
	// Interfaces are those of the LAN.
	Interfaces []string `toml:"interfaces" comment:"Interfaces of the LAN for which this box is the router, such as [\"br-lan\"]."`
	// Web leads TCP port 80 through the proxy.
	Web bool `toml:"web" comment:"Whether plain HTTP (port 80) goes through the proxy, where the mode is not polite."`
}

// Hashes gives the infohashes as trackers have them: 20 bytes of each.
func (t Tracker) Hashes() [][20]byte {
	var list [][20]byte
	for _, text := range t.Allow {
		if h, err := infohash(text); err == nil {
			list = append(list, h)
		}
	}
	return list
}

func infohash(text string) (h [20]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 20 && len(b) != 32 {
		return h, fmt.Errorf("%q is not an infohash of 40 or 64 hexadecimal digits", clip([]byte(text)))
	}
	return [20]byte(b[:20]), nil
}

func (t Tracker) check(f *Faults) {
	for _, l := range t.Listen {
		listenable(f, "tracker.listen", l)
	}
	for _, text := range t.Allow {
		if _, err := infohash(text); err != nil {
			f.add(0, "tracker.allow", "%v", err)
		}
	}
}

func (s Steer) check(f *Faults, withPeering bool) {
	oneOf(f, "steer.mode", s.Mode, "polite", "intercept", "enforce")
	for i, name := range s.Interfaces {
		if name == "" || len(name) > 15 || strings.ContainsAny(name, " \t\n/") {
			f.add(0, "steer.interfaces", "%q is not the name of a network interface", clip([]byte(name)))
		}
		if slices.Index(s.Interfaces, name) != i {
			f.add(0, "steer.interfaces", "%q is named twice", clip([]byte(name)))
		}
	}
	switch {
	case s.Mode == "polite":
	case len(s.Interfaces) == 0:
		f.add(0, "steer.interfaces", "names no interface; mode %q needs the LAN's", s.Mode)
	case !withPeering:
		f.add(0, "steer.mode", "%q needs peering.enabled", s.Mode)
	}
}
