//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
)

// line is one figure, here and at the peer: medians of Runs runs.
type line struct {
	Name   string  `json:"name"` // of the comparison
	Figure string  `json:"figure"`
	Unit   string  `json:"unit"`
	Ours   float64 `json:"ours"`
	Peer   string  `json:"peer"`
	Theirs float64 `json:"theirs"`
	Ratio  float64 `json:"ratio"`           // ours ÷ theirs
	Bound  float64 `json:"bound,omitempty"` // of the ratio; 0: none
	Least  bool    `json:"least,omitempty"` // more is better: the bound is the least ratio
	Runs   int     `json:"runs"`
	// OursAll and TheirsAll are what the medians are of.
	OursAll   []float64 `json:"ours_all"`
	TheirsAll []float64 `json:"theirs_all"`
}

// compare makes a line of what the runs gave.
func compare(figure, unit, peer string, ours, theirs []float64, bound float64) line {
	l := line{
		Figure: figure, Unit: unit, Peer: peer, Ours: median(ours), Theirs: median(theirs), Bound: bound, Runs: len(ours),
		OursAll: ours, TheirsAll: theirs,
	}
	if l.Theirs != 0 {
		l.Ratio = l.Ours / l.Theirs
	}
	return l
}

func (l line) verdict() string {
	switch {
	case l.Bound == 0, l.Theirs == 0:
		return ""
	case l.Least && l.Ratio >= l.Bound, !l.Least && l.Ratio <= l.Bound:
		return "ok"
	}
	return "short"
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	if n := len(x); n%2 == 0 {
		return (x[n/2-1] + x[n/2]) / 2
	}
	return x[len(x)/2]
}

// atLeast makes the bound the least ratio that is well.
func (l line) atLeast() line {
	l.Least = true
	return l
}

// errShort says that a ratio is not within its bound.
var errShort = errors.New("a ratio is not within its bound")

// report prints the table and writes the file. It fails if a ratio is not within
// its bound.
func report(lines []line, file string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "comparison\tfigure\tcistern\tpeer\t\tratio\tbound\t")
	short := false
	for _, l := range lines {
		bound := "–"
		if l.Bound > 0 {
			bound = fmt.Sprintf("≤ %.4g", l.Bound)
		}
		if l.Bound > 0 && l.Least {
			bound = fmt.Sprintf("≥ %.4g", l.Bound)
		}
		fmt.Fprintf(w, "%s\t%s, %s\t%.4g\t%.4g\t%s\t%.3f\t%s\t%s\n", l.Name, l.Figure, l.Unit, l.Ours, l.Theirs, l.Peer, l.Ratio, bound, l.verdict())
		short = short || l.verdict() == "short"
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if file != "" {
		text, err := json.MarshalIndent(lines, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(text, '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("write the figures: %w", err)
		}
	}
	if short {
		return errShort
	}
	return nil
}
