package main

import (
	"fmt"
	"os"
	"text/tabwriter"
)

// row is a figure of the table: what it was without the box, with it, and the
// most that it may be with it (0: no bound).
type row struct {
	what          string
	without, with float64
	bound         float64
	unit          string
}

// report prints the table and fails if a figure does not hold.
func report(s *stage, without, with figures) error {
	of := func(n int64) float64 { return float64(n) / float64(s.size) }
	// What the box sent to its agents beside the other object's cast: with
	// every byte of repair and control counted for both objects.
	agents := func(other string) float64 { return of(with.agentsBytes - with.casts[other]) }
	rows := []row{
		{"HTTP payload ÷ content", of(without.httpBody), of(with.httpBody), 1.01, "×"},
		{"HTTP link ÷ content", of(without.httpLink), of(with.httpLink), 1.06, "×"},
		{"torrent payload ÷ content", of(without.pieceBody), of(with.pieceBody), 1.03, "×"},
		{"torrent link ÷ content", of(without.swarmLink), of(with.swarmLink), 1.10, "×"},
		{"box → agents, HTTP file ÷ content", 0, agents(s.torrent.Name), 1.25, "×"},
		{"box → agents, torrent ÷ content", 0, agents("release.img"), 1.25, "×"},
		{"  of these: HTTP file by multicast", 0, of(with.casts["release.img"]), 0, "×"},
		{"  of these: torrent by multicast", 0, of(with.casts[s.torrent.Name]), 0, "×"},
		{"  of these: repair by HTTP, control", 0, agents(s.torrent.Name) - of(with.casts["release.img"]), 0, "×"},
		{"outside peers of the box, most at once", 0, float64(with.peakPeers), 20, ""},
		{"last host done", without.took.Seconds(), with.took.Seconds(), 0, "s"},
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nfigure\twithout the box\twith it\tbound\t")
	short := false
	for _, r := range rows {
		verdict, bound, before := "", "", "–"
		if r.bound > 0 {
			bound, verdict = "≤ "+number(r.bound), "ok"
			// A figure of nothing is a counter that looked the wrong way.
			if r.with > r.bound || r.with <= 0 {
				verdict, short = "short", true
			}
		}
		if r.without > 0 {
			before = number(r.without) + " " + r.unit
		}
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t%s\n", r.what, before, number(r.with), r.unit, bound, verdict)
	}
	all := fmt.Sprintf("%[1]d of %[1]d", 2*len(s.hosts())) // or measuring would have failed
	before := all
	if without.took == 0 {
		before = "–"
	}
	fmt.Fprintf(w, "SHA-256 agrees\t%s\t%s\t\tok\n", before, all)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(with.casts) != 2 {
		return fmt.Errorf("%d of 2 objects were cast: %w", len(with.casts), errShort)
	}
	if short {
		return errShort
	}
	return nil
}

func number(x float64) string { return fmt.Sprintf("%.4g", x) }
