package index

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFlips flips single bits in the files of an index that was closed, and of
// one whose process was killed, and reads everything: what is there is right.
func TestFlips(t *testing.T) {
	t.Parallel()
	rounds := 200
	if soak {
		rounds = 1000
	}
	if testing.Short() {
		rounds = 60
	}
	closed, truth := flipTemplate(t)
	killed := filepath.Join(t.TempDir(), "killed")
	must(t, os.CopyFS(killed, os.DirFS(closed)))
	must(t, os.WriteFile(filepath.Join(killed, "db", "spare"), nil, 0o600)) // files of no meaning do no harm
	overwriteAndKill(t, killed, truth)
	rng := rand.New(rand.NewPCG(2026, 8))
	count, kinds := map[string]int{}, map[string]int{}
	memory, changed := memoryDir(t), withChanges(truth)
	closedFiles, killedFiles := flippables(t, closed), flippables(t, killed)
	for round := range rounds {
		template, files, want := closed, closedFiles, truth
		if round%2 == 1 {
			template, files, want = killed, killedFiles, changed
		}
		dir := filepath.Join(memory, "x", "index")
		must(t, os.CopyFS(dir, os.DirFS(template)))
		where := flip(t, dir, files, rng)
		outcome := readAll(t, dir, want)
		if strings.HasPrefix(outcome, "wrong") {
			t.Errorf("round %d, %s: %s", round, where, outcome)
			outcome = "wrong"
		}
		count[outcome]++
		kind, _, _ := strings.Cut(where, " ")
		if ext := filepath.Ext(kind); ext != "" {
			kind = ext
		}
		kinds[kind+": "+outcome]++
		must(t, os.RemoveAll(filepath.Dir(dir)))
	}
	t.Log(kinds)
	for _, outcome := range []string{"right", "record dropped", "set aside", "refused", "wrong"} {
		ok := outcome != "wrong" && outcome != "refused" || count[outcome] == 0
		figure(t, "index: bit flips: "+outcome, count[outcome], fmt.Sprintf("of %d", rounds), "wrong and refused: 0", ok)
	}
}

// memoryDir is a directory in memory, where syncing costs nothing, if there is one.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "index-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// flipTemplate is a closed index of merged and loose tables, and what it holds.
func flipTemplate(t *testing.T) (string, map[string]string) {
	dir := filepath.Join(t.TempDir(), "closed")
	truth := map[string]string{}
	for generation := range 3 {
		x := mustOpen(t, Config{Dir: dir, Small: true, Reserve: 4096})
		for i := generation; i < 500; i += 1 + generation {
			k := fmt.Sprintf("o/%05d", i)
			if i%11 == generation {
				must(t, x.Delete([]byte(k)))
				delete(truth, k)
				continue
			}
			truth[k] = strings.Repeat(fmt.Sprintf("%d.%d ", generation, i), 20)
			must(t, x.Set([]byte(k), []byte(truth[k])))
		}
		mustCommit(t, x)
		if generation == 1 {
			must(t, x.engine.flatten(x.version))
		}
		mustClose(t, x)
	}
	return dir, truth
}

// overwriteAndKill leaves a write-ahead log behind, with the stamp up to date.
func overwriteAndKill(t *testing.T, dir string, truth map[string]string) {
	t.Helper()
	x := mustOpen(t, Config{Dir: dir, Small: true, Reserve: 4096})
	for k, v := range withChanges(truth) {
		if truth[k] != v {
			must(t, x.Set([]byte(k), []byte(v)))
		}
	}
	mustCommit(t, x)
	for range 100 { // the next turn stamps it
		if readStamp(dir) == x.version {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	snapshot := filepath.Join(t.TempDir(), "snapshot") // as the disk is if the process dies now
	must(t, os.CopyFS(snapshot, os.DirFS(dir)))
	mustClose(t, x)
	must(t, os.RemoveAll(dir))
	must(t, os.Rename(snapshot, dir))
}

func withChanges(truth map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range truth {
		if strings.HasSuffix(k, "7") {
			v = "overwritten " + k
		}
		out[k] = v
	}
	return out
}

// flippable is a file of an index, and how much of it is worth flipping: most of a log
// is empty.
type flippable struct {
	path string
	size int64
}

func flippables(t *testing.T, dir string) (files []flippable) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if used := len(bytes.TrimRight(data, "\x00")); len(data) > 0 {
			name, _ := filepath.Rel(dir, path)
			files = append(files, flippable{name, int64(min(len(data), used+64))})
		}
		return err
	}))
	return files
}

// flip flips a bit: half the time of any file, else of any byte.
func flip(t *testing.T, dir string, files []flippable, rng *rand.Rand) string {
	t.Helper()
	f := files[rng.IntN(len(files))]
	if rng.IntN(2) == 0 {
		total := int64(0)
		for _, f := range files {
			total += f.size
		}
		at := rng.Int64N(total)
		for _, f = range files {
			if at -= f.size; at < 0 {
				break
			}
		}
	}
	at, bit := rng.Int64N(f.size), rng.IntN(8)
	file, err := os.OpenFile(filepath.Join(dir, f.path), os.O_RDWR, 0)
	must(t, err)
	var b [1]byte
	_, err = file.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1 << bit
	_, err = file.WriteAt(b[:], at)
	must(t, errors.Join(err, file.Close()))
	return fmt.Sprintf("%s byte %d bit %d", f.path, at, bit)
}

// readAll opens and reads an index, and says how that went.
func readAll(t *testing.T, dir string, want map[string]string) string {
	t.Helper()
	x, err := Open(Config{Dir: dir, Small: true, Reserve: 4096}, slog.New(slog.DiscardHandler))
	if err != nil {
		return "refused"
	}
	defer mustClose(t, x)
	fresh, why := x.Fresh()
	if fresh && why == "" {
		return "wrong: fresh without a reason"
	}
	missing, faults := 0, 0
	for k, v := range want {
		switch got, err := x.Get([]byte(k)); {
		case errors.Is(err, ErrDamaged):
			faults++
		case errors.Is(err, ErrNotFound):
			missing++
		case err != nil:
			return "wrong: " + err.Error()
		case string(got) != v:
			return fmt.Sprintf("wrong: %q is %.30q, not %.30q", k, got, v)
		}
	}
	seen := 0
	bad, err := x.Scan(nil, nil, func(key, value []byte) bool {
		seen++
		if v, ok := want[string(key)]; !ok || v != string(value) {
			err = fmt.Errorf("%q is %.30q", key, value)
		}
		return true
	})
	switch {
	case err != nil:
		return "wrong: scan: " + err.Error()
	case fresh && seen+bad > 0:
		return "wrong: records in a fresh index"
	case fresh:
		return "set aside"
	case missing > faults+bad || seen+missing+faults != len(want):
		return fmt.Sprintf("wrong: %d missing, %d faults, %d bad, %d seen of %d", missing, faults, bad, seen, len(want))
	case missing+faults+bad > 0:
		return "record dropped"
	}
	return "right"
}

// TestFlipsWhileOpen flips bits of the tables under an open index: no read gives
// a wrong value, or ends the process; and what is damaged is not merged.
func TestFlipsWhileOpen(t *testing.T) {
	template := filepath.Join(t.TempDir(), "template")
	x := mustOpen(t, small(template))
	want := map[string]string{}
	for i := range 400 {
		k := fmt.Sprintf("o/%05d", i)
		want[k] = strings.Repeat(k, 30)
		must(t, x.Set([]byte(k), []byte(want[k])))
	}
	mustClose(t, x)
	tables, err := filepath.Glob(filepath.Join(template, "db", "*.sst"))
	must(t, err)
	info, err := os.Stat(tables[0])
	must(t, err)
	files := []flippable{{filepath.Join("db", filepath.Base(tables[0])), info.Size()}}
	rng, memory, count := rand.New(rand.NewPCG(4, 4)), memoryDir(t), map[string]int{}
	for round := range 60 {
		dir := filepath.Join(memory, "x", "index")
		must(t, os.CopyFS(dir, os.DirFS(template)))
		x := mustOpen(t, small(dir))
		where := flip(t, dir, files, rng)
		outcome := "right"
		for k, v := range want {
			if got, err := x.Get([]byte(k)); err != nil {
				outcome = "not given"
			} else if string(got) != v {
				t.Errorf("round %d, %s: %q is %.30q", round, where, k, got)
			}
		}
		_, _ = x.Scan(nil, nil, func(key, value []byte) bool {
			if want[string(key)] != string(value) {
				t.Errorf("round %d, %s: scan: %q is %.30q", round, where, key, value)
			}
			return true
		})
		count[outcome]++
		x.merges.Add(1)
		x.merge()
		x.merges.Done()
		if err := x.Health(); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("round %d, %s: after a merge: %v", round, where, err)
		}
		_ = x.Close()
		if outcome := readAll(t, dir, want); outcome != "set aside" {
			t.Errorf("round %d, %s: reopened: %s", round, where, outcome)
		}
		must(t, os.RemoveAll(filepath.Dir(dir)))
	}
	t.Log(count)
}
