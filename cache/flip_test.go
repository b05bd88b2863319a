package cache

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// flips flips single bits of a closed store and says what came of each.
type flips struct {
	*testing.T
	rng      *rand.Rand
	dir      string
	outcomes map[string]map[string]int // region, outcome
	compared int64                     // bytes that were delivered
}

func newFlips(t *testing.T, stream uint64) *flips {
	return &flips{t, rand.New(rand.NewPCG(seedOf(t), stream)), t.TempDir(), map[string]map[string]int{}, 0}
}

func (f *flips) count(region, outcome string) {
	if f.outcomes[region] == nil {
		f.outcomes[region] = map[string]int{}
	}
	f.outcomes[region][outcome]++
}

// total prints the counts.
func (f *flips) total() (n int) {
	for _, region := range slices.Sorted(maps.Keys(f.outcomes)) {
		for _, outcome := range slices.Sorted(maps.Keys(f.outcomes[region])) {
			f.Logf("store.flips: %-22s %-40s %4d", region, outcome, f.outcomes[region][outcome])
			n += f.outcomes[region][outcome]
		}
	}
	f.Logf("store.flips: %d flips, %.0f MiB delivered and compared", n, float64(f.compared)/mib)
	return n
}

// open opens the store and tells of damage by number.
func (f *flips) open() (*Store, *witness, error) {
	w := &witness{}
	s, err := Open(Config{Dir: f.dir, Small: true, MinFree: 1}, slog.New(w))
	return s, w, err
}

// make makes a store of so many objects and closes it.
func (f *flips) make(large, small int) {
	s, _, err := f.open()
	if err != nil {
		f.Fatal(err)
	}
	for i := range large + small {
		size := 1 + f.rng.Int64N(SmallObject)
		if i < large {
			size = SmallObject + 1 + f.rng.Int64N(2*mib)
		}
		title := titleOf(uint64(i), size)
		num := put(f, s, title, contentOf(title))
		if i%3 == 0 {
			if err := s.SetName(num, "also "+title, []byte("meta")); err != nil {
				f.Fatal(err)
			}
		}
		if i%4 == 0 {
			if err := s.Pin(num, true); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.close(s)
}

func (f *flips) close(s *Store) {
	f.Helper()
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
}

// deliver reads an object as a client does.
func (f *flips) deliver(s *Store, info Info) error {
	r, err := s.Read(info.Num)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := r.WriteRange(context.Background(), newComparer(info.Title), content.Range{End: contentSize(info.Title)})
	f.compared += n
	return err
}

// known is what must be right of an object, whatever flipped.
func known(s *Store) map[uint64]string {
	all := map[uint64]string{}
	for _, i := range s.List() {
		said := fmt.Sprint(i.ID, i.Size, i.Complete, i.Trust, i.Public, i.Pinned, i.Title)
		for _, called := range i.Names {
			at, meta, ok := s.Lookup(called)
			said += fmt.Sprintf(" %s:%d:%s:%v", called, at.Num, meta, ok)
		}
		all[i.Num] = said
	}
	return all
}

// witness is a slog.Handler that remembers which objects were found damaged.
type witness struct {
	mu      sync.Mutex // guards damaged
	damaged map[uint64]bool
}

func (w *witness) Enabled(context.Context, slog.Level) bool { return true }
func (w *witness) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *witness) WithGroup(string) slog.Handler            { return w }

func (w *witness) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "found an object damaged" {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "object" {
			if w.damaged == nil {
				w.damaged = map[uint64]bool{}
			}
			w.damaged[a.Value.Uint64()] = true
		}
		return true
	})
	return nil
}

func (w *witness) saw(num uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.damaged[num]
}

// TestFlipsInTheIndex flips one bit of the index, or of what says which disk this
// is, opens the store and looks at every record: it is right, or it is not there.
// After an index that cannot be believed all is there again, from the cards.
func TestFlipsInTheIndex(t *testing.T) {
	t.Parallel()
	f := newFlips(t, 1)
	n := 14
	if soak() {
		n = 350
	}
	f.make(2, 30)
	s, _, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	want := known(s)
	f.close(s)
	kept := t.TempDir()
	f.copyIndex(kept, f.dir)
	lost := 0
	for i := range n {
		lost += f.flipIndex(i, want)
		f.copyIndex(f.dir, kept)
	}
	f.total()
	figure(t, "store.flips: objects that a flip in the index lost", float64(lost), 0, "")
}

// copyIndex makes the index of one store that of another. The room that an index
// reserves need not be copied.
func (f *flips) copyIndex(to, from string) {
	f.Helper()
	old, err := filepath.Glob(filepath.Join(to, "index*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			f.Fatal(err)
		}
	}
	for _, path := range f.files(from) {
		rel, _ := filepath.Rel(from, path) // it is below
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, rel), text, 0o600)
		}
		if err != nil {
			f.Fatal(err)
		}
	}
}

// files lists what is not empty of the index, and the marker of the volume.
func (f *flips) files(dir string) []string {
	f.Helper()
	files := []string{filepath.Join(dir, "volume.json")}
	err := filepath.WalkDir(filepath.Join(dir, "index"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "reserve" {
			if st, err := d.Info(); err == nil && st.Size() > 0 {
				files = append(files, path)
			}
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return files
}

// flipIndex flips one bit and says how many objects that has cost.
func (f *flips) flipIndex(i int, want map[uint64]string) (lost int) {
	files := f.files(f.dir)
	path := files[i/2%len(files)]
	if at := slices.IndexFunc(files, func(path string) bool { return filepath.Ext(path) == ".sst" }); i%2 == 0 && at >= 0 {
		path = files[at] // where the records are
	}
	st, err := os.Stat(path)
	if err != nil {
		f.Fatal(err)
	}
	bit := f.rng.Int64N(8 * st.Size())
	flip(f.T, path, bit)
	region := "index: " + filepath.Ext(path)
	if filepath.Ext(path) == "" || filepath.Base(path) == "volume.json" {
		region = "index: " + filepath.Base(path)
	}
	s, _, err := f.open()
	if err != nil {
		f.count(region, "refused to open")
		f.Logf("bit %d of %s: %v", bit, path, err)
		return 0
	}
	defer f.close(s)
	got := known(s)
	for num, said := range got {
		if said != want[num] {
			f.Errorf("bit %d of %s: object %d is said to be\n%s, not\n%s", bit, path, num, said, want[num])
		}
	}
	for _, info := range s.List() {
		if err := f.deliver(s, info); err != nil {
			f.Errorf("bit %d of %s: %s: %v", bit, path, info.Title, err)
		}
	}
	lost = len(want) - len(got)
	fresh, _ := s.books.index.Fresh()
	switch {
	case lost > 0:
		f.count(region, "caught, objects forgotten")
		f.Logf("bit %d of %s: %d objects forgotten (index made anew: %v)", bit, path, lost, fresh)
	case fresh:
		f.count(region, "caught, index made anew, nothing lost")
	case s.books.index.Stats().Damaged > 0:
		f.count(region, "caught, record dropped, nothing lost")
	default:
		f.count(region, "in no record: all are right")
	}
	return lost
}

// hit is a bit that was flipped.
type hit struct {
	num    uint64
	region string
	path   string
	bit    int64
}

// TestFlipsInBodies flips one bit in each of many objects of a closed store: in
// bodies, in what lies beside them, in segments. Each must be found by the first
// read or by a scrub, be repaired, and never be delivered.
func TestFlipsInBodies(t *testing.T) {
	t.Parallel()
	f := newFlips(t, 2)
	n, large, small := 46, 6, 25
	if soak() {
		n, large, small = 650, 40, 60
	}
	f.make(large, small)
	missed := 0
	for pass := 0; n > 0; pass++ {
		hits := f.flipBodies(min(n, large+small), pass%3 == 1)
		n -= len(hits)
		missed += f.serve(hits)
	}
	f.total()
	figure(t, "store.flips: flips in bodies that nobody noticed or repaired", float64(missed), 0, "")
}

// flipBodies flips at most n bits of as many objects. If head is set, one of them
// is in the head of a segment.
func (f *flips) flipBodies(n int, head bool) (hits []hit) {
	s, _, err := f.open()
	if err != nil {
		f.Fatal(err)
	}
	spared := int64(-1)
	for _, info := range s.List() {
		e, _ := s.look(info.Num)
		switch {
		case len(hits) == n:
		case e.is(isSmall) && head && spared < 0: // all in it are hit
			spared = int64(e.place.Segment)
			hits = append(hits, hit{info.Num, "segment: head", f.segment(e.place.Segment), f.rng.Int64N(8 * 28)})
		case e.is(isSmall) && int64(e.place.Segment) != spared:
			hits = append(hits, f.pickSmall(s, &e))
		case !e.is(isSmall):
			hits = append(hits, f.pickLarge(s, &e))
		}
	}
	f.close(s)
	for _, h := range hits {
		flip(f.T, h.path, h.bit)
	}
	return hits
}

func (f *flips) segment(id uint32) string {
	return filepath.Join(f.dir, "segments", fmt.Sprintf("%08x.seg", id))
}

// pickSmall picks a bit of a record in a segment.
func (f *flips) pickSmall(s *Store, e *entry) hit {
	card, _, err := s.volumeOf(e).Segments().Read(e.place, e.num(), nil)
	if err != nil {
		f.Fatal(err)
	}
	parts := []struct {
		region    string
		off, size int64
	}{
		{"segment: record's head", 0, 32},
		{"segment: card", 32, int64(len(card))},
		{"segment: body", 32 + int64(len(card)), e.size},
	}
	p := parts[f.rng.IntN(len(parts))]
	return hit{e.num(), p.region, f.segment(e.place.Segment), 8*(int64(e.place.Off)+p.off) + f.rng.Int64N(8*p.size)}
}

// pickLarge picks a bit of a body or its sidecar.
func (f *flips) pickLarge(s *Store, e *entry) hit {
	b, err := s.volumeOf(e).Open(e.num())
	if err != nil {
		f.Fatal(err)
	}
	defer b.Close()
	card, err := b.Card()
	if err != nil || len(card) == 0 {
		f.Fatalf("card of object %d: %q, %v", e.num(), card, err)
	}
	i := f.rng.Int64N(content.Blocks(e.size))
	slot := 8 * (4096 + i*(8+32*content.LeavesPerBlock))
	body, tree := bodyPath(f.dir, e.num()), bodyPath(f.dir, e.num())+".tree"
	switch f.rng.IntN(6) {
	case 0:
		return hit{e.num(), "sidecar: head", tree, f.rng.Int64N(8 * 28)}
	case 1:
		return hit{e.num(), "sidecar: card", tree, 8*32 + f.rng.Int64N(8*int64(8+len(card)))}
	case 2:
		return hit{e.num(), "sidecar: hashes", tree, slot + f.rng.Int64N(8*(8+32*content.Leaves(content.Block(i, e.size).Len())))}
	}
	return hit{e.num(), "body", body, f.rng.Int64N(8 * e.size)}
}

// serve opens the store, reads half of the objects, scrubs it, reads all, and
// says how many flips were not noticed.
func (f *flips) serve(hits []hit) (missed int) {
	s, w, err := f.open()
	if err != nil {
		f.Fatal(err)
	}
	defer f.close(s)
	want := known(s)
	s.SetRepairer(originals{})
	early := map[uint64]bool{}
	for _, info := range s.List() {
		if f.rng.IntN(2) == 0 {
			if err := f.deliver(s, info); err != nil {
				f.Errorf("first read of %s: %v", info.Title, err)
			}
			await(s, info.Num)
			early[info.Num] = w.saw(info.Num)
		}
	}
	if _, err := s.Scrub(f.Context(), 0); err != nil {
		f.Error(err)
	}
	for _, h := range hits {
		switch {
		case early[h.num]:
			f.count(h.region, "caught at the first read, repaired")
		case w.saw(h.num):
			f.count(h.region, "caught by the scrub, repaired")
		default:
			f.count(h.region, "missed")
			f.Errorf("bit %d of %s (%s of object %d) was not noticed", h.bit, h.path, h.region, h.num)
			missed++
		}
	}
	for num, said := range known(s) {
		if said != want[num] {
			f.Errorf("object %d is said to be\n%s, not\n%s", num, said, want[num])
		}
		delete(want, num)
	}
	if len(want) > 0 {
		f.Errorf("lost were %v", want)
	}
	for _, info := range s.List() {
		if err := f.deliver(s, info); err != nil {
			f.Errorf("read of %s after the repair: %v", info.Title, err)
		}
	}
	return missed + f.again(s)
}

// again scrubs once more: nothing may be left to find.
func (f *flips) again(s *Store) int {
	report, err := s.Scrub(f.Context(), 0)
	if err != nil || report.Damaged > 0 {
		f.Errorf("a second scrub gave %+v, %v", report, err)
	}
	return int(report.Damaged)
}

// originals is a Repairer that has everything.
type originals struct{}

func (originals) Repair(_ context.Context, info Info) ([]content.Source, error) {
	return []content.Source{from("original", contentOf(info.Title), mib)}, nil
}
