package cli

import (
	"fmt"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// systemCmd commands the appliance under a box.
type systemCmd struct {
	Status   systemStatusCmd `cmd:"" help:"Show how the appliance is: slots, last update, network, clock, memory."`
	Log      logCmd          `cmd:"" help:"Print the last lines that the appliance and its daemon wrote."`
	Disks    disksCmd        `cmd:"" help:"List the machine's disks and what they hold."`
	Install  installCmd      `cmd:"" help:"Copy the running system to another disk of the machine, which erases it."`
	Reset    resetCmd        `cmd:"" help:"Factory reset: erase what the box has stored and been told."`
	Restart  restartCmd      `cmd:"" help:"Restart the machine."`
	PowerOff powerOffCmd     `cmd:"" help:"Turn the machine off. It comes back when somebody presses its button."`
	Check    checkCmd        `cmd:"" help:"Look at the update channel, and update if it has something newer."`
	SSHKey   sshKeyCmd       `cmd:"" name:"ssh-key" help:"Say who may come in by SSH; without any key it is off."`
	Schedule scheduleCmd     `cmd:"" help:"Say which channel updates come from and when it is looked at; without flags: show it."`
}

type powerOffCmd struct {
	Yes bool `help:"Do not ask." short:"y"`
}

func (c *powerOffCmd) Run(s *session) error {
	if err := s.confirm(c.Yes, "somebody has to press the machine's button to turn it on again"); err != nil {
		return err
	}
	return s.order(client.SystemOrder{Do: client.PowerOff}, "The box turns itself off.")
}

type scheduleCmd struct {
	Channel *string `help:"Address of the channel's latest-….json." placeholder:"URL" xor:"channel"`
	At      *string `help:"Time of the day in UTC at which it is looked at, each day; \"\": only when asked." placeholder:"HH:MM" xor:"at"`
	Off     bool    `help:"Forget the channel: updates come by hand alone." xor:"channel,at"`
}

// Run keeps what no flag names.
func (c *scheduleCmd) Run(s *session) error {
	sys, err := s.box.System(s.ctx)
	if err != nil {
		return err
	}
	o := client.SystemOrder{Do: client.Schedule, Channel: sys.Channel, At: sys.At}
	switch {
	case c.Off:
		o.Channel, o.At = "", ""
	case c.Channel == nil && c.At == nil && s.json:
		return s.printJSON(map[string]string{"channel": sys.Channel, "at": sys.At})
	case c.Channel == nil && c.At == nil:
		s.say("%s", schedule(sys.Channel, sys.At))
		return nil
	}
	if c.Channel != nil {
		o.Channel = *c.Channel
	}
	if c.At != nil {
		o.At = *c.At
	}
	return s.order(o, "Kept: "+schedule(o.Channel, o.At))
}

// schedule is a schedule in words.
func schedule(channel, at string) string {
	switch {
	case channel == "":
		return "updates come by hand alone (cistern update FILE, the panel, a USB stick)"
	case at == "":
		return "updates come from " + plain(channel) + ", when asked (cistern system check)"
	default:
		return "updates come from " + plain(channel) + ", looked at each day at " + plain(at) + " UTC"
	}
}

type logCmd struct {
	Level string `help:"These and worse: debug, info, warn or error." enum:",debug,info,warn,error" default:"" placeholder:"LEVEL"`
	Unit  string `help:"Only what this program wrote: system, cisternd or ssh." placeholder:"NAME"`
	Lines int    `help:"Only the last so many; 0: all that are kept." default:"200" short:"n"`
}

func (c *logCmd) Run(s *session) error {
	text, err := s.box.SystemLog(s.ctx, client.LogQuery{Level: c.Level, Unit: c.Unit, Lines: c.Lines})
	if err != nil {
		return err
	}
	lines := []string{}
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	if s.json {
		return s.printJSON(lines)
	}
	for _, line := range lines {
		s.say("%s", plain(line))
	}
	if len(lines) == 0 {
		fmt.Fprintln(s.env.Stderr, "no line is kept that fits")
	}
	return nil
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
