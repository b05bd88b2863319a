package qualify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// What the verdict reckons with.
const (
	// clientBits is what one client of a busy box gets, in bits each second.
	clientBits = 2_500_000
	// clientMemory is what one client costs, in bytes: connection, buffers and
	// its part of the page cache; boxMemory is what the daemon keeps for itself.
	clientMemory = 256 << 10
	boxMemory    = 256 << 20
	// hashedOnce is how often a byte is hashed on its way in and out.
	hashedOnce = 2
)

// judge collects what somebody should know.
type judge struct {
	report   client.Qualification
	findings []client.Finding
}

// limit is a part that bounds what a box hands out, in bits each second.
type limit struct {
	part string
	bits int64
}

func (j *judge) found(level, part, format string, args ...any) {
	j.findings = append(j.findings, client.Finding{Level: level, Part: part, Text: fmt.Sprintf(format, args...)})
}

// Judge says what a report comes to. It is a pure function of the report.
func Judge(report client.Qualification) client.Verdict {
	j := judge{report: report}
	j.cards()
	j.disk()
	j.capacity()
	j.wear()
	j.machine()
	slices.SortStableFunc(j.findings, func(a, b client.Finding) int { return cmp.Compare(rank(a.Level), rank(b.Level)) })
	v := client.Verdict{Fit: true, Findings: append([]client.Finding{}, j.findings...)}
	var bad []string
	for _, f := range j.findings {
		if f.Level == client.Bad {
			bad = append(bad, f.Part+": "+f.Text)
		}
	}
	j.reckon(&v)
	if len(bad) > 0 {
		v.Fit, v.Clients, v.Text = false, 0, "not fit: "+strings.Join(bad, "; ")
	}
	return v
}

func rank(level string) int {
	return slices.Index([]string{client.Bad, client.Warn, client.Unknown, client.Fine}, level)
}

// reckon finds the part that gives out first.
func (j *judge) reckon(v *client.Verdict) {
	r := j.report
	var limits []limit
	fastest := int64(0)
	for _, n := range r.NICs {
		if n.Up {
			fastest = max(fastest, n.BitRate)
		}
	}
	if fastest > 0 {
		limits = append(limits, limit{"network card", fastest})
	}
	if r.Disk.RandomRead > 0 {
		limits = append(limits, limit{"disk", 8 * min(r.Disk.RandomRead, r.Disk.SequentialRead)})
	}
	if r.Processor.SHA256 > 0 {
		limits = append(limits, limit{"processor", 8 * r.Processor.SHA256 * int64(max(r.Processor.Cores, 1)) / hashedOnce})
	}
	if len(limits) == 0 {
		v.Text = "nothing could be measured"
		return
	}
	least := slices.MinFunc(limits, func(a, b limit) int { return cmp.Compare(a.bits, b.bits) })
	v.BitRate, v.Limit = least.bits, least.part
	v.Clients = int(least.bits / clientBits)
	if room := (r.Memory.Available - boxMemory) / clientMemory; r.Memory.Available > 0 && int64(v.Clients) > max(room, 0) {
		v.Clients, v.Limit = int(max(room, 0)), "memory"
	}
	if v.Clients == 0 {
		v.Text = fmt.Sprintf("too slow for a client: %s is the limit", the(v.Limit))
		return
	}
	v.Clients = rounded(v.Clients)
	v.Text = fmt.Sprintf("good for %d client%s at %s; %s is the limit", v.Clients, plural(v.Clients), bitsText(v.BitRate), the(v.Limit))
}

// rounded keeps two digits: more would be a lie.
func rounded(n int) int {
	grain := 1
	for n/grain >= 100 {
		grain *= 10
	}
	return n / grain * grain
}

func the(part string) string {
	if part == "memory" {
		return part
	}
	return "the " + part
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func bitsText(bits int64) string {
	if bits >= 995_000_000 {
		return fmt.Sprintf("%.3g Gbit/s", float64(bits)/1e9)
	}
	return fmt.Sprintf("%.3g Mbit/s", float64(bits)/1e6)
}

func (j *judge) cards() {
	up := 0
	for _, n := range j.report.NICs {
		part := "network card " + n.Name
		if !n.Up {
			j.found(client.Warn, part, "no cable is in, or nothing answers at its other end")
			continue
		}
		up++
		switch {
		case n.BitRate == 0:
			j.found(client.Unknown, part, "its driver does not say how fast the link is")
		case n.BitRate < 1_000_000_000:
			j.found(client.Warn, part, "the link is up at %s only: a bad cable or an old switch", bitsText(n.BitRate))
		}
		if n.Duplex == "half" {
			j.found(client.Warn, part, "half duplex: the switch does not negotiate, or the cable is bad")
		}
		if n.Errors > 0 {
			j.found(client.Warn, part, "%d frames came damaged: look at cable and port", n.Errors)
		}
		j.multicast(part, n)
	}
	if up == 0 && len(j.report.NICs) > 0 {
		j.found(client.Bad, "network", "no card is up")
	}
}

func (j *judge) multicast(part string, n client.NIC) {
	m := n.Multicast
	switch {
	case m.Err != "":
		j.found(client.Unknown, part, "multicast could not be tried: %s", m.Err)
	case m.Sent > 0 && m.Received == 0:
		j.found(client.Bad, part, "no multicast arrives")
	case m.Sent > 0 && float64(m.Lost)/float64(m.Sent) > 0.001:
		j.found(client.Warn, part, "of %d multicast packets %d were lost (%.2g %%)", m.Sent, m.Lost, 100*float64(m.Lost)/float64(m.Sent))
	}
	if m.Received > 0 && float64(m.Reordered)/float64(m.Received) > 0.01 {
		j.found(client.Warn, part, "%d of %d multicast packets came out of order", m.Reordered, m.Received)
	}
	if m.Snooping == "no" {
		j.found(client.Warn, part, "the switch sends groups to ports where nobody joined them: every host hears every cast")
	}
	switch q := n.Querier; {
	case q.State == "absent":
		j.found(client.Warn, part, "nobody asks for members of groups (no IGMP querier): a switch that snoops will cut casts off after minutes")
	case q.State == "":
		j.found(client.Unknown, part, "whether there is an IGMP querier: %s", q.Err)
	}
}

func (j *judge) disk() {
	d := j.report.Disk
	switch {
	case d.Failed:
		j.found(client.Bad, "disk", "does not work: %s", d.Err)
		return
	case d.Err != "":
		j.found(client.Unknown, "disk", "could not be measured: %s", d.Err)
		return
	}
	for _, r := range []struct {
		what        string
		got, enough int64
	}{
		{"writes in a row", d.SequentialWrite, 50e6}, {"reads in a row", d.SequentialRead, 100e6}, {"reads at random places", d.RandomRead, 50e6},
	} {
		if r.got < r.enough {
			j.found(client.Warn, "disk", "slow: %.3g MB/s for %s, %.3g would do", float64(r.got)/1e6, r.what, float64(r.enough)/1e6)
		}
	}
	if d.Fsync.P99 > 200 {
		j.found(client.Warn, "disk", "slow to make a write safe: %.3g ms for the slowest of a hundred", d.Fsync.P99)
	}
}

func (j *judge) capacity() {
	c := j.report.Disk.Capacity
	switch {
	case c.Wraps > 0:
		j.found(client.Bad, "disk", "a fake: what is written beyond %s overwrites what came before; %d of %d marks were wrong", gigabytes(c.Wraps), c.Wrong, c.Marks)
	case c.Wrong > 0:
		j.found(client.Bad, "disk", "does not hold what is written, from %s on: %d of %d marks were wrong; a fake, or broken", gigabytes(c.First), c.Wrong, c.Marks)
	case c.Err != "":
		j.found(client.Unknown, "disk", "whether it holds what it says: %s", c.Err)
	case j.report.Disk.Err == "" && c.Marks < c.Planned:
		j.found(client.Unknown, "disk", "whether it holds what it says is likely, not proved: the time was enough for %d of %d marks", c.Marks, c.Planned)
	case c.Marks > 0:
		j.found(client.Fine, "disk", "%s of it hold what was written", gigabytes(c.Bytes))
	}
}

func gigabytes(n int64) string { return fmt.Sprintf("%.3g GB", float64(n)/1e9) }

func (j *judge) wear() {
	w := j.report.Disk.Wear
	switch {
	case w.Failing:
		j.found(client.Bad, "disk", "says that it is about to fail")
	case w.Source == "":
		j.found(client.Unknown, "disk", "how worn it is: %s", cmp.Or(w.Err, "it does not say"))
	case w.PercentUsed >= 90:
		j.found(client.Warn, "disk", "%d %% of its writes are used up", w.PercentUsed)
	}
	if bad := w.MediaErrors + w.Reallocated + w.Pending; bad > 0 {
		j.found(client.Warn, "disk", "has lost or replaced sectors: %d uncorrectable, %d replaced, %d waiting", w.MediaErrors, w.Reallocated, w.Pending)
	}
	if w.Celsius >= 70 {
		j.found(client.Warn, "disk", "is %d °C warm", w.Celsius)
	}
}

func (j *judge) machine() {
	r := j.report
	if r.Memory.Wrong > 0 {
		j.found(client.Bad, "memory", "%d words came back different from what was written", r.Memory.Wrong)
	}
	if r.Memory.Corrected > 0 {
		j.found(client.Warn, "memory", "%d errors were corrected since the start: a module is going", r.Memory.Corrected)
	}
	if r.Memory.Available > 0 && r.Memory.Available < 512<<20 {
		j.found(client.Warn, "memory", "%d MB are free", r.Memory.Available>>20)
	}
	switch t := r.Thermal; {
	case t.Throttled:
		j.found(client.Warn, "processor", "slows down when all cores work (%.0f °C): cool it better", t.Celsius)
	case t.Kept > 0 && t.Kept < 0.8:
		j.found(client.Warn, "processor", "kept %.0f %% of its speed while all cores worked: heat, or somebody else's work", 100*t.Kept)
	}
	if !r.Random.Ready {
		j.found(client.Warn, "random numbers", "the kernel's source was not ready: keys would wait for it")
	} else if r.Random.Hardware == "" {
		j.found(client.Unknown, "random numbers", "no device feeds the kernel's source: starts may take longer")
	}
	if !r.Clock.Kept {
		j.found(client.Warn, "clock", "no clock keeps the time while the machine is off: signatures are checked once a time server answered")
	} else if r.Clock.Offset > 60 || r.Clock.Offset < -60 {
		j.found(client.Warn, "clock", "the one with a battery is off by %.0f s", r.Clock.Offset)
	}
	if !r.Watchdog.Present {
		j.found(client.Warn, "watchdog", "none: a machine that hangs stays so until somebody comes")
	}
}
