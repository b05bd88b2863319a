package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/hwtest/qualify"
)

// hwtestCmd measures a machine: the box's, or with --here this one, for which no
// box is needed.
type hwtestCmd struct {
	Quick  bool          `help:"Half a minute with rough figures instead of a quarter of an hour."`
	Last   bool          `help:"Only show what was measured last." xor:"do"`
	Stop   bool          `help:"End the measurement that runs." xor:"do"`
	Wire   time.Duration `help:"Wait so long on each network card for the packets of --send on another machine." placeholder:"60s"`
	Here   bool          `help:"Measure this machine, without a box; as root, to see all."`
	Dir    string        `help:"With --here: where scratch files go; the disk under it is measured." default:"." type:"existingdir"`
	Nic    []string      `help:"With --here: network cards; without it, all that are up." placeholder:"NAME"`
	Erase  string        `help:"With --here: measure this whole disk, which loses all that it holds; refused while anything of it is in use." placeholder:"DEVICE"`
	Yes    bool          `help:"With --erase: do not ask." short:"y"`
	Send   string        `help:"Send test packets from this network card instead, for --wire on another machine." xor:"do" placeholder:"NAME"`
	Rate   config.Rate   `help:"With --send: rate of payload." default:"500Mbit"`
	SendOn time.Duration `help:"With --send: for how long." name:"for" default:"20s"`
}

// local reports whether no box is asked.
func (c *hwtestCmd) local() bool { return c.Here || c.Send != "" || c.Erase != "" }

func (c *hwtestCmd) Run(s *session) error {
	switch {
	case c.Send != "":
		return c.send(s)
	case c.local():
		return c.here(s)
	case c.Stop:
		return c.show(s, s.box.StopQualify)
	case c.Last:
		return c.show(s, s.box.Hardware)
	}
	if _, err := s.box.StartQualify(s.ctx, client.QualifyOrder{Quick: c.Quick, Wire: int(c.Wire.Seconds())}); err != nil {
		return fmt.Errorf("hwtest: %w", err)
	}
	var last client.Qualification
	err := waitFor(s, "hwtest", func() (progress, client.Qualification, error) {
		var err error
		last, err = s.box.Hardware(s.ctx)
		return progress{int64(last.Percent * 10), 1000, last.State != client.QualifyRunning}, last, err
	})
	if err != nil {
		return err
	}
	if s.json {
		return fitness(last)
	}
	return verdict(s, last)
}

func (c *hwtestCmd) send(s *session) error {
	sent, err := qualify.Send(s.ctx, qualify.SendConfig{Interface: c.Send, Rate: int64(c.Rate), For: c.SendOn, TTL: 1})
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]uint64{"sent": sent})
	}
	s.say("sent %d packets", sent)
	return nil
}

func (c *hwtestCmd) here(s *session) error {
	if c.Erase != "" {
		if err := s.confirm(c.Yes, "this erases all that is on "+plain(c.Erase)); err != nil {
			return err
		}
	}
	q, err := qualify.New(qualify.Config{Dir: c.Dir, Interfaces: c.Nic, Quick: c.Quick, Wire: c.Wire, Erase: c.Erase}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	step := ""
	report, err := q.Run(s.ctx, func(now client.Qualification) {
		if screen := s.terminal(); screen != nil && now.Step != step && now.Step != "" {
			fmt.Fprintf(screen, "%3.0f %% %s\n", now.Percent, now.Step)
		}
		step = now.Step
	})
	if err != nil {
		return err
	}
	if s.json {
		if err := s.printJSON(report); err != nil {
			return err
		}
		return fitness(report)
	}
	return verdict(s, report)
}

func (c *hwtestCmd) show(s *session, get func(context.Context) (client.Qualification, error)) error {
	q, err := get(s.ctx)
	if err != nil {
		return fmt.Errorf("hwtest: %w", err)
	}
	switch {
	case s.json:
		return s.printJSON(q)
	case q.State == client.QualifyNone:
		s.say("The machine was not measured since the box was started: cistern hwtest")
		return nil
	case q.State == client.QualifyRunning:
		s.say("being measured: %s, %.0f %%", plain(q.Step), q.Percent)
		return nil
	}
	return verdict(s, q)
}

// errUnfit makes the exit code say what the verdict says.
var errUnfit = errors.New("this machine is not fit to be a box")

func fitness(q client.Qualification) error {
	if q.State == client.QualifyDone && !q.Verdict.Fit {
		return errUnfit
	}
	return nil
}

// verdict prints a report for people.
func verdict(s *session, q client.Qualification) error {
	if q.State == client.QualifyStopped {
		s.say("stopped before the end %s", plain(q.Verdict.Text))
		return nil
	}
	s.say("%s", plain(q.Verdict.Text))
	for _, f := range q.Verdict.Findings {
		s.say("  %-7s %s: %s", f.Level, plain(f.Part), plain(f.Text))
	}
	rows := [][]string{{"PART", "MEASURED"}}
	row := func(part, format string, args ...any) {
		rows = append(rows, []string{part, fmt.Sprintf(format, args...)})
	}
	for _, n := range q.NICs {
		m := n.Multicast
		row(n.Name, "%s, %d Mbit/s %s; multicast (%s) %d Mbit/s, %d of %d lost, %d out of order; querier %s %s",
			n.Driver, n.BitRate/1e6, n.Duplex, cmp.Or(m.Path, "not tried"), m.BitRate/1e6, m.Lost, m.Sent, m.Reordered, cmp.Or(n.Querier.State, "unknown"), n.Querier.Address)
	}
	d := q.Disk
	row("disk", "%s %s %s %s; in a row %s/s read, %s/s written; at random %s/s; fsync %.1f ms, p99 %.1f ms",
		cmp.Or(d.Device, d.Path), d.Model, d.Kind, size(d.Bytes), size(d.SequentialRead), size(d.SequentialWrite), size(d.RandomRead), d.Fsync.Median, d.Fsync.P99)
	row("capacity", "%d of %d marks over %s, %d wrong", d.Capacity.Marks, d.Capacity.Planned, size(d.Capacity.Bytes), d.Capacity.Wrong)
	p := q.Processor
	row("processor", "%d × %s; a core: SHA-256 %s/s, SHA-1 %s/s, FEC %s/s", p.Cores, p.Model, size(p.SHA256), size(p.SHA1), size(p.FEC))
	row("heat", "%.0f s, %.0f %% of the speed kept, %.0f °C", q.Thermal.Seconds, 100*q.Thermal.Kept, q.Thermal.Celsius)
	row("memory", "%s, %s free, %s tried", size(q.Memory.Bytes), size(q.Memory.Available), size(q.Memory.Tested))
	table(s.env.Stdout, rows)
	return fitness(q)
}
