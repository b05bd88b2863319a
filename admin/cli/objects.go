package cli

import (
	"context"
	"fmt"

	"github.com/cistern-edge/cistern/admin/client"
)

// which names the objects of a command.
type which struct {
	Objects []string `arg:"" name:"object" help:"Number, identity (or its beginning), URL or title."`
}

type (
	pinCmd   struct{ which }
	unpinCmd struct{ which }
	castCmd  struct{ which }
)

func (c *pinCmd) Run(s *session) error   { return c.each(s, "pinned", s.box.Pin) }
func (c *unpinCmd) Run(s *session) error { return c.each(s, "unpinned", s.box.Unpin) }
func (c *castCmd) Run(s *session) error  { return c.each(s, "casting", s.box.Cast) }

// each does one thing to every object and stops at the first that fails.
func (w *which) each(s *session, did string, do func(context.Context, string) (client.Object, error)) error {
	all := []client.Object{}
	for _, name := range w.Objects {
		o, err := do(s.ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !s.json {
			s.say("%s object %d: %s", did, o.Num, plain(o.Title))
		}
		all = append(all, o)
	}
	if s.json {
		return s.printJSON(all)
	}
	return nil
}

type snippetsCmd struct {
	Address string `help:"The box's address on the LAN, with a port if it is not 3142. Without it the box is asked." placeholder:"HOST[:PORT]"`
	For     string `help:"Only for this server: dnsmasq, kea, isc or openwrt." enum:"dnsmasq,kea,isc,openwrt," default:"" placeholder:"SERVER"`
}

func (c *snippetsCmd) Run(s *session) error {
	var list []client.Snippet
	var err error
	if c.Address != "" {
		list, err = client.Snippets(c.Address)
	} else {
		list, err = s.box.Snippets(s.ctx, "")
	}
	if err != nil {
		return err
	}
	kept := []client.Snippet{}
	for _, snippet := range list {
		if c.For == "" || c.For == snippet.Name {
			kept = append(kept, snippet)
		}
	}
	if s.json {
		return s.printJSON(kept)
	}
	for i, snippet := range kept {
		if i > 0 {
			s.say("")
		}
		s.say("# %s: %s\n%s", snippet.Name, snippet.Hint, snippet.Text)
	}
	return nil
}

type agentsCmd struct {
	List   agentsListCmd   `cmd:"" default:"1" help:"List the enrolled agents and the line that enrols one."`
	Revoke agentsRevokeCmd `cmd:"" help:"Take an agent's enrolment away."`
}

type agentsListCmd struct{}

func (agentsListCmd) Run(s *session) error {
	list, err := s.box.Agents(s.ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(list)
	}
	rows := [][]string{{"NODE", "NAME", "ADDRESS", "ENROLLED", "HEARD"}}
	for _, a := range list {
		heard := "never"
		if !a.LastHeard.IsZero() {
			heard = a.LastHeard.Local().Format("2006-01-02 15:04:05")
		}
		rows = append(rows, []string{a.Node, a.Name, a.Address, a.Enrolled.Local().Format("2006-01-02"), heard})
	}
	enrolment, err := s.box.Enrolment(s.ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		s.say("No host is enrolled.")
	}
	table(s.env.Stdout, rows)
	s.say("\nTo enrol a host, run there:\n  %s", plain(enrolment.Line))
	return nil
}

type agentsRevokeCmd struct {
	Node string `arg:"" help:"NormNodeId of the agent."`
}

func (c *agentsRevokeCmd) Run(s *session) error {
	if err := s.box.Revoke(s.ctx, c.Node); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]string{"revoked": c.Node})
	}
	s.say("revoked %s", plain(c.Node))
	return nil
}
