package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/hwtest/faultfs"
)

// TestTheIndexHasItsRoom: what is kept free where the index is never falls short
// of what the index needs, whatever the configuration says, and the store may not
// have more than the disk has.
func TestTheIndexHasItsRoom(t *testing.T) {
	s := open(t, Config{MinFree: 1, Volumes: []string{t.TempDir()}, MaxBytes: math.MaxInt64})
	if floor, room := s.volumes[0].floor(), s.books.index.Room(); floor < room || room < 8<<20 {
		t.Errorf("%d bytes are kept free, the index needs %d", floor, room)
	}
	if floor := s.volumes[1].floor(); floor != 1 {
		t.Errorf("%d bytes are kept free where no index is", floor)
	}
	_, total, err := s.volumes[0].Space()
	if st := s.Stats(); err != nil || st.MaxBytes != 2*total || s.cfg.SmallBytes != 2*total/16 {
		t.Errorf("%d bytes at most, %d of them small, on two disks of %d: %v", st.MaxBytes, s.cfg.SmallBytes, total, err)
	}
}

// TestAFullDiskIsMadeLessFull: what others have filled is evicted from.
func TestAFullDiskIsMadeLessFull(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "a", noise(600, mib))
	v := s.volumes[0]
	v.sick, v.minFree = disk.ErrFull, math.MaxInt64/2
	s.tidy()
	if _, _, ok := s.Lookup("a"); ok {
		t.Error("nothing gave way")
	}
	v.sick = nil
}

// TestWritesThatTheDiskRefusesAreAFullStore: whoever brings bytes in knows only
// one reason why they cannot be kept.
func TestWritesThatTheDiskRefusesAreAFullStore(t *testing.T) {
	for _, fault := range []faultfs.Fault{faultfs.ReadOnly, faultfs.Gone} {
		fs := faultfs.Mount(t, t.TempDir(), faultfs.Config{Ordered: true})
		s := open(t, Config{Dir: t.TempDir(), Volumes: []string{fs.Dir()}})
		s.volumes[0].sick = content.ErrFull // so that it goes to the other
		data := noise(700, 2*mib)
		f := create(t, s, "x", content.Object{Size: int64(len(data))})
		s.volumes[0].sick = nil
		g := make(gate)
		f.Start(g.source())
		g.bring(t, data, 0, mib)
		fs.Fail(fault)
		var err error
		g.do(func(sink content.Sink) { err = bring(sink, data, content.Range{Off: mib, End: 2 * mib}) })
		close(g)
		<-f.Done()
		fs.Fail(faultfs.Healthy)
		if !errors.Is(err, content.ErrFull) {
			t.Errorf("fault %d: %v", fault, err)
		}
	}
}

// TestSpare: while the store's disk takes nothing an empty store stands in, says
// so, and leaves it as it was.
func TestSpare(t *testing.T) {
	made := open(t, Config{})
	data := noise(801, 2*mib)
	put(t, made, "a", data)
	if _, err := made.Purge("http://bad.example/x", "court order 7", "admin"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(made.Close(), os.Remove(filepath.Join(made.cfg.Dir, "index", "reserve"))); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(fs *faultfs.FS){
		"is full": func(fs *faultfs.FS) {
			for size := 4 * mib; size > 0; size /= 2 {
				for err := error(nil); err == nil; {
					var f *os.File
					if f, err = os.CreateTemp(fs.Dir(), "others"); err == nil {
						_, err = f.Write(make([]byte, size))
						err = errors.Join(err, f.Close())
					}
				}
			}
		},
		"read-only": func(fs *faultfs.FS) { fs.Fail(faultfs.ReadOnly) },
	} {
		fs := faultfs.Mount(t, t.TempDir(), faultfs.Config{Ordered: true, Capacity: 64 * mib})
		dir := filepath.Join(fs.Dir(), "store")
		if err := os.CopyFS(dir, os.DirFS(made.cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		spoil(fs)
		cfg := Config{Dir: dir}
		if _, err := Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: a store without a spare one: %v", name, err)
		}
		cfg.Spare = t.TempDir()
		s := open(t, cfg)
		if _, _, ok := s.Lookup("a"); ok {
			t.Errorf("%s: the spare store is not empty", name)
		}
		put(t, s, "b", data)
		wantObject(t, s, "b", data)
		if err := s.Denied("http://bad.example/x"); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: what was taken down is not in the spare store: %v", name, err)
		}
		volumes := s.Stats().Volumes
		if len(volumes) != 2 || volumes[0].Dir != cfg.Spare || volumes[1].Dir != dir || !volumes[1].Gone || !strings.Contains(volumes[1].Sick, name) {
			t.Errorf("%s: the figures say %+v", name, volumes)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		fs.Fail(faultfs.Healthy)
		cured := t.TempDir()
		if err := os.CopyFS(cured, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		wantObject(t, open(t, Config{Dir: cured}), "a", data)
	}
}

// TestIndexDiskIsDeadAtTheStart: the index is made anew on the next volume, from
// what lies there, and pins with it.
func TestIndexDiskIsDeadAtTheStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "first")
	cfg := Config{Dir: dir, Volumes: []string{t.TempDir()}}
	s := open(t, cfg)
	here := map[string][]byte{}
	pinned := ""
	for i := range 12 {
		name, data := fmt.Sprint("object ", i), noise(uint64(800+i), mib+int64(i))
		if i%2 == 1 {
			data = data[:50_000+i]
		}
		s.volumes[i/2%2].sick = content.ErrFull // half goes to each
		num := put(t, s, name, data)
		s.volumes[i/2%2].sick = nil
		if e, _ := s.look(num); e.volume == 1 {
			here[name] = data
			if pinned == "" {
				pinned = name
				if err := s.Pin(num, true); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(here) == 0 || len(here) == 12 {
		t.Fatalf("%d of 12 on the second volume", len(here))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("dead"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	for name, data := range here {
		wantObject(t, s, name, data)
	}
	if info, _, _ := s.Lookup(pinned); !info.Pinned {
		t.Error("a pin was lost")
	}
	if n := s.Stats().Objects; n != len(here) {
		t.Errorf("%d objects, %d lie on the second volume", n, len(here))
	}
	put(t, s, "new", noise(900, mib))
	s = reopen(t, s) // the disk is dead still
	wantObject(t, s, "new", noise(900, mib))
}
