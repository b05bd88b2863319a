package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

type explainCmd struct {
	What   string        `arg:"" optional:"" help:"An http or https URL, or an object: number, identity (or its beginning), name or title. With --past also how a URL begins, with * behind it."`
	Past   bool          `help:"List how the last requests were answered, newest first; with a URL those for it." short:"p"`
	Slow   bool          `help:"List only what was slow or failed. Implies --past, as the following do." short:"s"`
	Client string        `help:"Only requests from an address or a network." placeholder:"ADDR"`
	Since  time.Duration `help:"Only those of the last so long, such as 24h." placeholder:"TIME"`
	Until  time.Duration `help:"Only those older than so long." placeholder:"TIME"`
	Limit  int           `help:"How many are listed at most." placeholder:"N"`
}

func (c *explainCmd) Run(s *session) error {
	if c.Past || c.Slow || c.Client != "" || c.Since != 0 || c.Until != 0 || c.Limit != 0 {
		return c.past(s)
	}
	if c.What == "" {
		return errors.New("explain: say what (cistern explain URL), or ask for past requests with --past or --slow")
	}
	var e client.Explanation
	var err error
	if lower := strings.ToLower(c.What); strings.HasPrefix(lower, "http://") || strings.HasPrefix(lower, "https://") {
		e, err = s.box.Explain(s.ctx, c.What)
	} else {
		e, err = s.box.ExplainObject(s.ctx, c.What)
	}
	if err != nil {
		return fmt.Errorf("explain %s: %w", c.What, err)
	}
	if s.json {
		return s.printJSON(e)
	}
	s.say("%s: %s", plain(e.Key), e.State)
	for _, reason := range e.Reasons {
		s.say("  - %s", plain(reason))
	}
	if e.Decision != nil {
		printDecision(s, e.Decision)
	}
	if e.Kept != nil {
		printKept(s, e.Kept)
	}
	for i, r := range e.Past {
		if i == 0 {
			s.say("past")
		}
		printRequest(s, r, false)
	}
	return nil
}

// past lists past requests.
func (c *explainCmd) past(s *session) error {
	q := client.PastQuery{URL: c.What, Client: c.Client, Slow: c.Slow, Limit: c.Limit}
	now := time.Now()
	if c.Since > 0 {
		q.Since = now.Add(-c.Since)
	}
	if c.Until > 0 {
		q.Until = now.Add(-c.Until)
	}
	list, err := s.box.Past(s.ctx, q)
	if err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	if s.json {
		return s.printJSON(list)
	}
	if len(list) == 0 {
		s.say("The box remembers no such request: it keeps the last few thousand, and those that were slow or failed for longer.")
	}
	for _, r := range list {
		printRequest(s, r, true)
	}
	return nil
}

// printDecision says when things change.
func printDecision(s *session, d *client.Decision) {
	s.say("stale    %s", when(d.StaleAt))
	if !d.RenewUntil.IsZero() {
		s.say("         served stale while it is asked for again until %s", when(d.RenewUntil))
	}
	if !d.ErrorUntil.IsZero() {
		s.say("         served stale if the origin fails until %s", when(d.ErrorUntil))
	}
}

// when is a time, and how far that is from now.
func when(at time.Time) string {
	text := at.Local().Format("2006-01-02 15:04:05")
	if d := time.Until(at).Round(time.Second); d > 0 {
		return text + fmt.Sprintf(" (in %v)", d)
	}
	return text + fmt.Sprintf(" (%v ago)", -time.Until(at).Round(time.Second))
}

// printRequest prints a past request in a few lines.
func printRequest(s *session, r client.Request, url bool) {
	how := "hit"
	if !r.Hit {
		how = "miss"
		if r.Fwd != "" {
			how += " (" + r.Fwd + ")"
		}
	}
	if r.Collapsed {
		how += ", shared"
	}
	status := "client left"
	if r.Status != 0 {
		status = fmt.Sprint(r.Status)
	}
	line := fmt.Sprintf("%s  %s  %s %s  %s  %s in %v, first byte after %v", r.At.Local().Format("2006-01-02 15:04:05"), r.Client,
		plain(r.Method), status, how, size(r.Bytes), millis(r.Took), millis(r.First))
	if url {
		line += "  " + plain(r.URL)
	}
	s.say("%s", line)
	for _, text := range []string{r.Why, r.Detail, r.Where} {
		if text != "" {
			s.say("         %s", plain(text))
		}
	}
}

func millis(ms float64) time.Duration {
	return (time.Duration(ms*1000) * time.Microsecond).Round(100 * time.Microsecond)
}
