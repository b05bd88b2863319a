package qualify

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// brief is a budget that a unit test can wait for.
func brief(cfg Config) *Qualifier {
	q := &Qualifier{cfg: cfg, log: slog.New(slog.DiscardHandler), budget: cfg.budget()}
	q.budget.disk, q.budget.capacity, q.budget.scratch, q.syncs = 20*time.Millisecond, time.Minute, 16<<20, 3
	return q
}

// A file system is measured, found honest, and left as it was.
func TestScratchLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	q := brief(Config{Dir: dir, Quick: true, MaxBytes: 32 << 20})
	q.disk(t.Context())
	d := q.report.Disk
	if strings.Contains(d.Err, "go past the cache") {
		if os.Getenv("CI") == "true" {
			t.Fatal(d.Err)
		}
		t.Skip(d.Err)
	}
	if d.Err != "" || d.SequentialWrite == 0 || d.SequentialRead == 0 || d.Fsync.Count == 0 || d.Capacity.Wrong != 0 || d.Capacity.Marks != d.Capacity.Planned {
		t.Errorf("%+v", d)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What others count on stays free: with all of it spoken for nothing is written.
func TestScratchSparesOthers(t *testing.T) {
	q := brief(Config{Dir: t.TempDir(), Quick: true, Spare: 1 << 60})
	q.disk(t.Context())
	if d := q.report.Disk; !strings.Contains(d.Err, "too few") || d.SequentialWrite != 0 {
		t.Errorf("%+v", d)
	}
}

// Only a block device of which nothing is in use may be erased.
func TestEraseIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, "/dev/null", t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		q, err := New(Config{Erase: path, Quick: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		report, err := q.Run(t.Context(), nil)
		if err == nil || report.State != client.QualifyStopped {
			t.Errorf("%s: %+v, %v", path, report, err)
		}
	}
	if text, err := os.ReadFile(file); string(text) != "precious" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
