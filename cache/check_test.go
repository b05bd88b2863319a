package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// flipByte changes one byte of a file.
func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	flip(t, path, 8*at)
}

// slotAt is where the hashes of block i lie in a sidecar, a little into them.
func slotAt(i int64) int64 { return 4096 + i*(8+64*32) + 100 }

// repairer finds the same Sources for every object, and counts.
type repairer struct {
	sources []content.Source
	asked   chan Info
}

func (r repairer) Repair(_ context.Context, info Info) ([]content.Source, error) {
	r.asked <- info
	return r.sources, nil
}

// TestEvictedReaderGetsNothingUnchecked: a reader goes on when its object is
// evicted, and is still not given a block that was not checked since the start.
func TestEvictedReaderGetsNothingUnchecked(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(300, 4*mib+5)
	num := put(t, s, "a", data)
	s = reopen(t, s)
	flipByte(t, bodyPath(s.cfg.Dir, num), 2*mib+9)
	r, err := s.Read(num)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wantBytes(t, r, data, content.Range{End: 10})
	if err := s.Evict(num); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, r, data, content.Range{End: 2 * mib})
	wantBytes(t, r, data, content.Range{Off: 3 * mib, End: int64(len(data))})
	if n, err := r.WriteRange(t.Context(), io.Discard, content.Range{Off: 2 * mib, End: 3 * mib}); n != 0 || err == nil {
		t.Errorf("%d bytes of a damaged block of an evicted object were sent, %v", n, err)
	}
	if _, err := r.ReadAt(make([]byte, 10), 2*mib+5); err == nil {
		t.Error("a damaged block of an evicted object was read")
	}
}

// TestReadersOfCheckedObjects: who opened an object when all of it was checked
// learns of damage that is found later, and keeps what it has when it is evicted.
func TestReadersOfCheckedObjects(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(301, 2*mib)
	num := put(t, s, "a", data)
	kept, _ := s.Read(num)
	defer kept.Close()
	flipByte(t, bodyPath(s.cfg.Dir, num), mib+9)
	if _, err := s.Scrub(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Wait(t.Context(), mib); err == nil || err == io.EOF {
		t.Errorf("a block known to be damaged was handed out: %v", err)
	}
	whole := put(t, s, "b", data)
	r, _ := s.Read(whole)
	defer r.Close()
	if err := s.Evict(whole); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, r, data, content.Range{End: int64(len(data))})
}

// TestSlotAndBodyDamaged: when both the hashes of a block and its bytes are
// damaged, the bytes must not become what they are checked against.
func TestSlotAndBodyDamaged(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(302, 3*mib)
	num := put(t, s, "a", data)
	s = reopen(t, s)
	path := bodyPath(s.cfg.Dir, num)
	flipByte(t, path, mib+9)
	flipByte(t, path+".tree", slotAt(1))
	for range 2 {
		r, err := s.Read(num)
		if err != nil {
			break // it is incomplete: right
		}
		if _, err := r.Wait(t.Context(), mib+1); err == nil {
			t.Error("damaged bytes were believed")
		}
		r.Close()
		s = reopen(t, s)
	}
	e, _ := s.look(num)
	b, err := s.volumes[0].Open(num)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Check(1, e.size); err == nil {
		t.Error("the damaged block has hashes that vouch for it")
	}
}

// TestDamageIsMended: damaged bytes, hashes, or both, are found at the first read
// after a start or by the scrub, and mended from a Source or from what is sound.
func TestDamageIsMended(t *testing.T) {
	t.Parallel()
	data := noise(303, 3*mib+7)
	cases := []struct {
		name       string
		body, slot bool
	}{{"body", true, false}, {"slot", false, true}, {"body and slot", true, true}}
	for _, scrub := range []bool{false, true} {
		s := open(t, Config{})
		var nums []uint64
		for _, c := range cases {
			f, err := s.Create(Spec{Object: content.Object{Size: int64(len(data))}, Title: c.name}, c.name, nil) // private: not merged
			if err != nil {
				t.Fatal(err)
			}
			f.Start(from("memory", data, mib))
			<-f.Done()
			nums = append(nums, f.Num())
		}
		s = reopen(t, s)
		by := repairer{[]content.Source{from("friend", data, mib)}, make(chan Info, 9)}
		s.SetRepairer(by)
		for i, c := range cases {
			path := bodyPath(s.cfg.Dir, nums[i])
			if c.body {
				flipByte(t, path, mib+9)
			}
			if c.slot {
				flipByte(t, path+".tree", slotAt(1))
			}
		}
		if scrub {
			if report, err := s.Scrub(t.Context(), 0); err != nil || report.Damaged != 3 || report.Objects != 3 {
				t.Errorf("the scrub says %+v, %v", report, err)
			}
		}
		for i, c := range cases {
			r, err := s.Read(nums[i])
			if err != nil {
				t.Fatal(c.name, err)
			}
			wantBytes(t, r, data, content.Range{End: int64(len(data))})
			r.Close()
			for f := s.activeFill(nums[i]); f != nil; f = s.activeFill(nums[i]) {
				<-f.Done()
			}
			wantObject(t, s, c.name, data)
			info, _ := s.Get(nums[i])
			if c.body && info.From["friend"] != mib || info.From["friend"]+info.From["memory"] != info.Size {
				t.Errorf("%s, scrub %v: bytes came from %v", c.name, scrub, info.From)
			}
		}
		if got := s.Stats(); got.Damaged != 3 || got.Repaired != 2 || len(by.asked) != 2 || len(s.proofs) != 0 {
			t.Errorf("scrub %v: %d damaged, %d repaired, %d asked for, %d proofs kept", scrub, got.Damaged, got.Repaired, len(by.asked), len(s.proofs))
		}
		balance(t, s)
	}
}

// activeFill is the fill of an object that is under way.
func (s *Store) activeFill(num uint64) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[num]
}

// TestWrongRepair: a Source that brings other bytes repairs nothing, and what was
// sound stays for the next one.
func TestWrongRepair(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(304, 3*mib)
	num := put(t, s, "a", data)
	s = reopen(t, s)
	bad := bytes.Clone(data)
	bad[mib+9] ^= 4
	flipByte(t, bodyPath(s.cfg.Dir, num), mib+9)
	s.SetRepairer(repairer{[]content.Source{from("liar", bad, mib)}, make(chan Info, 9)})
	r, _ := s.Read(num)
	defer r.Close()
	if _, err := r.Wait(t.Context(), mib); err == nil {
		t.Error("wrong bytes were handed out")
	}
	f, err := s.OpenFill(num, nil) // as the next request does
	if err != nil {
		t.Fatal(err)
	}
	f.Start(from("friend", data, mib))
	<-f.Done()
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	wantObject(t, s, "a", data)
	if info, _ := s.Get(num); info.From["friend"] != mib || s.Stats().Repaired != 1 {
		t.Errorf("bytes came from %v, %d repaired", info.From, s.Stats().Repaired)
	}
}

// TestProofOfWhatIsGone: nothing is remembered of a damaged object that was
// evicted before it was repaired.
func TestProofOfWhatIsGone(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	num := put(t, s, "a", noise(305, 2*mib))
	flipByte(t, bodyPath(s.cfg.Dir, num), 9)
	if _, err := s.Scrub(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if len(s.proofs) != 1 {
		t.Errorf("%d proofs are kept", len(s.proofs))
	}
	if err := s.Evict(num); err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if len(s.proofs)+len(s.checked) != 0 {
		t.Errorf("%d proofs and %d sets of blocks are kept of nothing", len(s.proofs), len(s.checked))
	}
}
