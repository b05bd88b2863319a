// Package qualify measures whether a machine is fit to be a box: its network
// cards, its disk, processor, memory and clocks, each for a bounded time, and
// says in words what that comes to.
//
// It never writes to anything but scratch files of its own, unless a whole disk
// is named to be erased, of which nothing may be in use. It refuses to guess:
// what it may not or cannot measure is unknown in the report. It says
// nothing about how the box's own programs do; hwtest/bench compares those.
//
// Start reading at [Qualifier.Run], then at [Judge].
package qualify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// Config says what is measured, and for how long.
type Config struct {
	// Dir is where scratch files are made: the disk under it is measured. It must
	// be there. Not used with Erase.
	Dir string
	// Interfaces are the network cards; empty: all that are up.
	Interfaces []string
	// Quick takes about half a minute instead of a quarter of an hour.
	Quick bool
	// Wire is how long to wait on each card for the packets of [Send] on another
	// machine; 0: packets are sent within this machine instead.
	Wire time.Duration
	// MaxBytes bounds the scratch files; 0: seven eighths of what is free.
	MaxBytes int64
	// Spare is how many bytes the scratch files leave free in any case: what others
	// count on while the machine is measured.
	Spare int64
	// Erase names a block device that is measured instead of Dir, and loses all
	// that it holds. Nothing of it may be in use.
	Erase string
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" && c.Erase == "" {
		faults = append(faults, errors.New("dir: no directory for scratch files named"))
	}
	if c.Wire < 0 {
		faults = append(faults, fmt.Errorf("wire: %v is negative", c.Wire))
	}
	if c.Spare < 0 {
		faults = append(faults, fmt.Errorf("spare: %d is negative", c.Spare))
	}
	if c.MaxBytes != 0 && c.MaxBytes < minSpan {
		faults = append(faults, fmt.Errorf("max_bytes: %d is less than %d", c.MaxBytes, minSpan))
	}
	return errors.Join(faults...)
}

// minSpan is the least room, in bytes, that says anything of a disk.
const minSpan = 16 << 20

// budget is how long each part may take.
type budget struct {
	disk, capacity         time.Duration // each of four rates; all marks
	scratch                int64         // bytes of the file that rates are taken on
	hash, soak, memory     time.Duration
	multicast, queriers    time.Duration // on each card
	sleeps, syncs, pattern int           // how often, how often, bytes
}

func (c Config) budget() budget {
	if c.Quick {
		return budget{
			disk: time.Second, capacity: 6 * time.Second, scratch: 256 << 20, hash: 200 * time.Millisecond, soak: 3 * time.Second,
			memory: 2 * time.Second, multicast: time.Second, queriers: 3 * time.Second, sleeps: 200, syncs: 50, pattern: 64 << 20,
		}
	}
	return budget{
		disk: 10 * time.Second, capacity: 5 * time.Minute, scratch: 4 << 30, hash: time.Second, soak: 3 * time.Minute,
		memory: 30 * time.Second, multicast: 5 * time.Second, queriers: 130 * time.Second, sleeps: 200, syncs: 500, pattern: 256 << 20,
	}
}

// Qualifier measures one machine. It is used by one goroutine.
type Qualifier struct {
	cfg Config
	log *slog.Logger
	budget
	report client.Qualification
	tell   func(client.Qualification)
}

// step is one part of the measurement, with its share of the whole time.
type step struct {
	name  string
	share time.Duration
	do    func(context.Context)
}

// New builds a Qualifier; it measures nothing yet.
func New(cfg Config, log *slog.Logger) (*Qualifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("qualify: %w", err)
	}
	return &Qualifier{cfg: cfg, log: log, budget: cfg.budget()}, nil
}

// Run measures everything and judges it. Tell, which may be nil, gets the report
// as far as it is, from Run's own goroutine. What could not be measured is said
// in the report; an error is one of ctx, or that nothing may be measured at all.
func (q *Qualifier) Run(ctx context.Context, tell func(client.Qualification)) (client.Qualification, error) {
	q.tell = tell
	q.report = client.Qualification{State: client.QualifyRunning, Started: time.Now(), Quick: q.cfg.Quick, NICs: []client.NIC{}}
	steps, err := q.steps()
	if err != nil {
		q.report.State, q.report.Ended = client.QualifyStopped, time.Now()
		return q.report, fmt.Errorf("qualify: %w", err)
	}
	var whole, done time.Duration
	for _, s := range steps {
		whole += s.share
	}
	for _, s := range steps {
		q.progress(s.name, 100*float64(done)/float64(max(whole, 1)))
		start := time.Now()
		s.do(ctx)
		q.log.Debug("measured", "part", s.name, "took", time.Since(start))
		done += s.share
		if ctx.Err() != nil {
			q.report.State, q.report.Step, q.report.Ended = client.QualifyStopped, "", time.Now()
			return q.report, fmt.Errorf("qualify: %w", ctx.Err())
		}
	}
	q.report.State, q.report.Step, q.report.Percent, q.report.Ended = client.QualifyDone, "", 100, time.Now()
	q.report.Verdict = Judge(q.report)
	q.say()
	return q.report, nil
}

func (q *Qualifier) progress(step string, percent float64) {
	q.report.Step, q.report.Percent = step, percent
	q.say()
}

func (q *Qualifier) say() {
	if q.tell != nil {
		q.tell(q.report)
	}
}

// pause sleeps, or returns early when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// noRight says in a report that something is kept from this user.
func noRight(err error) string {
	if errors.Is(err, os.ErrPermission) {
		return err.Error() + " (root may)"
	}
	return err.Error()
}
