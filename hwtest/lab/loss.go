package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
)

// LossKind says how lost frames are spread.
type LossKind int

// The kinds of loss.
const (
	// NoLoss loses nothing; the zero value.
	NoLoss LossKind = iota
	// Random loses each frame with the same probability, independently.
	Random
	// Burst loses runs of exactly Loss.Burst frames. From a seed the runs come
	// at random distances; without one they come at equal distances.
	Burst
	// GilbertElliott is a channel with a good and a bad state, each with a loss
	// probability of its own, that stays bad for Loss.Burst frames on average.
	GilbertElliott
)

// Loss describes the losses of one direction of a link. The zero value loses
// nothing.
type Loss struct {
	Kind LossKind
	// Fraction is the mean share of frames lost, 0 to 1 (below 1 for Burst and
	// GilbertElliott).
	Fraction float64
	// Burst is the length of a run for Burst and the mean length of the bad
	// state for GilbertElliott, in frames; 0 means 1.
	Burst int
	// Seed makes the losses reproducible, at the price of a wire (see the
	// package comment). 0: no promise. Two links with the same seed lose the
	// same frames; give each its own where they shall be independent.
	Seed uint64
	// GoodLoss and BadLoss are the loss probabilities in the two states of
	// GilbertElliott; a BadLoss of 0 means 1. Fraction must lie between them.
	GoodLoss, BadLoss float64
}

// Validate reports every fault of l at once, each naming its field.
func (l Loss) Validate() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, inField(field, fmt.Errorf(format, args...)))
	}
	if l.Kind < NoLoss || l.Kind > GilbertElliott {
		fault("Kind", "unknown loss kind %d", int(l.Kind))
	}
	if l.Fraction < 0 || l.Fraction > 1 {
		fault("Fraction", "%v is outside 0..1", l.Fraction)
	}
	if l.Burst < 0 {
		fault("Burst", "%d is negative", l.Burst)
	}
	if (l.Kind == Burst || l.Kind == GilbertElliott) && l.Fraction == 1 {
		fault("Fraction", "1 leaves no room between bursts")
	}
	if l.Kind == NoLoss && l.Fraction != 0 {
		fault("Fraction", "%v without a Kind", l.Fraction)
	}
	if l.Kind == GilbertElliott {
		good, bad := l.GoodLoss, l.badLoss()
		if good < 0 || bad > 1 || good >= bad || l.Fraction < good || l.Fraction >= bad {
			fault("GoodLoss, Fraction, BadLoss", "want 0 <= %v <= %v < %v <= 1", good, l.Fraction, bad)
		}
	}
	return errors.Join(faults...)
}

// inField names the field of a configuration that err is about.
func inField(field string, err error) error { return fmt.Errorf("%s: %w", field, err) }

// Pattern tells which of the first n frames offered are lost (true): a pure
// function of l. A wire with this Loss loses exactly these, not counting the
// control frames that are never lost.
func (l Loss) Pattern(n int) []bool {
	m := newLossModel(l)
	lost := make([]bool, n)
	for i := range lost {
		lost[i] = m.next()
	}
	return lost
}

func (l Loss) burst() float64 { return float64(max(l.Burst, 1)) }

func (l Loss) badLoss() float64 {
	if l.BadLoss == 0 {
		return 1
	}
	return l.BadLoss
}

// lossModel walks through the pattern of a Loss, frame by frame. It is not safe
// for concurrent use.
type lossModel struct {
	loss Loss
	rng  *rand.Rand
	bad  bool // GilbertElliott: the present state
	left int  // Burst: frames still to lose

	toBad, toGood float64 // probability per frame of a change
}

func newLossModel(l Loss) *lossModel {
	m := &lossModel{loss: l, rng: rand.New(rand.NewPCG(l.Seed, 0x6c6f7373))}
	switch l.Kind {
	case Burst:
		// A run starts with probability p at each frame outside a run, so a
		// cycle of 1/p - 1 kept frames and burst lost ones loses the Fraction.
		kept := l.burst() * (1 - l.Fraction) / l.Fraction
		m.toBad = 1 / (kept + 1)
	case GilbertElliott:
		share := (l.Fraction - l.GoodLoss) / (l.badLoss() - l.GoodLoss)
		m.toGood = 1 / l.burst()
		m.toBad = m.toGood * share / (1 - share)
		m.bad = m.rng.Float64() < share // start in the steady state
	}
	return m
}

// next tells whether the next frame is lost.
func (m *lossModel) next() bool {
	switch m.loss.Kind {
	case Random:
		return m.rng.Float64() < m.loss.Fraction
	case Burst:
		return m.nextBurst()
	case GilbertElliott:
		return m.nextGilbertElliott()
	}
	return false
}

func (m *lossModel) nextBurst() bool {
	if m.loss.Fraction == 0 {
		return false
	}
	if m.left == 0 && m.rng.Float64() < m.toBad {
		m.left = max(m.loss.Burst, 1)
	}
	if m.left > 0 {
		m.left--
		return true
	}
	return false
}

func (m *lossModel) nextGilbertElliott() bool {
	p := m.loss.GoodLoss
	if m.bad {
		p = m.loss.badLoss()
	}
	lost := m.rng.Float64() < p
	change := m.toBad
	if m.bad {
		change = m.toGood
	}
	if m.rng.Float64() < change {
		m.bad = !m.bad
	}
	return lost
}
