package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/cistern-edge/cistern/admin/client"
)

type statusCmd struct {
	All bool `help:"Show every object, not only the first twenty."`
}

// report is what status knows, as --json prints it.
type report struct {
	Status  client.Status   `json:"status"`
	Objects []client.Object `json:"objects"`
	Swarms  []client.Swarm  `json:"swarms"`
	Casts   []client.Cast   `json:"casts"`
}

func (c *statusCmd) Run(s *session) error {
	var r report
	var err error
	if r.Status, err = s.box.Status(s.ctx); err != nil {
		return err
	}
	if r.Objects, err = s.box.Objects(s.ctx); err != nil {
		return err
	}
	if r.Swarms, err = s.box.Swarms(s.ctx); err != nil {
		return err
	}
	if r.Casts, err = s.box.Casts(s.ctx); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(r)
	}
	st := r.Status
	s.say("Cistern %s at %s, proxy %s", st.Version, s.box.Box(), st.Proxy)
	if st.Uplink.Down {
		s.say("OFFLINE since %s: %s", when(st.Uplink.Since), plain(st.Uplink.Why))
		s.say("what is here is served, stale where the origin does not forbid it; the box tries again by itself")
	}
	s.say("saved %s   in %s   out %s   kept %s of %s", size(st.Saved), size(st.Filled), size(st.Served), size(st.Bytes), size(st.MaxBytes))
	if st.Damaged > 0 {
		s.say("found damaged since the start: %s; repaired: %s", several(int(st.Damaged), "block"), several(int(st.Repaired), "object"))
	}
	if st.Takedowns > 0 {
		s.say("taken down: %d (cistern purge --list)", st.Takedowns)
	}
	printVolumes(s.env.Stdout, st)
	if len(r.Objects) == 0 {
		s.say("\nNothing here yet. Try: curl -x http://%s -O http://deb.debian.org/debian/README", st.Proxy)
	}
	shown := r.Objects
	if !c.All {
		shown = shown[:min(len(shown), 20)]
	}
	printObjects(s.env.Stdout, shown)
	if more := len(r.Objects) - len(shown); more > 0 {
		s.say("and %d more (--all)", more)
	}
	printSwarms(s.env.Stdout, r.Swarms)
	printCasts(s.env.Stdout, r.Casts)
	return nil
}

// table writes rows in columns; the first is the head. A table without rows is
// not written.
func table(w io.Writer, rows [][]string) {
	if len(rows) < 2 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain(cell)
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
}

func printVolumes(w io.Writer, st client.Status) {
	rows := [][]string{{"VOLUME", "STATE", "OBJECTS", "FREE"}}
	for _, v := range st.Volumes {
		state, free := v.State, "-"
		if v.Why != "" {
			state += ": " + v.Why
		}
		if v.Total > 0 {
			free = size(v.Free) + " of " + size(v.Total)
		}
		rows = append(rows, []string{v.Dir, state, size(v.Bytes), free})
	}
	table(w, rows)
	rows = [][]string{{"SERVICE", "TAKEN", "QUOTA"}}
	for _, svc := range st.Services {
		rows = append(rows, []string{svc.Name, size(svc.Bytes), size(svc.Quota)})
	}
	table(w, rows)
}

func printObjects(w io.Writer, list []client.Object) {
	rows := [][]string{{"OBJECT", "STATE", "SIZE", "FROM", "SERVED", "TITLE"}}
	for _, o := range list {
		state := o.State
		if o.State != client.Complete && o.Size > 0 {
			state += fmt.Sprintf(" %d%%", o.Readable*100/o.Size)
		}
		if o.Pinned {
			state += ", pinned"
		}
		rows = append(rows, []string{fmt.Sprint(o.Num), state, size(o.Size), shares(o.From), shares(o.Served), o.Title})
	}
	table(w, rows)
}

func printSwarms(w io.Writer, list []client.Swarm) {
	rows := [][]string{{"SWARM", "STATE", "HERE", "DOWN", "UP", "PEERS", "OUTSIDE", "NAME"}}
	for _, x := range list {
		rows = append(rows, []string{
			short(x.Infohash), x.State, size(x.BytesHave) + " of " + size(x.Size), size(x.Down), size(x.Up),
			fmt.Sprint(x.Peers), fmt.Sprint(x.OutsideEstablished), x.Name,
		})
	}
	table(w, rows)
}

func printCasts(w io.Writer, list []client.Cast) {
	rows := [][]string{{"CAST", "STATE", "GROUP", "SENT", "RECEIVERS", "WORST LOSS", "TITLE"}}
	for _, c := range list {
		worst := 0.0
		for _, r := range c.Receivers {
			worst = max(worst, r.Loss)
		}
		rows = append(rows, []string{
			fmt.Sprint(c.Object), c.State, c.Group, size(c.SentBytes) + " of " + size(c.Size),
			fmt.Sprint(len(c.Receivers)), fmt.Sprintf("%.1f %%", worst*100), c.Title,
		})
	}
	table(w, rows)
}

// shares lists who brought or took how much, the most first.
func shares(by map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		if by[a] != by[b] {
			return int(min(max(by[b]-by[a], -1), 1))
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = name + " " + size(by[name])
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}

// size writes bytes in powers of 1000; negative ones are not known.
func size(n int64) string {
	if n < 0 {
		return "?"
	}
	v, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	switch {
	case unit == 0 || v >= 99.95:
		return fmt.Sprintf("%.0f %s", v, units[unit])
	case v >= 9.995:
		return fmt.Sprintf("%.1f %s", v, units[unit])
	default:
		return fmt.Sprintf("%.2f %s", v, units[unit])
	}
}

func short(s string) string { return s[:min(len(s), 12)] }

// plain keeps what foreign text could do to a terminal out of it: titles and
// names of hosts come from the network.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
