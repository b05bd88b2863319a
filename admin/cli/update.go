package cli

import (
	"fmt"
	"os"

	"github.com/cistern-edge/cistern/admin/client"
)

type updateCmd struct {
	File string `arg:"" optional:"" help:"Update file. Without one: show what runs and what became of the last update." type:"existingfile"`
}

func (c *updateCmd) Run(s *session) error {
	if c.File == "" {
		sys, err := s.box.System(s.ctx)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(sys)
		}
		sayBoxSystem(s, sys)
		return nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	defer f.Close()
	u, err := s.box.Update(s.ctx, f)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(u)
	}
	s.say("%s is in slot %s. The box restarts into it; \"cistern update\" tells what became of it.", plain(u.Version), plain(u.Slot))
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
