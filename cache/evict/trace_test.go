package evict

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// request is one line of a trace: which object, how large it is.
type request struct {
	key  uint32 // dense, from 0
	size int64
}

// trace is what the policies are run over.
type trace struct {
	requests  []request
	keys      int   // how many were asked for
	footprint int64 // bytes of all objects together
	once      int   // keys asked for once
}

// shape sizes the generated trace.
type shape struct{ objects, requests int }

const (
	days       = 30
	zipfS      = 1.05
	drift      = 0.01 // of the ranks change their object each day
	oneHit     = 0.22 // of the objects are asked for once
	scanShare  = 0.10 // of the objects, in each scan
	burstShare = 0.01 // of the requests, in each burst
	burstSize  = 40
)

// timed is a request while the parts of a trace are not yet merged.
type timed struct {
	at float64 // days
	request
}

// generator draws the parts of a trace.
type generator struct {
	rng   *rand.Rand
	out   []timed
	sizes []int64
}

// generate draws a month of a campus' downloads: a catalogue asked for by
// Zipf's law whose popularity drifts, objects asked for once, a mirror run that
// reads a part of the catalogue, a crawler that reads new objects only, and two
// release days. The same seed draws the same trace.
func generate(seed uint64, s shape) trace {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 0))}
	core := int(float64(s.objects) * (1 - oneHit))
	for range core {
		g.object()
	}
	g.catalogue(core, s.requests)
	scanned := int(float64(s.objects) * scanShare)
	for i := range scanned {
		g.ask(19+0.3*float64(i)/float64(scanned), uint32(i))
	}
	asked := g.twice(core)
	for i := range scanned {
		g.ask(8+0.3*float64(i)/float64(scanned), g.object())
	}
	for range int(float64(asked)*oneHit/(1-oneHit)) - scanned {
		g.ask(g.rng.Float64()*days, g.object())
	}
	g.burst(12.4, int(float64(s.requests)*burstShare))
	g.burst(24.4, int(float64(s.requests)*burstShare))
	slices.SortStableFunc(g.out, func(a, b timed) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	t := trace{requests: make([]request, len(g.out))}
	for i, r := range g.out {
		t.requests[i] = r.request
	}
	return t.measured()
}

// measured counts objects and bytes; an object that a foreign trace gives
// several sizes has the first of them.
func (t trace) measured() trace {
	first, asked := map[uint32]int64{}, map[uint32]int{}
	for i, r := range t.requests {
		if asked[r.key]++; asked[r.key] == 1 {
			first[r.key] = r.size
			t.footprint += r.size
		}
		t.requests[i].size = first[r.key]
	}
	t.keys = len(asked)
	for _, n := range asked {
		if n == 1 {
			t.once++
		}
	}
	return t
}

func (g *generator) ask(at float64, key uint32) {
	g.out = append(g.out, timed{at, request{key, g.sizes[key]}})
}

func (g *generator) add(size int64) uint32 {
	g.sizes = append(g.sizes, size)
	return uint32(len(g.sizes) - 1)
}

// object adds one of the mix: packages, larger packages, installers and
// videos, images. Medians 60 KiB, 4 MiB, 80 MiB, 1.2 GiB; mean about 35 MiB.
func (g *generator) object() uint32 {
	median, sigma := 60.0*(1<<10), 1.8
	switch p := g.rng.Float64(); {
	case p < 0.01:
		median, sigma = 1.2*(1<<30), 0.6
	case p < 0.10:
		median, sigma = 80*(1<<20), 1.2
	case p < 0.40:
		median, sigma = 4*(1<<20), 1.5
	}
	size := int64(median * math.Exp(sigma*g.rng.NormFloat64()))
	return g.add(min(max(size, 1<<10), 8<<30))
}

// catalogue asks for the first core objects, the most popular of which change
// from day to day.
func (g *generator) catalogue(core, requests int) {
	cumulated, sum := make([]float64, core), 0.0
	for i := range cumulated {
		sum += math.Pow(float64(i+1), -zipfS)
		cumulated[i] = sum
	}
	byRank := g.rng.Perm(core)
	for day := range days {
		for range int(drift * float64(core) / 2) {
			a, b := g.rng.IntN(core), g.rng.IntN(core)
			byRank[a], byRank[b] = byRank[b], byRank[a]
		}
		for range requests / days {
			rank, _ := slices.BinarySearch(cumulated, g.rng.Float64()*sum)
			g.ask(float64(day)+g.rng.Float64(), uint32(byRank[min(rank, core-1)]))
		}
	}
}

// twice asks once more for those of the catalogue that were asked for once, so
// that the share of such objects is the one wanted, and returns how many were
// asked for at all.
func (g *generator) twice(core int) (asked int) {
	times := make([]int, core)
	for _, r := range g.out {
		times[r.key]++
	}
	for key, n := range times {
		if n > 0 {
			asked++
		}
		if n == 1 {
			g.ask(g.rng.Float64()*days, uint32(key))
		}
	}
	return asked
}

// burst is a release day: 40 new objects of 0.2 to 4 GB, asked for by many at
// once, then by fewer and fewer over the days that follow.
func (g *generator) burst(from float64, requests int) {
	first := len(g.sizes)
	for range burstSize {
		g.add(int64(2e8 + g.rng.Float64()*3.8e9))
	}
	for range requests {
		i := int(float64(burstSize) * math.Pow(g.rng.Float64(), 2)) // some are wanted more
		g.ask(min(from+g.rng.ExpFloat64()*0.5, days), uint32(first+i))
	}
}

// read takes a trace of lines `time key size`, in the order of time. Lines
// beginning with # are left out.
func read(r io.Reader) (trace, error) {
	var t trace
	keys := map[string]uint32{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 3 {
			return trace{}, fmt.Errorf("line %d: %d fields, want `time key size`", n, len(f))
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || size < 0 {
			return trace{}, fmt.Errorf("line %d: size %q", n, f[2])
		}
		key, ok := keys[f[1]]
		if !ok {
			key = uint32(len(keys))
			keys[f[1]] = key
		}
		t.requests = append(t.requests, request{key, size})
	}
	if err := lines.Err(); err != nil {
		return trace{}, fmt.Errorf("read trace: %w", err)
	}
	return t.measured(), nil
}
