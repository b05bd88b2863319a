package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/admin/config"
)

type evictCmd struct {
	What  []string `arg:"" help:"Number, identity (or its beginning), URL or title; with *, a pattern of hosts or URLs."`
	Match bool     `help:"Take what is given for patterns even without *: a host stands for all that came from it."`
	Yes   bool     `help:"Do not ask, even if several objects or pinned ones go." short:"y"`
}

func (c *evictCmd) Run(s *session) error {
	var objects []client.Object // by name
	var patterns []string
	count, pinned, bytes := 0, 0, int64(0)
	for _, what := range c.What {
		var found []client.Object
		if c.Match || strings.Contains(what, "*") {
			list, err := s.box.Matching(s.ctx, what)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			patterns, found = append(patterns, what), list
		} else {
			o, err := s.box.Object(s.ctx, what)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			objects, found = append(objects, o), []client.Object{o}
		}
		for _, o := range found {
			count++
			bytes += max(o.Readable, 0)
			if o.Pinned {
				pinned++
			}
		}
	}
	if count == 0 {
		return errors.New("evict: no object has a name that fits")
	}
	if count > 1 || pinned > 0 {
		if err := s.confirm(c.Yes, fmt.Sprintf("this evicts %s with %s, %d pinned", several(count, "object"), size(bytes), pinned)); err != nil {
			return err
		}
	}
	return c.evict(s, objects, patterns)
}

// evict removes what was found.
func (c *evictCmd) evict(s *session, objects []client.Object, patterns []string) error {
	gone := client.Evicted{}
	all := []client.Object{}
	for _, o := range objects {
		was, err := s.box.Evict(s.ctx, fmt.Sprint(o.Num))
		if err != nil {
			return fmt.Errorf("object %d: %w", o.Num, err)
		}
		all = append(all, was)
		gone.Objects++
		gone.Bytes += max(was.Readable, 0)
		if !s.json {
			s.say("evicted object %d: %s", was.Num, plain(was.Title))
		}
	}
	for _, pattern := range patterns {
		e, err := s.box.EvictMatching(s.ctx, pattern)
		if err != nil {
			return fmt.Errorf("%s: %w", pattern, err)
		}
		gone.Objects += e.Objects
		gone.Bytes += e.Bytes
	}
	switch {
	case s.json && len(patterns) == 0:
		return s.printJSON(all)
	case s.json:
		return s.printJSON(gone)
	case len(patterns) > 0:
		s.say("evicted %s, %s", several(gone.Objects, "object"), size(gone.Bytes))
	}
	return nil
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

type purgeCmd struct {
	What  string `arg:"" optional:"" help:"A URL, a pattern of hosts or URLs with *, btih:<infohash>, sha256:<digest> or an identity."`
	Why   string `help:"The reason: for the audit, and for whoever asks for it." placeholder:"TEXT"`
	List  bool   `help:"List what is taken down." xor:"do"`
	Lift  string `help:"Let back what was taken down." xor:"do" placeholder:"WHAT"`
	Audit bool   `help:"List what was taken down, removed and let back." xor:"do"`
}

func (c *purgeCmd) Run(s *session) error {
	switch {
	case c.What != "" && (c.List || c.Audit || c.Lift != ""):
		return errors.New("purge: say what to take down, or one of --list, --lift and --audit")
	case c.List:
		return c.list(s)
	case c.Audit:
		return c.audit(s)
	case c.Lift != "":
		if err := s.box.Lift(s.ctx, c.Lift); err != nil {
			return fmt.Errorf("lift %s: %w", c.Lift, err)
		}
		if s.json {
			return s.printJSON(map[string]string{"lifted": c.Lift})
		}
		s.say("%s may come back", plain(c.Lift))
		return nil
	case c.What == "":
		return errors.New("purge: say what to take down (cistern purge WHAT --why TEXT), or --list, --lift WHAT or --audit")
	case strings.TrimSpace(c.Why) == "":
		return errors.New("purge: say why, with --why TEXT: it is told to whoever asks, and kept")
	}
	done, err := s.box.Purge(s.ctx, client.Order{What: c.What, Why: c.Why})
	if err != nil {
		return fmt.Errorf("purge %s: %w", c.What, err)
	}
	if s.json {
		return s.printJSON(done)
	}
	s.say("%s is taken down and may not come back; %s removed", plain(done.What), several(len(done.Removed), "object"))
	for _, o := range done.Removed {
		s.say("  object %d: %s, %s", o.Num, plain(o.Title), size(o.Size))
	}
	if done.Searching {
		s.say("Every body is being searched for the digest; cistern purge --audit tells what is found.")
	}
	return nil
}

func (c *purgeCmd) list(s *session) error {
	list, err := s.box.Takedowns(s.ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(list)
	}
	if len(list) == 0 {
		s.say("Nothing is taken down.")
	}
	rows := [][]string{{"WHAT", "BY", "WHEN", "WHY"}}
	for _, t := range list {
		rows = append(rows, []string{t.What, t.By, t.At.Local().Format("2006-01-02 15:04"), t.Why})
	}
	table(s.env.Stdout, rows)
	return nil
}

func (c *purgeCmd) audit(s *session) error {
	list, err := s.box.Audit(s.ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(list)
	}
	rows := [][]string{{"WHEN", "BY", "DONE", "WHAT", "WHY"}}
	for _, l := range list {
		done := l.Action
		if l.Object != 0 {
			done += fmt.Sprintf(" object %d %s", l.Object, l.Title)
		}
		rows = append(rows, []string{l.At.Local().Format("2006-01-02 15:04:05"), l.By, done, l.What, l.Why})
	}
	if len(list) == 0 {
		s.say("Nothing was ever taken down.")
	}
	table(s.env.Stdout, rows)
	return nil
}

type scrubCmd struct {
	Rate       string `help:"How much is read in a second at most, such as 50MB; without it no bound." placeholder:"SIZE"`
	Background bool   `help:"Start it and return; it goes on in the box." short:"b"`
	Status     bool   `help:"Only say how far the last one is." xor:"do"`
	Stop       bool   `help:"End the one that runs." xor:"do"`
}

func (c *scrubCmd) Run(s *session) error {
	var rate config.Size
	if c.Rate != "" {
		if err := rate.UnmarshalText([]byte(strings.TrimSuffix(c.Rate, "/s"))); err != nil {
			return fmt.Errorf("--rate: %w", err)
		}
	}
	state, err := client.Scrub{}, error(nil)
	switch {
	case c.Status:
		state, err = s.box.Scrub(s.ctx)
	case c.Stop:
		state, err = s.box.StopScrub(s.ctx)
	default:
		state, err = s.box.StartScrub(s.ctx, client.ScrubOrder{Rate: int64(rate)})
	}
	if err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	if !c.Status && !c.Stop && !c.Background {
		return c.follow(s)
	}
	if s.json {
		return s.printJSON(state)
	}
	s.say("%s", describeScrub(state))
	return nil
}

// follow waits for the end of a pass. Whoever interrupts it leaves it running.
func (c *scrubCmd) follow(s *session) error {
	var last client.Scrub
	err := waitFor(s, "scrub", func() (progress, client.Scrub, error) {
		var err error
		last, err = s.box.Scrub(s.ctx)
		return progress{last.Bytes, last.TotalBytes, last.State != client.ScrubRunning}, last, err
	})
	if err == nil && !s.json {
		s.say("%s", describeScrub(last))
	}
	return err
}

func describeScrub(c client.Scrub) string {
	if c.State == client.ScrubNone {
		return "Nobody has asked for a scrub since the start; the box checks everything in its own time (store.scrub_period)."
	}
	found := fmt.Sprintf("%d of %s checked, %s of %s, %d damaged", c.Objects, several(c.TotalObjects, "object"), size(c.Bytes), size(c.TotalBytes), c.Damaged)
	if c.State == client.ScrubRunning {
		return "scrub is running: " + found
	}
	return fmt.Sprintf("scrub %s: %s", c.State, found)
}

// maxLines is how many ranges are shown to people.
const maxLines = 12

func printKept(s *session, k *client.Kept) {
	where := k.Volume
	if k.Segment != 0 {
		where += fmt.Sprintf(", segment %d", k.Segment)
	}
	if k.Service != "" {
		where += ", counts for " + k.Service
	}
	s.say("on       %s", plain(where))
	here := []string{}
	for _, r := range k.Here {
		if r.Off < r.End {
			here = append(here, fmt.Sprintf("%d-%d", r.Off, r.End-1))
		}
	}
	if len(here) > maxLines {
		here = append(here[:maxLines], fmt.Sprintf("and %d more", len(k.Here)-maxLines))
	}
	if len(here) > 0 {
		s.say("here     %s", strings.Join(here, ", "))
	}
	for i, p := range k.Parts {
		if i == maxLines {
			s.say("         and %d more (--json)", len(k.Parts)-i)
			break
		}
		s.say("from     %s: %d-%d, %s", plain(p.Source), p.Off, p.End-1, size(p.End-p.Off))
	}
	s.say("vouched  %s", plain(k.Vouched))
	s.say("checked  %s since the start", size(k.Checked))
	s.say("evicted  %s", plain(k.Eviction))
}
