package config

import (
	"fmt"
	"time"
)

// Origin is how the box asks origins.
type Origin struct {
	// MaxConnections at once, 1 to 100000.
	MaxConnections int `toml:"max_connections" comment:"Connections to origins at once, all together."`
	// MaxConnectionsPerHost at once, 1 to MaxConnections.
	MaxConnectionsPerHost int `toml:"max_connections_per_host" comment:"Connections to one origin at once."`
	// MaxWaiting is how many requests may wait for a connection, 1 to 1000000.
	MaxWaiting int `toml:"max_waiting" comment:"Requests that may wait for a connection; more are answered 503."`
	// MaxWait is how long one may wait, 1 second to 10 minutes.
	MaxWait Duration `toml:"max_wait" comment:"How long a request waits for a connection before it is answered 503."`
	// Offline is "auto", "on" or "off".
	Offline string `toml:"offline" comment:"Whether the uplink counts as down: \"auto\" (found out), \"on\" (always: only what is here is served) or \"off\" (never)."`
}

// WAN is what the box may take of the uplink.
type WAN struct {
	// Rate of all bodies from hosts that are not private; 0: unlimited.
	Rate Rate `toml:"rate" comment:"What the box may take of the uplink, such as \"100Mbit\"; \"0\": all of it. The LAN is not capped."`
	// Hours have rates of their own. The first that matches counts.
	Hours []Hours `toml:"hours" comment:"Other rates by the hour, each a table [[wan.hours]] with from, to and rate."`
}

// Hours is a part of each day.
type Hours struct {
	From Clock `toml:"from" comment:"Begin, local time, such as \"08:00\"."`
	To   Clock `toml:"to" comment:"End, such as \"16:30\"; over midnight if it is not later than from."`
	Rate Rate  `toml:"rate" comment:"The rate within; \"0\": unlimited."`
}

// Clock is a time of day, written "08:30": how long after midnight.
type Clock time.Duration

// UnmarshalText reads a time of day.
func (c *Clock) UnmarshalText(text []byte) error {
	at, err := time.Parse("15:04", string(text))
	if err != nil {
		return fmt.Errorf("time of day %q: write it like \"08:30\"", clip(text))
	}
	*c = Clock(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute)
	return nil
}

// MarshalText gives String.
func (c Clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String is hours and minutes.
func (c Clock) String() string {
	d := time.Duration(c)
	return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute)
}

func (o Origin) check(f *Faults) {
	between(f, "origin.max_connections", o.MaxConnections, 1, 100_000)
	between(f, "origin.max_connections_per_host", o.MaxConnectionsPerHost, 1, max(o.MaxConnections, 1))
	between(f, "origin.max_waiting", o.MaxWaiting, 1, 1_000_000)
	if d := time.Duration(o.MaxWait); d < time.Second || d > 10*time.Minute {
		f.add(0, "origin.max_wait", "%v is not between 1s and 10m", o.MaxWait)
	}
	oneOf(f, "origin.offline", o.Offline, "auto", "on", "off")
}

func (w WAN) check(f *Faults) {
	usable := func(key string, r Rate) {
		if r != 0 && (r < 100e3 || r > 100e9) {
			f.add(0, key, "%v is neither 0 nor between 100kbit and 100Gbit", r)
		}
	}
	usable("wan.rate", w.Rate)
	for i, h := range w.Hours {
		usable(fmt.Sprintf("wan.hours[%d].rate", i), h.Rate)
	}
}
