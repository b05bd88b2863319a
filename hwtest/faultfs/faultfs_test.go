//go:build linux

package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// world is a mount with words for what happens upon it.
type world struct {
	*testing.T
	*FS
}

func newWorld(t *testing.T, conf Config) world {
	t.Helper()
	return world{t, Mount(t, t.TempDir(), conf)}
}

func (w world) path(name string) string { return filepath.Join(w.Dir(), name) }

func (w world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w world) open(name string, flags int) *os.File {
	w.Helper()
	f, err := os.OpenFile(w.path(name), flags, 0o644)
	w.must(err)
	w.Cleanup(func() { f.Close() })
	return f
}

// write writes text over the start of a file, which is made if there is none.
func (w world) write(name, text string) {
	w.Helper()
	f := w.open(name, os.O_RDWR|os.O_CREATE)
	_, err := f.WriteString(text)
	w.must(err)
	w.must(f.Close())
}

// sync is fsync of each file or directory.
func (w world) sync(names ...string) {
	w.Helper()
	for _, name := range names {
		f := w.open(name, os.O_RDONLY)
		w.must(f.Sync())
		w.must(f.Close())
	}
}

// durable writes a file, synced with its directory.
func (w world) durable(name, text string) {
	w.Helper()
	w.write(name, text)
	w.sync(name, filepath.Dir(name))
}

func (w world) mkdir(name string)      { w.Helper(); w.must(os.Mkdir(w.path(name), 0o755)) }
func (w world) remove(name string)     { w.Helper(); w.must(os.Remove(w.path(name))) }
func (w world) rename(a, b string)     { w.Helper(); w.must(os.Rename(w.path(a), w.path(b))) }
func (w world) link(a, b string)       { w.Helper(); w.must(os.Link(w.path(a), w.path(b))) }
func (w world) cut(name string, n int) { w.Helper(); w.must(os.Truncate(w.path(name), int64(n))) }

// tree is all that there is: directories end in a slash, files show their
// content, with zeros as dots.
func (w world) tree() string {
	w.Helper()
	var all []string
	w.must(filepath.WalkDir(w.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == w.Dir() {
			return err
		}
		name, _ := filepath.Rel(w.Dir(), path)
		if d.IsDir() {
			all = append(all, name+"/")
			return nil
		}
		content, err := os.ReadFile(path)
		all = append(all, name+"="+strings.ReplaceAll(string(content), "\x00", "."))
		return err
	}))
	return strings.Join(all, " ")
}

// cuts are stories that end with the power: what was there before it went, what
// is left at the least, and all that may be left.
var cuts = []struct {
	name    string
	ordered bool
	story   func(w world)
	before  string
	least   string
	or      []string // may be left too
}{
	{"nothing synced", false, func(w world) { w.write("a", "new") }, "a=new", "", []string{"a=", "a=n", "a=ne", "a=new", "a=.", "a=..", "a=..."}},
	{"file synced, its name not", false, func(w world) { w.write("a", "new"); w.sync("a") }, "a=new", "", []string{"a=new"}},
	{"name synced, file not", false, func(w world) { w.write("a", "new"); w.sync(".") }, "a=new", "a=", []string{"a=n", "a=ne", "a=new", "a=.", "a=..", "a=..."}},
	{"both synced", false, func(w world) { w.durable("a", "new") }, "a=new", "a=new", nil},
	{"ordered: file synced, and so its name", true, func(w world) { w.write("a", "new"); w.sync("a") }, "a=new", "a=new", nil},
	{"ordered: what was before goes first", true, func(w world) {
		w.mkdir("d")
		w.mkdir("d/e")
		w.write("d/a", "")
		w.sync("d/a")
		w.write("z", "")
	}, "d/ d/a= d/e/ z=", "d/ d/a= d/e/", []string{"d/ d/a= d/e/ z="}},
	{"ordered: names survive in order", true, func(w world) { w.mkdir("a"); w.mkdir("b"); w.mkdir("c") }, "a/ b/ c/", "", []string{"a/", "a/ b/", "a/ b/ c/"}},
	{"names survive in any order", false, func(w world) { w.mkdir("a"); w.mkdir("b") }, "a/ b/", "", []string{"a/", "b/", "a/ b/"}},
	{"written over", false, func(w world) { w.durable("a", "old"); w.write("a", "new") }, "a=new", "a=old", []string{"a=new"}},
	{"grown", false, func(w world) { w.durable("a", "old"); w.cut("a", 5) }, "a=old..", "a=old", []string{"a=old.", "a=old.."}},
	{"cut off", false, func(w world) { w.durable("a", "old"); w.cut("a", 1) }, "a=o", "a=old", []string{"a=o"}},
	{"cut off, synced", false, func(w world) { w.durable("a", "old"); w.cut("a", 1); w.sync("a") }, "a=o", "a=o", nil},
	{"cut off and grown", false, func(w world) { w.durable("a", "old"); w.cut("a", 1); w.cut("a", 3) }, "a=o..", "a=old", []string{"a=o.."}},
	{"removed", false, func(w world) { w.durable("a", "old"); w.remove("a") }, "", "a=old", []string{""}},
	{"removed, synced", false, func(w world) { w.durable("a", "old"); w.remove("a"); w.sync(".") }, "", "", nil},
	{"removed while open, then written and synced", false, func(w world) {
		w.durable("a", "old")
		f := w.open("a", os.O_RDWR)
		w.remove("a")
		_, err := f.WriteAt([]byte("new"), 0)
		w.must(errors.Join(err, f.Sync(), f.Close()))
	}, "", "a=new", []string{""}},
	{"made anew under the same name", false, func(w world) {
		w.durable("a", "old")
		w.remove("a")
		w.write("a", "new")
		w.sync("a")
	}, "a=new", "a=old", []string{"", "a=new"}},
	{"renamed over", false, func(w world) {
		w.durable("a", "old")
		w.write("t", "new")
		w.sync("t")
		w.rename("t", "a")
	}, "a=new", "a=old", []string{"a=old t=new", "a=new"}},
	{"renamed over, synced", false, func(w world) {
		w.durable("a", "old")
		w.write("t", "new")
		w.sync("t")
		w.rename("t", "a")
		w.sync(".")
	}, "a=new", "a=new", nil},
	{"renamed to another directory, one of them synced", false, func(w world) {
		w.mkdir("d")
		w.durable("a", "old")
		w.sync(".")
		w.rename("a", "d/b")
		w.sync("d")
	}, "d/ d/b=old", "d/ d/b=old", nil},
	{"exchanged", false, func(w world) {
		w.durable("a", "1")
		w.durable("b", "2")
		w.must(unix.Renameat2(unix.AT_FDCWD, w.path("a"), unix.AT_FDCWD, w.path("b"), unix.RENAME_EXCHANGE))
	}, "a=2 b=1", "a=1 b=2", []string{"a=2 b=1"}},
	{"directory whose own name is not synced", false, func(w world) { w.mkdir("d"); w.durable("d/a", "new") }, "d/ d/a=new", "", []string{"d/ d/a=new"}},
	{"directory synced from the top", false, func(w world) { w.mkdir("d"); w.sync("."); w.durable("d/a", "new") }, "d/ d/a=new", "d/ d/a=new", nil},
	{"tree removed, top synced", false, func(w world) {
		w.mkdir("d")
		w.sync(".")
		w.durable("d/a", "old")
		w.must(os.RemoveAll(w.path("d")))
		w.sync(".")
	}, "", "", nil},
	{"directory moved", false, func(w world) {
		w.mkdir("d")
		w.mkdir("e")
		w.sync(".")
		w.durable("d/a", "old")
		w.rename("d", "e/d")
	}, "e/ e/d/ e/d/a=old", "d/ d/a=old e/", []string{"e/ e/d/ e/d/a=old"}},
	{"directories moved into each other by turns", false, func(w world) {
		w.mkdir("a")
		w.mkdir("b")
		w.sync(".")
		w.rename("a", "b/a")
		w.rename("b/a", "a")
		w.rename("b", "a/b")
	}, "a/ a/b/", "a/ b/", []string{"b/ b/a/", "a/ a/b/"}},
	{"second name", false, func(w world) {
		w.durable("a", "old")
		w.link("a", "b")
		w.sync(".")
		w.remove("a")
		w.write("b", "new")
		w.sync("b")
	}, "b=new", "a=new b=new", []string{"b=new"}},
	{"hole punched", false, func(w world) {
		w.durable("a", "old")
		f := w.open("a", os.O_RDWR)
		w.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1, 1))
	}, "a=o.d", "a=old", []string{"a=o.d"}},
	{"fallocated, synced", false, func(w world) {
		f := w.open("a", os.O_RDWR|os.O_CREATE)
		w.must(unix.Fallocate(int(f.Fd()), 0, 0, 3))
		w.must(unix.Fdatasync(int(f.Fd())))
		w.sync(".")
		w.write("a", "new")
	}, "a=new", "a=...", []string{"a=new"}},
	{"O_DSYNC", false, func(w world) {
		w.durable("a", "old")
		_, err := w.open("a", os.O_WRONLY|unix.O_DSYNC).WriteString("newer")
		w.must(err)
	}, "a=newer", "a=newer", nil},
}

func TestPowerCut(t *testing.T) {
	for _, row := range cuts {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel() // most of the time is the kernel's, to unmount
			may := map[string]bool{row.least: true}
			for _, s := range row.or {
				may[s] = true
			}
			seen := map[string]bool{}
			for seed := range uint64(6) {
				w := newWorld(t, Config{Ordered: row.ordered})
				row.story(w)
				if got := w.tree(); got != row.before {
					t.Fatalf("before the cut: %q, want %q", got, row.before)
				}
				w.PowerCut(seed)
				got := w.tree()
				if seed == 0 && got != row.least {
					t.Fatalf("seed 0 left %q, want %q", got, row.least)
				}
				if !may[got] {
					t.Fatalf("seed %d left %q", seed, got)
				}
				seen[got] = true
				if seed > 0 {
					continue
				}
				w.PowerCut(0)
				if again := w.tree(); again != got {
					t.Fatalf("seed %d left %q, and the next cut, with nothing done between, %q", seed, got, again)
				}
			}
			if len(row.or) > 0 && len(seen) < 2 {
				t.Errorf("always left %q", row.least)
			}
		})
	}
}

// Blocks survive each for itself, some torn between sectors, and the same seed
// does the same.
func TestBlocks(t *testing.T) {
	const n = 64
	var first string
	for range 2 {
		w := newWorld(t, Config{})
		w.durable("a", strings.Repeat("o", n*blockSize))
		w.write("a", strings.Repeat("n", n*blockSize))
		w.PowerCut(3)
		content, err := os.ReadFile(w.path("a"))
		w.must(err)
		if first == "" {
			first = string(content)
		}
		if first != string(content) {
			t.Fatal("the same seed did something else")
		}
	}
	kinds := map[string]int{}
	for b := range n {
		kind := ""
		for s := range blockSize / sectorSize {
			sector := first[b*blockSize+s*sectorSize:][:sectorSize]
			if strings.Trim(sector, sector[:1]) != "" {
				t.Fatalf("block %d: sector %d is torn", b, s)
			}
			if !strings.Contains(kind, sector[:1]) {
				kind += sector[:1]
			}
		}
		kinds[fmt.Sprint(len(kind), kind[:1] == "o")]++
	}
	t.Logf("blocks by kinds of sectors, old first: %v", kinds)
	if kinds["1 true"] == 0 || kinds["1 false"] == 0 || kinds["2 true"]+kinds["2 false"] == 0 {
		t.Errorf("not old, new and torn ones: %v", kinds)
	}
}

// What was acknowledged is there after any cut, with many at work.
func TestAcknowledgedSurvives(t *testing.T) {
	w := newWorld(t, Config{})
	acknowledged := map[string]string{}
	for round := range uint64(6) {
		const writers = 4
		results := make(chan map[string]string, writers)
		for i := range writers {
			go func() { results <- w.work(fmt.Sprintf("%d-%d", round, i)) }()
		}
		for range writers {
			for name, text := range <-results {
				acknowledged[name] = text
			}
		}
		w.PowerCut(round)
		for name, want := range acknowledged {
			got, err := os.ReadFile(w.path(name))
			if err != nil || string(got[:min(len(got), len(want))]) != want {
				t.Fatalf("round %d: %s was synced and is lost or changed: %v", round, name, err)
			}
		}
	}
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	if entries, err := os.ReadDir(w.disk.dir); err != nil || len(entries) > len(w.disk.nodes) {
		t.Errorf("%d backing files for %d nodes: %v", len(entries), len(w.disk.nodes), err)
	}
}

// work makes files by way of temporary ones and returns those that it synced,
// then does things that it does not sync.
func (w world) work(id string) map[string]string {
	done := map[string]string{}
	for i := range 5 {
		name := fmt.Sprintf("%s-%d", id, i)
		text := strings.Repeat(name, 1000*(i+1))
		err := os.WriteFile(w.path(name+".tmp"), []byte(text), 0o644)
		if f, openErr := os.Open(w.path(name + ".tmp")); openErr == nil {
			err = errors.Join(err, f.Sync(), f.Close())
		}
		err = errors.Join(err, os.Rename(w.path(name+".tmp"), w.path(name)))
		if top, openErr := os.Open(w.Dir()); openErr == nil {
			err = errors.Join(err, top.Sync(), top.Close())
		}
		if err != nil {
			w.Errorf("%s: %v", name, err)
			return done
		}
		done[name] = text
		if f, err := os.OpenFile(w.path(name), os.O_WRONLY|os.O_APPEND, 0); err == nil {
			f.WriteString("and more that is not synced")
			f.Close()
		}
		os.WriteFile(w.path(name+".lost"), []byte(text), 0o644)
	}
	return done
}
