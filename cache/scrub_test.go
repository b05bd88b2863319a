package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// TestScrubGoesOn: a scrub that is cut short by the end of the store goes on in
// the next life, and when its pass is done rests until its period is over.
func TestScrubGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Dir: dir, ScrubPeriod: 2 * time.Minute})
		var nums []uint64
		for i := range 5 {
			nums = append(nums, put(t, s, fmt.Sprint(i), noise(uint64(820+i), 2*mib)))
		}
		checked := func() (n int) {
			for _, num := range nums {
				if e, ok := s.look(num); ok && e.is(isChecked) {
					n++
				}
			}
			return n
		}
		for life, want := range []int{2, 2, 1} { // at 1 MiB/s, after 1 MiB at once
			s = reopen(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			s.keepScrubbing(ctx)
			cancel()
			if n := checked(); n != want {
				t.Errorf("life %d: %d objects were checked, want %d", life, n, want)
			}
		}
		s = reopen(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		s.keepScrubbing(ctx)
		cancel()
		if checked() != 0 {
			t.Error("a pass began before the period was over")
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
		s.keepScrubbing(ctx)
		cancel()
		if checked() != 5 || s.Stats().Scrubs != 1 {
			t.Errorf("%d objects were checked in the next period, %d passes", checked(), s.Stats().Scrubs)
		}
	})
}

// TestScrubRepairsAll: a pass finds damage in large and small objects, repairs
// what somebody has, and goes on past what nobody has.
func TestScrubRepairsAll(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(830, 3*mib)
	good, bad := put(t, s, "good", data), put(t, s, "bad", noise(831, 2*mib))
	small, other := put(t, s, "small", noise(832, 5000)), put(t, s, "other", noise(833, 5000))
	s = reopen(t, s)
	e, _ := s.look(small)
	flipByte(t, bodyPath(s.cfg.Dir, good), 2*mib+1)
	flipByte(t, bodyPath(s.cfg.Dir, good), 1)
	flipByte(t, bodyPath(s.cfg.Dir, bad), 1)
	flipByte(t, s.segmentOf(small), int64(e.place.Off)+int64(e.place.Len)-9)
	s.SetRepairer(named{"good": from("friend", data, mib), "small": from("friend", noise(832, 5000), mib)})
	for pass, want := range []int64{4, 0} {
		report, err := s.Scrub(t.Context(), 0)
		if err != nil || report.Damaged != want && pass > 0 || pass == 0 && report.Damaged < 3 {
			t.Errorf("pass %d: %+v, %v", pass, report, err)
		}
	}
	wantObject(t, s, "good", data)
	wantObject(t, s, "small", noise(832, 5000))
	wantObject(t, s, "other", noise(833, 5000))
	if _, err := s.Read(bad); !errors.Is(err, ErrIncomplete) {
		t.Errorf("what nobody could repair was read: %v", err)
	}
	if !has(s, other) || s.Stats().Repaired != 2 {
		t.Errorf("%d were repaired", s.Stats().Repaired)
	}
	balance(t, s)
}

// named repairs objects by their title.
type named map[string]content.Source

func (n named) Repair(_ context.Context, info Info) ([]content.Source, error) {
	if src, ok := n[info.Title]; ok {
		return []content.Source{src}, nil
	}
	return nil, errors.New("nobody has it")
}
