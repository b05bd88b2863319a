package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

type updateCmd struct {
	File string `arg:"" optional:"" help:"Update file; - takes it from standard input. Without one: show what runs and what became of the last update." type:"existingfile"`
}

func (c *updateCmd) Run(s *session) error {
	if c.File == "" {
		return (&systemStatusCmd{}).show(s, false)
	}
	file, err := c.open(s)
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	defer file.Close()
	u, err := s.box.Update(s.ctx, file)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(u)
	}
	s.say("%s is in slot %s. The box restarts into it; \"cistern update\" tells what became of it.", plain(u.Version), plain(u.Slot))
	return nil
}

func (c *updateCmd) open(s *session) (io.ReadCloser, error) {
	switch {
	case c.File != "-":
		return os.Open(c.File)
	case s.env.Stdin == nil:
		return nil, os.ErrClosed
	default:
		return io.NopCloser(s.env.Stdin), nil
	}
}

type systemStatusCmd struct{}

func (c *systemStatusCmd) Run(s *session) error { return c.show(s, true) }

// show says what runs and what became of the last update, and if it is to say all,
// the rest.
func (c *systemStatusCmd) show(s *session, all bool) error {
	sys, err := s.box.System(s.ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(sys)
	}
	sayBoxSystem(s, sys)
	rows := [][]string{{"SLOT", "VERSION", "STATE", "STARTS", "WHY"}}
	for _, l := range sys.Slots {
		rows = append(rows, []string{l.Slot, orDash(l.Version), l.State, fmt.Sprint(l.Starts), orDash(l.Reason)})
	}
	table(s.env.Stdout, rows)
	if all {
		sayMachine(s, sys)
	}
	return nil
}

func sayBoxSystem(s *session, sys client.System) {
	state := "works"
	if !sys.Healthy {
		state = "waits for " + plain(sys.Waiting)
	}
	trial := ""
	if sys.OnTrial {
		trial = ", on trial"
	}
	s.say("%s in slot %s%s, start %d: %s", plain(sys.Version), plain(sys.Slot), trial, sys.Boots, state)
	if u := sys.Last; u != nil {
		s.say("last update: %s %s %s", plain(u.Version), plain(u.State), plain(u.Reason))
	}
}

// sayMachine says how the machine is and how it reaches the network.
func sayMachine(s *session, sys client.System) {
	rows := [][]string{{"INTERFACE", "KIND", "CABLE", "ADDRESSES"}}
	for _, l := range sys.Network.Links {
		cable, kind := "down", l.Kind
		if l.Up {
			cable = "up"
		}
		if l.Bridge != "" {
			kind += ", port of " + l.Bridge
		}
		rows = append(rows, []string{l.Name, kind, cable, orDash(strings.Join(l.Addresses, " "))})
	}
	table(s.env.Stdout, rows)
	by, clock := "DHCP", "set by "+plain(sys.TimeFrom)
	if sys.Network.Fixed {
		by = "network.toml"
	}
	if sys.TimeFrom == "" {
		clock = "set by nobody yet; asked: " + plain(orDash(strings.Join(sys.TimeServers, " ")))
	}
	s.say("\nname      %s, found as %s.local", plain(sys.Network.Name), plain(sys.Network.Name))
	s.say("address   by %s; gateway %s; DNS %s", by, plain(orDash(strings.Join(sys.Network.Gateways, " "))), plain(orDash(strings.Join(sys.Network.DNS, " "))))
	s.say("clock     %s UTC, %s", sys.Now.UTC().Format("2006-01-02 15:04:05"), clock)
	s.say("memory    %s of %s available", size(sys.MemAvailable), size(sys.MemTotal))
	s.say("daemon    ended %d times since %s", sys.Restarts, when(sys.Started))
	s.say("log       goes to %s", plain(cmp.Or(sys.Syslog, "the ring alone (cistern system log)")))
	s.say("updates   %s", strings.TrimPrefix(schedule(sys.Channel, sys.At), "updates "))
}

func orDash(text string) string { return cmp.Or(text, "-") }
