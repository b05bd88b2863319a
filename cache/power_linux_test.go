package cache

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/hwtest/faultfs"
)

// TestPowerCut is TestCrash with the power gone after each kill: the disk keeps
// what was synced, and of the rest what the seed draws. Bodies and index are on
// the same disk. Names survive in their order, as with the journals of ext4 and
// XFS: Badger syncs the directory after it has made a file, but relies on order
// where it removes and renames. CISTERN_POWER_ROUNDS sets how often.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	rounds := roundsOf(t, "CISTERN_POWER_ROUNDS", 50, 2)
	fs := faultfs.Mount(t, t.TempDir(), faultfs.Config{Ordered: true})
	lives(t, crashConfig(filepath.Join(fs.Dir(), "store")), seedOf(t), rounds, fs.PowerCut).figures(t, "store.power", rounds)
}

// TestPowerCutOfBodies has the bodies alone on a disk that keeps changes of names
// in any order, the strictest reading of POSIX. The index outlives the power: it
// knows all that was ever said of bodies that may be gone.
func TestPowerCutOfBodies(t *testing.T) {
	t.Parallel()
	rounds := roundsOf(t, "CISTERN_POWER_ROUNDS", 25, 1)
	// The store prefers the volume with the most room: all bodies go there.
	fs := faultfs.Mount(t, t.TempDir(), faultfs.Config{Capacity: 1 << 50})
	cfg := crashConfig(t.TempDir())
	cfg.Volumes = []string{filepath.Join(fs.Dir(), "store")}
	lives(t, cfg, seedOf(t), rounds, fs.PowerCut).figures(t, "store.power of bodies", rounds)
}

// TestNoRoomLeavesNothing: a body whose room is not there leaves no file behind.
func TestNoRoomLeavesNothing(t *testing.T) {
	t.Parallel()
	fs := faultfs.Mount(t, t.TempDir(), faultfs.Config{Capacity: 300 * mib})
	// The index stays elsewhere: it is mapped, and a page fault that this very
	// process has to answer could stop it for good.
	s := open(t, Config{Dir: t.TempDir(), Volumes: []string{filepath.Join(fs.Dir(), "store")}})
	v := s.volumes[len(s.volumes)-1]
	if !strings.HasPrefix(v.dir, fs.Dir()) {
		t.Fatalf("the volumes are not in order: %s is the last", v.dir)
	}
	if _, err := v.create(7, 400*mib, false); !errors.Is(err, content.ErrFull) {
		t.Errorf("a body too large gave %v", err)
	}
	if left := blobFiles(v.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
