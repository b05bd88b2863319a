//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

const (
	loadConns = 64 // that ask at once
	loadTime  = 2 * time.Second
	idleConns = 1000
	// idleBound is what an idle connection may cost, in bytes.
	idleBound = 25000
)

// smallRequest is what connection i of a load asks for.
func (o *origin) smallRequest(i int) []byte { return o.request(fmt.Sprint("/small/", i%loadConns)) }

// hitSmall asks for objects of 1 KiB over 64 connections that stay open, from
// servers of one worker each.
func hitSmall(ctx context.Context, b *bench) ([]line, error) {
	o, err := startOrigin(0)
	if err != nil {
		return nil, err
	}
	defer o.close()
	sides, stop, err := b.startAll(ctx, o)
	defer stop()
	if err != nil {
		return nil, err
	}
	figures := make([][]float64, len(sides))
	for i, s := range sides {
		if err := s.warm(ctx, o); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		figures[i] = nil
	}
	for run := range b.runs {
		for i := range sides {
			at := (i + run) % len(sides) // who goes first changes
			figure, err := sides[at].hitsPerCPU(ctx, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[at].name, err)
			}
			figures[at] = append(figures[at], figure)
		}
	}
	var lines []line
	for i, s := range sides[1:] {
		bound := 0.0
		if s.name == "nginx" {
			bound = 1
		}
		lines = append(lines, compare("hits of 1 KiB, 64 connections, 1 worker", "requests/CPU-s", s.name, figures[0], figures[i+1], bound).atLeast())
	}
	return lines, nil
}

// warm has the small objects brought in and served from memory for a moment.
func (s *side) warm(ctx context.Context, o *origin) error {
	l, err := dialLoad(s.addr, loadConns, o.smallRequest)
	if err != nil {
		return err
	}
	defer l.close()
	for range 3 {
		if _, err := l.run(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// hitsPerCPU takes one figure.
func (s *side) hitsPerCPU(ctx context.Context, o *origin) (figure float64, err error) {
	l, err := dialLoad(s.addr, loadConns, o.smallRequest)
	if err != nil {
		return 0, err
	}
	defer l.close()
	err = o.quiet(ctx, func() error {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		served, err := l.run(ctx, loadTime)
		if err != nil {
			return err
		}
		after, err := s.cpu()
		figure = float64(served) / (after - before)
		return err
	})
	return figure, err
}

// hitLarge reads an object of 100 MiB, from its second read since the start on.
func hitLarge(ctx context.Context, b *bench) ([]line, error) {
	size := min(b.size, 100<<20)
	o, err := startOrigin(size)
	if err != nil {
		return nil, err
	}
	defer o.close()
	servers, stop, err := b.startAll(ctx, o)
	defer stop()
	if err != nil {
		return nil, err
	}
	var sides []*reading
	for _, s := range servers {
		r := &reading{server: s.server, target: o.url("/large")}
		if err := readOnce(ctx, s.addr, r.target, size); err != nil { // brings it in
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		sides = append(sides, r)
	}
	time.Sleep(time.Second) // what is brought in is written down
	if err := o.quiet(ctx, func() error { return b.readInTurn(ctx, sides, size) }); err != nil {
		return nil, err
	}
	var lines []line
	for i, s := range servers[1:] {
		bound := 0.0
		if s.name == "nginx" {
			bound = 1
		}
		lines = append(lines, compare("hits of 100 MiB, 1 worker", "CPU-s/GB", s.name, sides[0].cpu, sides[i+1].cpu, bound))
	}
	return lines, nil
}

// keepIdle measures what a connection costs that had a small hit and stays open.
func keepIdle(ctx context.Context, b *bench) ([]line, error) {
	o, err := startOrigin(0)
	if err != nil {
		return nil, err
	}
	defer o.close()
	var names []string
	figures := map[string][]float64{}
	for range b.runs { // memory once taken is kept: each run is of new servers
		sides, stop, err := b.startAll(ctx, o)
		for _, s := range sides {
			var figure float64
			if figure, err = s.idleCost(ctx, o); err != nil {
				err = fmt.Errorf("%s: %w", s.name, err)
				break
			}
			if figures[s.name] == nil {
				names = append(names, s.name)
			}
			figures[s.name] = append(figures[s.name], figure)
		}
		stop()
		if err != nil {
			return nil, err
		}
	}
	const what = "memory of an idle connection, of 1,000"
	ours := figures[names[0]]
	lines := []line{compare(what, "B", "what is allowed", ours, []float64{idleBound}, 1)}
	for _, name := range names[1:] {
		lines = append(lines, compare(what, "B", name, ours, figures[name], 0))
	}
	return lines, nil
}

// idleCost takes one figure.
func (s *side) idleCost(ctx context.Context, o *origin) (float64, error) {
	if err := s.warm(ctx, o); err != nil {
		return 0, err
	}
	before, err := s.rss()
	if err != nil {
		return 0, err
	}
	l, err := dialLoad(s.addr, idleConns, o.smallRequest)
	if err != nil {
		return 0, err
	}
	defer l.close()
	if _, err := l.run(ctx, 0); err != nil {
		return 0, err
	}
	time.Sleep(time.Second)
	after, err := s.rss()
	return (after - before) / idleConns, err
}
