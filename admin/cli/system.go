package cli

import (
	"fmt"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// systemCmd commands the appliance under a box.
type systemCmd struct {
	Disks   disksCmd   `cmd:"" help:"List the machine's disks and what they hold."`
	Install installCmd `cmd:"" help:"Copy the running system to another disk of the machine, which erases it."`
	Reset   resetCmd   `cmd:"" help:"Factory reset: erase what the box has stored and been told."`
	Restart restartCmd `cmd:"" help:"Restart the machine."`
	Check   checkCmd   `cmd:"" help:"Look at the update channel, and update if it has something newer."`
}

type disksCmd struct{}

func (disksCmd) Run(s *session) error {
	disks, err := s.box.Disks(s.ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(disks)
	}
	for _, d := range disks {
		s.say("%s", aboutDisk(d))
	}
	return nil
}

func aboutDisk(d client.Disk) string {
	holds := "nothing that is known"
	if len(d.Holds) > 0 {
		holds = plain(strings.Join(d.Holds, ", "))
	}
	text := fmt.Sprintf("%s %s %s: %s", plain(d.Name), plain(d.Model), size(d.Bytes), holds)
	switch {
	case d.Own:
		text += " (the system runs from it)"
	case d.TooSmall:
		text += " (too small to install on)"
	}
	return text
}

type installCmd struct {
	Disk string `arg:"" help:"Name of the disk, as \"system disks\" gives it."`
	Yes  bool   `help:"Do not ask." short:"y"`
}

func (c *installCmd) Run(s *session) error {
	disks, err := s.box.Disks(s.ctx)
	if err != nil {
		return err
	}
	for _, d := range disks {
		if d.Name != c.Disk {
			continue
		}
		if err := s.confirm(c.Yes, "this erases all that is on "+aboutDisk(d)); err != nil {
			return err
		}
		return s.order(client.SystemOrder{Do: client.Install, Disk: c.Disk, Erase: true}, "Installed on "+plain(c.Disk)+". Take the stick out before the machine restarts.")
	}
	return fmt.Errorf("install: the machine has no disk %q", c.Disk)
}

type resetCmd struct {
	Yes bool `help:"Do not ask." short:"y"`
}

func (c *resetCmd) Run(s *session) error {
	if err := s.confirm(c.Yes, "this erases all that the box has stored and been told"); err != nil {
		return err
	}
	return s.order(client.SystemOrder{Do: client.Reset, Erase: true}, "The box restarts as on its first day.")
}

type restartCmd struct{}

func (restartCmd) Run(s *session) error {
	return s.order(client.SystemOrder{Do: client.Restart}, "The box restarts.")
}

type checkCmd struct{}

func (checkCmd) Run(s *session) error {
	return s.order(client.SystemOrder{Do: client.CheckChannel}, "The box restarts into it; \"cistern update\" tells what became of it.")
}

// order has the appliance do something and says what came of it.
func (s *session) order(o client.SystemOrder, said string) error {
	u, err := s.box.Order(s.ctx, o)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(u)
	}
	if u.State == "current" {
		said = plain(u.Reason)
	}
	s.say("%s", said)
	return nil
}
