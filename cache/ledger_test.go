package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// The crash tests run the test binary again as a child that works upon a store
// until it is killed. What the child was promised it tells its parent, whose
// ledger outlives it; the next child gets the ledger and first looks whether the
// store has kept its word.

// promise is what a Pin that returned nil has said of an object.
type promise struct {
	Num   uint64
	Name  string
	Gone  string `json:",omitempty"` // a name that it had before
	Title string // also the meta of the name, and says what the bytes are
	Whole bool   // it was complete by then
}

// ledger is what a store has promised.
type ledger struct {
	Pins     map[uint64]promise
	Denied   map[string]bool  // taken down, or let back
	Accepted map[uint64]int64 // bytes of fills that ran
}

func newLedger() *ledger {
	return &ledger{map[uint64]promise{}, map[string]bool{}, map[uint64]int64{}}
}

// event is what a child says, a line each. What is about to change is said
// before, so that a kill in between leaves either state right.
type event struct {
	What   string
	Pin    promise `json:",omitzero"`
	Denial string  `json:",omitempty"`
	Num    uint64  `json:",omitempty"`
	Bytes  int64   `json:",omitempty"`
	Report report  `json:",omitzero"`
}

// note enters an event.
func (l *ledger) note(e event) {
	switch e.What {
	case "pinned":
		l.Pins[e.Pin.Num] = e.Pin
	case "letting":
		delete(l.Pins, e.Num)
	case "denied":
		l.Denied[e.Denial] = true
	case "lifted":
		l.Denied[e.Denial] = false
	case "denying", "lifting":
		delete(l.Denied, e.Denial)
	case "accepted":
		l.Accepted[e.Num] = e.Bytes
	case "ended":
		delete(l.Accepted, e.Num)
	}
}

// report is what a child has found in the store.
type report struct {
	Complete, Partial, Small int64    // objects read, all bytes of them compared
	Forgotten                int64    // that were listed and turned out not to be there
	Pins, Denials            int64    // kept
	Fills                    int64    // that ran when the child was killed
	Again                    int64    // bytes of the worst of them that are to be brought again
	Faults                   []string // broken promises
}

func (r *report) add(more report) {
	r.Complete += more.Complete
	r.Partial += more.Partial
	r.Small += more.Small
	r.Forgotten += more.Forgotten
	r.Pins += more.Pins
	r.Denials += more.Denials
	r.Fills += more.Fills
	r.Again = max(r.Again, more.Again)
	r.Faults = append(r.Faults, more.Faults...)
}

// auditor compares a store with the ledger. It stands in for the test in a child.
type auditor struct {
	testing.TB
	store *Store
	report
}

func (a *auditor) Helper()                           {}
func (a *auditor) Error(args ...any)                 { a.Faults = append(a.Faults, fmt.Sprint(args...)) }
func (a *auditor) Errorf(format string, args ...any) { a.Error(fmt.Sprintf(format, args...)) }

// audit looks at all that a store has; nothing else may use it meanwhile.
func audit(s *Store, l *ledger) report {
	a := &auditor{store: s}
	a.fills(l)
	lost := a.bodies(l)
	a.pins(l, lost)
	a.denials(l)
	balance(a, s)
	s.sweep(context.Background())
	for _, v := range s.volumes {
		for num := range blobFiles(v.dir) {
			if _, ok := s.Get(num); !ok {
				a.Errorf("nobody knows blob %d on %s", num, v.dir)
			}
		}
	}
	return a.report
}

// fills looks at how much of the fills that ran is durable.
func (a *auditor) fills(l *ledger) {
	for num, accepted := range l.Accepted {
		a.Fills++
		info, ok := a.store.Get(num)
		if ok && info.Complete {
			continue
		}
		here := int64(0)
		if ok {
			f, err := a.store.OpenFill(num, nil)
			if err != nil && !errors.Is(err, ErrNotFound) {
				a.Errorf("resume object %d: %v", num, err)
			}
			if err == nil {
				here = f.readable.Len()
				a.stop(f)
			}
		}
		a.Again = max(a.Again, accepted-here)
		if accepted-here > 2*flushEvery {
			a.Errorf("of a fill of %d bytes %d have to be brought again (listed: %v)", accepted, accepted-here, ok)
		}
	}
}

func (a *auditor) stop(f *Fill) {
	f.stop(errUnwanted)
	<-f.Done()
}

// bodies reads what is listed, and returns what turned out not to be there.
func (a *auditor) bodies(l *ledger) (lost map[uint64]error) {
	lost = map[uint64]error{}
	for _, info := range a.store.List() {
		e, _ := a.store.look(info.Num)
		read := a.complete
		if !info.Complete {
			read = a.partial
		}
		switch err := read(info); {
		case err == nil && !info.Complete:
			a.Partial++
		case err == nil && e.is(isSmall):
			a.Small++
		case err == nil:
			a.Complete++
		case errors.Is(err, ErrNotFound) || info.Pinned && errors.Is(err, content.ErrNotHere): // nobody repairs
			a.Forgotten++
			lost[info.Num] = err
			if now, ok := a.store.Get(info.Num); ok && (now.Complete || !now.Pinned) {
				a.Errorf("object %d is not there and still listed: %+v", info.Num, now)
			}
		default:
			a.Errorf("object %d (complete %v, small %v, %s): %v", info.Num, info.Complete, e.is(isSmall), info.Title, err)
		}
	}
	return lost
}

func (a *auditor) complete(info Info) error {
	if data := contentOf(info.Title); info.Size != int64(len(data)) {
		return fmt.Errorf("has %d bytes, not %d", info.Size, len(data))
	}
	r, err := a.store.Read(info.Num)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.WriteRange(context.Background(), newComparer(info.Title), content.Range{End: info.Size})
	return err
}

func (a *auditor) partial(info Info) error {
	f, err := a.store.OpenFill(info.Num, nil)
	if err != nil {
		return err
	}
	defer a.stop(f)
	r, err := f.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	data := contentOf(info.Title)
	for _, rng := range f.readable {
		rng.End = min(rng.End, int64(len(data)))
		got := make([]byte, rng.Len())
		if _, err := r.ReadAt(got, rng.Off); err != nil && err != io.EOF {
			return fmt.Errorf("%s is said to be durable: %w", rng, err)
		}
		if !bytes.Equal(got, data[rng.Off:rng.End]) {
			return fmt.Errorf("%s is wrong", rng)
		}
	}
	return nil
}

func (a *auditor) pins(l *ledger, lost map[uint64]error) {
	for num, p := range l.Pins {
		a.Pins++
		info, meta, ok := a.store.Lookup(p.Name)
		if !ok || info.Num != num || !info.Pinned || info.Title != p.Title || string(meta) != p.Title || p.Whole && !info.Complete {
			at, still := a.store.Get(num)
			a.Errorf("promised was %+v; its name has %+v with %s (%v); there is %+v (%v), lost just now: %v", p, info, meta, ok, at, still, lost[num])
		}
		if at, _, ok := a.store.Lookup(p.Gone); ok && at.Num == num {
			a.Errorf("object %d has its old name %s again", num, p.Gone)
		}
	}
}

func (a *auditor) denials(l *ledger) {
	for _, what := range a.store.Denials() {
		if denied, said := l.Denied[what.What]; said && !denied {
			a.Errorf("%s was let back and is taken down", what.What)
		}
	}
	for what, denied := range l.Denied {
		if denied && a.store.denialOf(what).By == "" {
			a.Errorf("%s was taken down and is not", what)
		}
		a.Denials++
	}
	for _, info := range a.store.List() { // also where the child was killed within Purge
		for _, called := range append(info.Names, "") {
			if err := a.store.denied.check(called, info.ID); err != nil {
				a.Errorf("object %d (%s) is here: %v", info.Num, called, err)
			}
		}
	}
}

// titleOf names contents; contentOf makes them.
func titleOf(seed uint64, size int64) string { return fmt.Sprintf("%d of %d", seed, size) }

func contentOf(title string) []byte { return noise(parseTitle(title)) }

func contentSize(title string) int64 {
	_, size := parseTitle(title)
	return size
}

func parseTitle(title string) (seed uint64, size int64) {
	if _, err := fmt.Sscanf(title, "%d of %d", &seed, &size); err != nil {
		panic(fmt.Sprintf("no contents have the title %q", title))
	}
	return seed, size
}

// comparer is an io.Writer that knows what is to come.
type comparer struct {
	data []byte
	at   int
}

func newComparer(title string) *comparer { return &comparer{data: contentOf(title)} }

func (c *comparer) Write(p []byte) (int, error) {
	if c.at+len(p) > len(c.data) || !bytes.Equal(p, c.data[c.at:c.at+len(p)]) {
		return 0, fmt.Errorf("%w in the %d bytes from %d", errWrongBytes, len(p), c.at)
	}
	c.at += len(p)
	return len(p), nil
}

var errWrongBytes = errors.New("other bytes than came in")
