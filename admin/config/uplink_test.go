package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestUplink(t *testing.T) {
	cfg, err := Parse([]byte(`
[origin]
max_connections = 100
max_wait = "5s"
[wan]
rate = "100 Mbit/s"
[[wan.hours]]
from = "22:00"
to = "06:30"
rate = "0"
`))
	if err != nil {
		t.Fatal(err)
	}
	h := cfg.WAN.Hours[0]
	if cfg.WAN.Rate != 100e6 || time.Duration(h.From) != 22*time.Hour || h.To.String() != "06:30" || cfg.Origin.MaxConnections != 100 || cfg.Origin.MaxConnectionsPerHost != 64 {
		t.Errorf("%+v %+v", cfg.WAN, cfg.Origin)
	}
	_, err = Parse([]byte(`
[origin]
max_connections = 0
max_connections_per_host = 5
max_waiting = 0
max_wait = "1h"
[wan]
rate = "5bit"
[[wan.hours]]
from = "25:00"
[[wan.hours]]
rate = "1kbit"
`))
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	for _, key := range []string{"origin.max_connections", "origin.max_connections_per_host", "origin.max_waiting", "origin.max_wait", "wan.rate", "wan.hours[0].from", "wan.hours[1].rate"} {
		if !strings.Contains(err.Error(), key+":") && !strings.Contains(err.Error(), key+" ") {
			t.Errorf("%s is no fault of %v", key, err)
		}
	}
}
