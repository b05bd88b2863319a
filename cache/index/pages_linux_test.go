package index

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// residentTables is how many bytes of the tables in dir are resident, as the
// kernel counts them.
func residentTables(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	must(t, err)
	defer f.Close()
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 { // a mapping begins
			at := max(strings.IndexByte(line, '/'), 0)
			ours = filepath.Dir(line[at:]) == dir && strings.HasSuffix(line, ".sst")
		}
		var kb int64
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kb); n == 1 && ours {
			bytes += kb << 10
		}
	}
	return bytes
}

// TestPagesAreGivenUp: what was read of the tables stays resident no longer than
// until it is given up, whoever reads and merges meanwhile, and nobody reads
// anything else for it.
func TestPagesAreGivenUp(t *testing.T) {
	const n = 8000
	dir := t.TempDir()
	x := mustOpen(t, Config{Dir: dir, Small: true, Reserve: 1 << 20})
	objects(x, n)
	drop := func() (dropped bool) {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.merging == 0 && x.dropPages()
	}

	var readers, writer sync.WaitGroup
	var stop atomic.Bool
	for r := range uint64(2) {
		readers.Go(func() {
			for i := r; !stop.Load(); i = (i + 7919) % n {
				key := binary.BigEndian.AppendUint64([]byte{'m'}, i)
				value, err := x.Get(key)
				if err != nil || binary.BigEndian.Uint64(value) != i*0x9E3779B97F4A7C15 {
					t.Errorf("record %d: %x, %v", i, value, err)
					return
				}
				time.Sleep(10 * time.Microsecond)
			}
		})
	}
	writer.Go(func() { objects(x, n/2) }) // overwritten: tables come and go
	for given := 0; given < 5; {
		if drop() {
			given++
		}
	}
	writer.Wait()
	stop.Store(true)
	readers.Wait()

	db, err := filepath.EvalSymlinks(filepath.Join(dir, "db"))
	must(t, err)
	idle := func() bool {
		x.mu.RLock()
		defer x.mu.RUnlock()
		return x.merging == 0
	}
	for range 50 { // the committer may give them up first, or merge what was written
		_, err := x.Scan([]byte{'m'}, []byte{'n'}, func(_, _ []byte) bool { return true })
		must(t, err)
		merges := x.Stats().Merges
		before := residentTables(t, db)
		dropped := drop()
		after := residentTables(t, db)
		if !idle() || !dropped || before < 1<<20 || x.Stats().Merges != merges {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if after > before/4 {
			t.Errorf("%d bytes of tables were resident, and %d are still", before, after)
		}
		mustClose(t, x)
		return
	}
	t.Error("tables were never seen resident")
}
