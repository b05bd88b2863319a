package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// soak tells that figures are wanted at full size.
var soak = os.Getenv("CISTERN_SOAK") == "1"

// figure prints a figure with its bound, and fails when it is short of that.
func figure(t *testing.T, name string, value any, unit, bound string, ok bool) {
	t.Helper()
	verdict := "ok"
	if !ok {
		verdict = "short"
		t.Fail()
	}
	t.Logf("figure: %s: %v %s (%s): %s", name, value, unit, bound, verdict)
}

// fullFigure is a figure that its bound can be held against only at full size
// and without the race detector; else it is printed and not judged.
func fullFigure(t *testing.T, name string, value any, unit, bound string, ok bool) {
	t.Helper()
	if !soak || raceDetector {
		t.Logf("reduced, not judged: %s: %v %s (%s at full size)", name, value, unit, bound)
		return
	}
	figure(t, name, value, unit, bound, ok)
}

func small(dir string) Config { return Config{Dir: dir, Small: true, Reserve: 1 << 20} }

func mustOpen(t testing.TB, cfg Config) *Index {
	t.Helper()
	x, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return x
}

func mustClose(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents is all that a Scan gives.
func contents(t testing.TB, x *Index, from, to []byte) map[string]string {
	t.Helper()
	all, last := map[string]string{}, ""
	bad, err := x.Scan(from, to, func(key, value []byte) bool {
		if len(all) > 0 && string(key) <= last {
			t.Errorf("key %q after %q", key, last)
		}
		last = string(key)
		all[last] = string(value)
		return true
	})
	if err != nil || bad > 0 {
		t.Errorf("scan: %d bad, %v", bad, err)
	}
	return all
}

// TestModel does at random what an index can do, beside a map that does the same.
func TestModel(t *testing.T) {
	steps := 1500
	if soak {
		steps = 30_000
	}
	cfg := small(t.TempDir())
	x := mustOpen(t, cfg)
	model := map[string]string{}
	rng := rand.New(rand.NewPCG(7, 3))
	key := func() []byte { return fmt.Appendf(nil, "%c/%03d", 'a'+rng.IntN(3), rng.IntN(300)) }
	value := func() []byte { return bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(3000)) }
	for i := range steps {
		switch n := rng.IntN(100); {
		case n < 50:
			k, v := key(), value()
			must(t, x.Set(k, v))
			model[string(k)] = string(v)
			clear(k) // the index keeps no slice of the caller's
			clear(v)
		case n < 60:
			k := key()
			must(t, x.Delete(k))
			delete(model, string(k))
		case n < 75:
			var ops []Op
			for range rng.IntN(20) {
				op := Op{Key: key(), Value: value(), Delete: rng.IntN(4) == 0}
				ops = append(ops, op)
				if op.Delete {
					delete(model, string(op.Key))
				} else {
					model[string(op.Key)] = string(op.Value)
				}
			}
			must(t, x.Update(ops...))
		case n < 90:
			k := key()
			got, err := x.Get(k)
			want, ok := model[string(k)]
			if ok && (err != nil || string(got) != want) || !ok && !errors.Is(err, ErrNotFound) {
				t.Fatalf("step %d: %q: %d bytes, %v; want %d bytes, %v", i, k, len(got), err, len(want), ok)
			}
		case n < 94:
			from, to := key(), key()
			if n == 90 {
				to = nil
			}
			want := map[string]string{}
			for k, v := range model {
				if k >= string(from) && (to == nil || k < string(to)) {
					want[k] = v
				}
			}
			if got := contents(t, x, from, to); !maps.Equal(got, want) {
				t.Fatalf("step %d: scan of %q to %q: %d records, want %d", i, from, to, len(got), len(want))
			}
		case n < 98:
			mustCommit(t, x)
		case rng.IntN(8) == 0:
			mustClose(t, x)
			x = mustOpen(t, cfg)
			if fresh, why := x.Fresh(); fresh {
				t.Fatalf("fresh after reopening: %s", why)
			}
		}
	}
	if got := contents(t, x, nil, nil); !maps.Equal(got, model) {
		t.Fatalf("at the end %d records, want %d", len(got), len(model))
	}
}

// TestMerge overwrites records until tables are merged, with reads meanwhile.
func TestMerge(t *testing.T) {
	cfg := small(t.TempDir())
	x := mustOpen(t, cfg)
	const records = 500
	record := func(i, round int) []byte {
		return append(bytes.Repeat([]byte{byte(i)}, 4000), byte(round))
	}
	rounds := 0
	for ; x.Stats().Merges < 2 && rounds < 100; rounds++ {
		for i := range records {
			must(t, x.Set(fmt.Appendf(nil, "o%05d", i), record(i, rounds)))
		}
		must(t, x.Delete([]byte("o00013")))
		mustCommit(t, x)
		if got := contents(t, x, nil, nil); len(got) != records-1 {
			t.Fatalf("round %d: %d records", rounds, len(got))
		}
	}
	if x.Stats().Merges < 2 {
		t.Fatal("nothing was merged")
	}
	for range 2 {
		must(t, x.Health())
		for i := range records {
			got, err := x.Get(fmt.Appendf(nil, "o%05d", i))
			if i == 13 {
				if !errors.Is(err, ErrNotFound) {
					t.Fatalf("deleted record: %v", err)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, record(i, rounds-1)) {
				t.Fatalf("record %d: %v", i, err)
			}
		}
		mustClose(t, x)
		x = mustOpen(t, cfg)
	}
}

func TestLimits(t *testing.T) {
	x := mustOpen(t, small(t.TempDir()))
	for name, ops := range map[string][]Op{
		"key":    {{Key: make([]byte, MaxKey+1)}},
		"value":  {{Key: []byte("k"), Value: make([]byte, MaxValue+1)}},
		"update": {{Key: []byte("a"), Value: make([]byte, MaxValue)}, {Key: []byte("b"), Value: make([]byte, MaxValue)}},
		"count":  make([]Op, MaxOps+1),
	} {
		if err := x.Update(ops...); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	key := bytes.Repeat([]byte{'!'}, MaxKey)
	must(t, x.Set(key, make([]byte, MaxValue)))
	must(t, x.Set([]byte("!badger!x"), []byte("a key of ours")))
	must(t, x.Set(nil, nil))
	var most []Op
	for i := range MaxOps {
		most = append(most, Op{Key: fmt.Appendf(nil, "m%d", i), Value: make([]byte, MaxUpdate/MaxOps-8)})
	}
	for i := range 40 { // as much as fits one after the other into few transactions
		for j := range most {
			most[j].Key = fmt.Appendf(nil, "m%d", i*MaxOps+j)
		}
		must(t, x.Update(most...))
	}
	mustCommit(t, x)
	if got := contents(t, x, nil, nil); len(got) != 3+40*MaxOps {
		t.Errorf("%d records", len(got))
	}
	must(t, x.Health())
}

func TestConfigFaults(t *testing.T) {
	err := Config{Reserve: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "dir:") || !strings.Contains(err.Error(), "reserve:") {
		t.Errorf("%v", err)
	}
}

func TestLocked(t *testing.T) {
	cfg := small(t.TempDir())
	x := mustOpen(t, cfg)
	if y, err := Open(cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrLocked) {
		t.Errorf("%v, %v", y, err)
	}
	if aside, _ := filepath.Glob(cfg.Dir + ".damaged-*"); len(aside) > 0 {
		t.Errorf("a lock was taken for damage: %v", aside)
	}
	mustClose(t, x)
	mustOpen(t, cfg)
}

// TestSetAside keeps two damaged indexes, the last ones.
func TestSetAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "in[d]ex")
	for i := range 4 {
		x := mustOpen(t, small(dir))
		if fresh, why := x.Fresh(); !fresh || (why == "") != (i == 0) {
			t.Errorf("opening %d: fresh %v: %s", i, fresh, why)
		}
		must(t, x.Set([]byte("k"), []byte("v")))
		mustClose(t, x)
		must(t, os.WriteFile(filepath.Join(dir, "db", "MANIFEST"), []byte("of another kind"), 0o600))
	}
	aside, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*.damaged-*"))
	for i := range aside {
		aside[i] = filepath.Base(aside[i])
	}
	if !slices.Equal(aside, []string{"in[d]ex.damaged-2", "in[d]ex.damaged-3"}) {
		t.Errorf("set aside: %v", aside)
	}
}

// TestCloseEndsEverything finds no goroutine left, and no use after.
func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	x := mustOpen(t, small(t.TempDir()))
	for i := range 2000 {
		must(t, x.Set(fmt.Appendf(nil, "%d", i), make([]byte, 3000)))
	}
	mustCommit(t, x)
	must(t, x.Set([]byte("unsynced"), []byte("v"))) // Close writes it
	mustClose(t, x)
	for range 500 {
		if runtime.NumGoroutine() <= before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines left\n%s", n-before, buf[:runtime.Stack(buf, true)])
	}
	_, err := x.Get([]byte("1"))
	_, err2 := x.Scan(nil, nil, func(_, _ []byte) bool { return true })
	for _, err := range []error{err, err2, x.Set(nil, nil), x.Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	y := mustOpen(t, x.cfg)
	if v, err := y.Get([]byte("unsynced")); string(v) != "v" {
		t.Errorf("what was set before Close: %q, %v", v, err)
	}
}

// TestDamagedRecord drops records that do not match their checksum, once.
func TestDamagedRecord(t *testing.T) {
	x := mustOpen(t, small(t.TempDir()))
	good, torn := seal([]byte("b"), []byte("right")), seal([]byte("c"), []byte("right"))
	torn[6] ^= 1
	x.mu.Lock() // behind Set's back
	x.accept([]change{{"a", []byte{1, 2}}, {"b", good}, {"c", torn}})
	x.mu.Unlock()
	mustCommit(t, x)
	if _, err := x.Get([]byte("a")); !errors.Is(err, ErrDamaged) {
		t.Errorf("first: %v", err)
	}
	if _, err := x.Get([]byte("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("then: %v", err)
	}
	var keys []string
	use := func(key, _ []byte) bool { keys = append(keys, string(key)); return true }
	for want := 1; want >= 0; want-- {
		keys = nil
		if bad, err := x.Scan(nil, nil, use); bad != want || err != nil || !slices.Equal(keys, []string{"b"}) {
			t.Errorf("scan: %d bad, %v, %v", bad, err, keys)
		}
	}
	if n := x.Stats().Damaged; n != 2 {
		t.Errorf("%d counted", n)
	}
}

// TestScanPanics leaves a caller's panic alone.
func TestScanPanics(t *testing.T) {
	x := mustOpen(t, small(t.TempDir()))
	must(t, x.Set([]byte("k"), []byte("v")))
	mustCommit(t, x)
	defer func() {
		if p := recover(); p != "mine" {
			t.Errorf("recovered %v", p)
		}
	}()
	_, _ = x.Scan(nil, nil, func(_, _ []byte) bool { panic("mine") })
}

func FuzzSealed(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), uint(3))
	f.Add([]byte{}, []byte{}, uint(0))
	f.Fuzz(func(t *testing.T, key, data []byte, bit uint) {
		if value, err := unseal(key, data); err == nil && !bytes.Equal(seal(key, value), data) {
			t.Errorf("%x under %x passes, and is not what seal makes", data, key)
		}
		if len(key) > MaxKey {
			return
		}
		record := seal(key, data)
		if value, err := unseal(key, record); err != nil || !bytes.Equal(value, data) {
			t.Errorf("%x: %v", value, err)
		}
		record[bit/8%uint(len(record))] ^= 1 << (bit % 8)
		if _, err := unseal(key, record); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d flipped: %v", bit, err)
		}
		if _, err := unseal(append(bytes.Clone(key), 'x'), seal(key, data)); !errors.Is(err, ErrDamaged) {
			t.Errorf("under another key: %v", err)
		}
	})
}

func FuzzStamp(f *testing.F) {
	dir := f.TempDir()
	must(f, writeStamp(dir, 12345))
	sound, err := os.ReadFile(stampPath(dir))
	must(f, err)
	f.Add(sound)
	f.Add(sound[:9])
	f.Fuzz(func(t *testing.T, data []byte) {
		version, ok := parseStamp(data)
		if ok && binary.BigEndian.Uint64(data[8:]) != version || !ok && version != 0 {
			t.Errorf("%x: %d, %v", data, version, ok)
		}
	})
}

// FuzzFiles has the checks of Badger's files read anything.
func FuzzFiles(f *testing.F) {
	for _, name := range []string{"MANIFEST", "000001.sst", "00001.mem"} {
		f.Add(name, bytes.Repeat([]byte{0, 0, 0, 8}, 20))
		f.Add(name, append([]byte("Bdgr\x00\x00\x00\x08"), make([]byte, 30)...))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if _, ok := map[string]bool{"MANIFEST": true, "000001.sst": true, "00001.mem": true}[name]; !ok {
			return
		}
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, data, 0o600))
		_ = check(dir)
		if name == "000001.sst" {
			var buf bytes.Buffer
			_ = checkTable(path, &buf)
		}
	})
}
