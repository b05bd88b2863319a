package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// repairers says who repairs an object.
type repairers func(info Info) []content.Source

func (r repairers) Repair(_ context.Context, info Info) ([]content.Source, error) {
	return r(info), nil
}

// wantPinned makes sure that an object is listed and pinned, and not complete.
func wantPinned(t *testing.T, s *Store, called string) Info {
	t.Helper()
	info, _, ok := s.Lookup(called)
	if !ok || !info.Pinned || info.Complete {
		t.Fatalf("%s: found %v, %+v; want it pinned and incomplete", called, ok, info)
	}
	return info
}

// await waits for the end of an object's fill.
func await(s *Store, num uint64) {
	if f := s.mending(num); f != nil {
		<-f.Done()
	}
}

// refill brings a partial object in.
func refill(t *testing.T, s *Store, num uint64, data []byte) error {
	t.Helper()
	f, err := s.OpenFill(num, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(from("memory", data, 10_000))
	<-f.Done()
	return f.Err()
}

// TestPinOutlivesWhatIsInMemory: an object that is pinned before it is on disk is
// filled anew after a restart, and has lost nothing but its bytes.
func TestPinOutlivesWhatIsInMemory(t *testing.T) {
	s := open(t, Config{})
	for called, size := range map[string]int64{"known": 5000, "unknown": content.UnknownSize} {
		if err := s.Pin(create(t, s, called, content.Object{Size: size}).Num(), true); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	for _, called := range []string{"known", "unknown"} {
		info := wantPinned(t, s, called)
		if err := refill(t, s, info.Num, noise(1, 5000)); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, called, noise(1, 5000))
		if err := s.Evict(info.Num); err != nil { // or they would be merged
			t.Fatal(err)
		}
	}
	balance(t, s)
}

// TestSpill: what was written before an object turned out to be large may be
// accepted after, also where a crash has left a blob that the index knows
// nothing of.
func TestSpill(t *testing.T) {
	s := open(t, Config{})
	data := noise(6, 3*SmallObject)
	f := create(t, s, "a", content.Object{Size: content.UnknownSize})
	if err := s.Pin(f.Num(), true); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if err := os.MkdirAll(filepath.Dir(bodyPath(s.cfg.Dir, f.Num())), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bodyPath(s.cfg.Dir, f.Num()), data[:7], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := s.OpenFill(f.Num(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(source{"apart", func(_ context.Context, sink content.Sink) error {
		_, early := sink.WriteAt(data[:5000], 0)
		return errors.Join(early, bring(sink, data, content.Range{Off: 5000, End: int64(len(data))}),
			sink.SetSize(int64(len(data))), sink.Accept(content.Range{End: 5000}))
	}})
	if <-f.Done(); f.Err() != nil {
		t.Fatal(f.Err())
	}
	wantObject(t, s, "a", data)
	wantObject(t, reopen(t, s), "a", data)
}

// TestPinOutlivesItsBody: of a pinned object whose body is gone everything else
// stays, and only the same bytes may come back.
func TestPinOutlivesItsBody(t *testing.T) {
	s := open(t, Config{})
	data := map[string][]byte{"large": noise(2, 2*mib), "small": noise(3, 5000), "partial": noise(4, 3*mib)}
	pinned := map[string]uint64{}
	for called, bytes := range data {
		if pinned[called] = create(t, s, called, content.Object{Size: int64(len(bytes))}).Num(); called != "partial" {
			if err := refill(t, s, pinned[called], bytes); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Pin(pinned[called], true); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	for _, called := range []string{"large", "partial"} {
		if err := os.Remove(bodyPath(s.cfg.Dir, pinned[called])); err != nil {
			t.Fatal(err)
		}
	}
	damageSmall(t, s, pinned["small"])
	for called, bytes := range data {
		if r, err := s.Read(pinned[called]); err == nil { // nobody repairs
			if _, err := r.Wait(t.Context(), 0); !errors.Is(err, content.ErrNotHere) {
				t.Errorf("%s: read gave %v", called, err)
			}
			r.Close()
		}
		await(s, pinned[called])
		info := wantPinned(t, s, called)
		if called == "small" {
			if err := refill(t, s, info.Num, noise(5, 5000)); !errors.Is(err, content.ErrBadPiece) {
				t.Errorf("%s: other bytes gave %v", called, err)
			}
			wantPinned(t, s, called)
		}
		if err := refill(t, s, info.Num, bytes); err != nil {
			t.Errorf("%s: %v", called, err)
		}
		wantObject(t, s, called, bytes)
	}
	balance(t, s)
}

// damageSmall flips a bit of a small object on the disk.
func damageSmall(t *testing.T, s *Store, num uint64) {
	t.Helper()
	s.flushSmall()
	e, _ := s.look(num)
	flip(t, filepath.Join(s.cfg.Dir, "segments", fmt.Sprintf("%08x.seg", e.place.Segment)), 8*(int64(e.place.Off)+int64(e.place.Len)-1))
}

// TestSmallObjectsAreRepaired: what a scrub or a reader finds damaged of small
// objects comes again, and is refused if it is not what it was.
func TestSmallObjectsAreRepaired(t *testing.T) {
	s := open(t, Config{})
	good := put(t, s, "good", noise(1, 5000))
	bad := put(t, s, "bad", noise(2, 5000))
	s = reopen(t, s)
	s.SetRepairer(repairers(func(Info) []content.Source { return []content.Source{from("original", noise(1, 5000), mib)} }))
	damageSmall(t, s, good)
	damageSmall(t, s, bad)
	r, err := s.Read(good)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, r, noise(1, 5000), content.Range{End: 5000})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	await(s, good)
	if report, err := s.Scrub(t.Context(), 0); err != nil || report.Damaged != 1 {
		t.Errorf("scrub gave %+v, %v", report, err)
	}
	wantObject(t, s, "good", noise(1, 5000))
	if _, _, ok := s.Lookup("bad"); ok {
		t.Error("an object is listed that nobody could repair")
	}
	damageSmall(t, s, good)
	if report, err := s.Scrub(t.Context(), 0); err != nil || report.Damaged != 1 {
		t.Errorf("scrub gave %+v, %v", report, err)
	}
	wantObject(t, s, "good", noise(1, 5000))
}
