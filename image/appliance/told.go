package appliance

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// networkSettings is network.toml. Its zero value means DHCP on every wired
// interface.
type networkSettings struct {
	Name    string   `toml:"name"`    // default "cistern", found as cistern.local
	Address string   `toml:"address"` // with its prefix, of the first interface or of the bridge; empty: DHCP
	Gateway string   `toml:"gateway"`
	DNS     []string `toml:"dns"`
	Bridge  bool     `toml:"bridge"` // all wired interfaces are ports of one bridge, which has the address
	VLAN    int      `toml:"vlan"`   // 1 to 4094: the address is in this VLAN, tagged; 0: none
	NTP     []string `toml:"ntp"`    // servers, each HOST or HOST:PORT; empty: DHCP's, else pool.ntp.org
	Syslog  string   `toml:"syslog"` // server for the log, HOST or HOST:PORT (UDP); empty: none
}

// Validate reports every fault at once.
func (s networkSettings) Validate() error {
	var faults []error
	fault := func(key, value, what string) {
		faults = append(faults, fmt.Errorf("network.toml: %s: %q is no %s", key, value, what))
	}
	if _, err := netip.ParsePrefix(s.Address); s.Address != "" && err != nil {
		fault("address", s.Address, "address with a prefix, such as 192.0.2.10/24")
	}
	if _, err := netip.ParseAddr(s.Gateway); s.Gateway != "" && err != nil {
		fault("gateway", s.Gateway, "address")
	}
	for _, d := range s.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			fault("dns", d, "address")
		}
	}
	if s.VLAN < 0 || s.VLAN > 4094 {
		fault("vlan", fmt.Sprint(s.VLAN), "number from 1 to 4094")
	}
	if strings.ContainsFunc(s.Name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}) || len(s.Name) > 63 {
		fault("name", s.Name, "name of letters, digits and dashes")
	}
	return errors.Join(faults...)
}

// updateSettings is update.toml. Its zero value means that updates come by hand
// alone.
type updateSettings struct {
	Channel string `toml:"channel"` // URL of a channel's JSON file; empty: none
	At      string `toml:"at"`      // HH:MM in UTC at which the channel is looked at each day; empty: only when asked
}

// Validate reports every fault at once.
func (s updateSettings) Validate() error {
	var faults []error
	if u, err := url.Parse(s.Channel); s.Channel != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		faults = append(faults, fmt.Errorf("update.toml: channel: %q is no URL", s.Channel))
	}
	if _, err := time.Parse("15:04", cmp.Or(s.At, "00:00")); err != nil {
		faults = append(faults, fmt.Errorf("update.toml: at: %q is no time of the day, such as 03:30", s.At))
	}
	return errors.Join(faults...)
}

// readSettings reads a file of the box; one that is missing says nothing. Keys
// that nobody knows are faults.
func readSettings[T interface{ Validate() error }](file string) (s T, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return *new(T), fmt.Errorf("read %s: %w", file, err)
	}
	if err := s.Validate(); err != nil {
		return *new(T), err
	}
	return s, nil
}
