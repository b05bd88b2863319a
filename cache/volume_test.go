package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// twoVolumes is a store of two disks with a large and a small object on each;
// those on the second are pinned.
func twoVolumes(t *testing.T) (s *Store, data [4][]byte, nums [4]uint64) {
	t.Helper()
	dir := t.TempDir()
	s = open(t, Config{Dir: filepath.Join(dir, "0"), Volumes: []string{filepath.Join(dir, "1")}})
	for i := range nums {
		other := s.volumes[1-i/2]
		other.sick = errors.New("not now") // so the object goes to the one that the test wants
		data[i] = noise(uint64(400+i), []int64{2*mib + 5, 5000}[i%2])
		nums[i] = put(t, s, volumeNames[i], data[i])
		other.sick = nil
	}
	if err := errors.Join(s.Pin(nums[2], true), s.Pin(nums[3], true)); err != nil {
		t.Fatal(err)
	}
	s.saveCards()
	return s, data, nums
}

var volumeNames = [4]string{"http://a.example/large", "http://a.example/small", "http://b.example/large", "http://b.example/small"}

// wantAll checks that all four objects are here.
func wantAll(t *testing.T, s *Store, data [4][]byte) {
	t.Helper()
	for i, name := range volumeNames {
		wantObject(t, s, name, data[i])
		info, meta, _ := s.Lookup(name)
		if info.Pinned != (i >= 2) || !info.Public || string(meta) != "meta of "+name {
			t.Errorf("%s: %+v, meta %q", name, info, meta)
		}
		if got, ok := s.ByID(info.ID); !ok || got.Num != info.Num {
			t.Errorf("%s is not found by its identity", name)
		}
	}
	s.sweep(t.Context())
	for i, dir := range append([]string{s.cfg.Dir}, s.cfg.Volumes...) {
		if len(blobFiles(dir)) > 2 {
			t.Errorf("volume %d has files %v", i, blobFiles(dir))
		}
	}
	balance(t, s)
}

// TestVolumesChangePlaces: the configuration may name the disks in another order.
func TestVolumesChangePlaces(t *testing.T) {
	t.Parallel()
	s, data, _ := twoVolumes(t)
	further := filepath.Join(t.TempDir(), "2")
	cfg := s.cfg
	for _, volumes := range [][]string{{further, cfg.Volumes[0]}, {cfg.Volumes[0], further}} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Volumes = volumes
		s = open(t, cfg)
		wantAll(t, s, data)
	}
}

// TestVolumeLostAndBack: what is on a disk that is pulled is forgotten; when it
// is back, in the same life or in the next, it is adopted and not swept away.
func TestVolumeLostAndBack(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		s, data, nums := twoVolumes(t)
		v := s.volumes[1]
		s.lose(v, fmt.Errorf("pulled: %w", disk.ErrGone))
		for i, num := range nums {
			if _, ok := s.Get(num); ok != (i < 2) {
				t.Errorf("object %d is here: %v", i, ok)
			}
		}
		if v.small != 0 || len(v.segments) != 0 || s.Stats().Volumes[1].Bytes != 0 {
			t.Errorf("a lost volume counts %d bytes in segments", v.small)
		}
		s.sweep(t.Context())
		if restart {
			s = reopen(t, s)
		} else {
			s.watch(s.volumes[1])
		}
		wantAll(t, s, data)
	}
}

// TestVolumeAway: with a disk away at the start the rest serves; with the disk
// back, at once or at the next start, what was on it is here again.
func TestVolumeAway(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		volumeAway(t, restart)
	}
}

func volumeAway(t *testing.T, restart bool) {
	s, data, nums := twoVolumes(t)
	dir := s.cfg.Volumes[0]
	if err := errors.Join(s.Close(), os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.cfg)
	wantObject(t, s, volumeNames[0], data[0])
	if _, ok := s.Get(nums[2]); ok || !s.Stats().Volumes[1].Gone {
		t.Error("an object on a disk that is away is listed")
	}
	if restart {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { // meanwhile there is other work
		for ctx.Err() == nil && !restart {
			s.Lookup(volumeNames[0])
			s.tidy()
			s.flushSmall()
			s.Stats()
		}
	})
	s.watch(s.volumes[1])
	before := s.Stats()
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	if restart {
		s = open(t, s.cfg)
	} else {
		s.watch(s.volumes[1])
	}
	stop()
	asking.Wait()
	if st := s.Stats(); !before.Volumes[1].Gone || st.Volumes[1].Gone || s.cfg.SmallBytes != st.MaxBytes/16 {
		t.Errorf("%+v, then %+v", before.Volumes[1], st)
	}
	wantAll(t, s, data)
}

// TestTakenDownWhileAway: what is denied while a disk is away does not come back
// with it, nor what was denied when only that disk was there.
func TestTakenDownWhileAway(t *testing.T) {
	t.Parallel()
	s, data, _ := twoVolumes(t)
	dirs := append([]string{s.cfg.Dir}, s.cfg.Volumes...)
	aside := func(i int) {
		if err := errors.Join(os.Rename(dirs[i], dirs[i]+".away"), os.WriteFile(dirs[i], nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	back := func(i int) {
		if err := errors.Join(os.Remove(dirs[i]), os.Rename(dirs[i]+".away", dirs[i])); err != nil {
			t.Fatal(err)
		}
	}
	denied := []string{volumeNames[2], volumeNames[0]}
	for i := range 2 { // with the second away, then with the first
		away := 1 - i
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		aside(away)
		s = open(t, s.cfg)
		if _, err := s.Purge(denied[i], "a test", "tester"); err != nil {
			t.Fatal(err)
		}
		back(away)
		s.watch(s.volumes[away])
	}
	for i, name := range volumeNames {
		_, _, ok := s.Lookup(name)
		if gone := slices.Contains(denied, name); ok == gone {
			t.Errorf("%s is here: %v", name, ok)
		} else if ok {
			wantObject(t, s, name, data[i])
		}
	}
}

// TestUnmountedVolume: an empty directory where a file system of its own was is
// not taken for a new volume, whether it is the first or another.
func TestUnmountedVolume(t *testing.T) {
	t.Parallel()
	for which := range 2 {
		s, data, _ := twoVolumes(t)
		cfg := s.cfg
		dir := append([]string{cfg.Dir}, cfg.Volumes...)[which]
		openApart := func(mounted bool) *Store {
			s := newStore(cfg, slog.New(slog.DiscardHandler))
			s.apart = func(at string) bool { return at == dir && mounted }
			if err := s.open(); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openApart(true)
		wantAll(t, s, data)
		if err := errors.Join(s.Close(), os.Rename(dir, dir+".disk"), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it is remembered
			s = openApart(false)
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 || !s.Stats().Volumes[which].Gone {
				t.Errorf("volume %d: something was written to an empty mount point: %v, %v", which, left, err)
			}
			wantObject(t, s, volumeNames[2*(1-which)], data[2*(1-which)])
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".disk", dir)); err != nil {
			t.Fatal(err)
		}
		s = openApart(true)
		wantAll(t, s, data)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIndexLost: with the index gone or beyond repair, what lies beside the bodies
// makes it again.
func TestIndexLost(t *testing.T) {
	t.Parallel()
	s, data, nums := twoVolumes(t)
	f := create(t, s, "partial", content.Object{Size: 3 * mib})
	g := make(gate)
	f.Start(g.source())
	g.bring(t, noise(9, 3*mib), 0, mib)
	if err := errors.Join(s.SetName(nums[0], "http://a.example/more", []byte("more")), s.Unpublish(nums[1])); err != nil {
		t.Fatal(err)
	}
	cfg := s.cfg
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(cfg.Dir, "index"))); err != nil {
		t.Fatal(err)
	}
	// Killed while it makes the index again: what was made so far is there, the
	// word that it is whole is not.
	s = newStore(cfg.filled(), slog.New(slog.DiscardHandler))
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	ed := s.books.edit()
	for _, word := range []string{"volumes", "numbers", "index"} {
		ed.drop(settingKey(word))
	}
	ed.object(nums[2])
	ed.done()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	for i, name := range volumeNames {
		wantObject(t, s, name, data[i])
	}
	info, meta, _ := s.Lookup("http://a.example/more")
	if info.Num != nums[0] || string(meta) != "more" {
		t.Errorf("a further name is that of %d, meta %q", info.Num, meta)
	}
	if small, _ := s.Get(nums[1]); small.Public {
		t.Error("what was made private is public again")
	}
	for i, num := range nums {
		if info, ok := s.Get(num); !ok || info.Pinned != (i >= 2) {
			t.Errorf("object %d: %v, pinned %v", i, ok, info.Pinned)
		}
	}
	part, _, ok := s.Lookup("partial")
	if f, err := s.OpenFill(part.Num, nil); !ok || err != nil || f.here() != mib {
		t.Errorf("the partial object: %v, %v", ok, err)
	}
	balanceIdle(t, s)
	if next := put(t, s, "next", noise(8, 10)); next <= nums[3] {
		t.Errorf("number %d was given out again", next)
	}
}

// balanceIdle is balance for a store with fills that nobody runs.
func balanceIdle(t *testing.T, s *Store) {
	t.Helper()
	s.mu.Lock()
	var fills []*Fill
	for _, f := range s.active {
		fills = append(fills, f)
	}
	s.mu.Unlock()
	for _, f := range fills {
		f.stop(errUnwanted)
		<-f.Done()
	}
	balance(t, s)
}
