//go:build linux

// Command bench measures the box side by side with its peers, in one run on one
// machine, and prints ratios: absolute figures of a machine say little.
//
// Each comparison is a file of its own; a new one needs a line in the list of
// them here. It opens nothing to the network but loopback, and starts no service
// of the system: peers run from its own directory, with its own configuration.
// Start reading at comparison.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// comparison measures one thing here and at a peer.
type comparison struct {
	name string
	run  func(ctx context.Context, b *bench) ([]line, error)
}

// comparisons are in the order of the table.
func comparisons() []comparison {
	return []comparison{
		{"store.read", readWarm},
		{"store.write", writeDurably},
		{"http.small", hitSmall},
		{"http.large", hitLarge},
		{"http.idle", keepIdle},
		{"swarm.loopback", swarmLoopback},
	}
}

// bench is what every comparison is given.
type bench struct {
	bin  string // directory of the product's binaries
	dir  string // the comparison's own, removed after it
	size int64  // bytes of the objects
	runs int    // of each side; medians are taken
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bin := flag.String("bin", "bin", "directory of the binaries")
	file := flag.String("json", "", "file for the figures; empty: none")
	only := flag.String("only", "", "names of comparisons, with commas; empty: all")
	size := flag.Int64("mib", 1024, "MiB of the objects")
	runs := flag.Int("runs", 5, "runs of each side")
	flag.Parse()
	b := &bench{bin: *bin, size: *size << 20, runs: *runs}
	if err := b.all(ctx, *only, *file); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// all runs the comparisons and reports what they found.
func (b *bench) all(ctx context.Context, only, file string) error {
	var lines []line
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, c := range comparisons() {
		if len(wanted) > 0 && !slices.Contains(wanted, c.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", c.name)
		found, err := b.one(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for i := range found {
			found[i].Name = c.name
		}
		lines = append(lines, found...)
	}
	if len(lines) == 0 {
		return fmt.Errorf("no comparison is called %s", only)
	}
	return report(lines, file)
}

// one runs a comparison in a directory of its own.
func (b *bench) one(ctx context.Context, c comparison) ([]line, error) {
	dir, err := os.MkdirTemp("", "cistern-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	own := *b
	if own.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	return c.run(ctx, &own)
}
