//go:build linux

package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/cache/content"
)

// smallDisk mounts a file system of a few MB. Where that is not allowed the test
// is skipped, and fails under CI=true.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("disk", dir, "tmpfs", 0, "size="+size); err != nil {
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatalf("this machine cannot mount a small disk, and CI allows no skip: %v", err)
		}
		t.Skipf("SKIPPED, this machine cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	v := openVolume(t, filepath.Join(smallDisk(t, "12m"), "store"))
	s := v.Segments()
	kept := put(t, s, small(1, 1000)) // takes 8 MiB
	must(t, s.Flush())
	must(t, v.Probe())

	b, err := v.Create(1, 6*mib, nil)
	must(t, err)
	err = b.Reserve(6 * mib)
	wantErr(t, "room for a body too large", err, ErrFull)
	wantErr(t, "room for a body too large", err, content.ErrFull)
	must(t, errors.Join(b.Close(), v.Remove(1)))
	b, err = v.Create(2, content.UnknownSize, []byte("card"))
	must(t, err)
	defer b.Close()
	data := noise(2, 8*mib)
	_, err = b.WriteAt(data, 0)
	wantErr(t, "writing too much", err, ErrFull)
	wantErr(t, "giving it room", b.Reserve(8*mib), ErrFull)
	wantErr(t, "probing", v.Probe(), ErrFull)
	if _, err = v.Create(3, mib, nil); !errors.Is(err, ErrFull) {
		t.Errorf("a further blob gave %v", err)
	}

	// What was reserved is there for small objects; a new segment is not to be had.
	next := put(t, s, small(2, 30000))
	must(t, s.Flush())
	for i := uint64(3); ; i++ {
		if _, err = s.Append(i, nil, noise(i, MaxSmall)); err != nil {
			break
		}
	}
	wantErr(t, "a further segment", err, ErrFull)
	must(t, s.Flush())
	wantObject(t, s, kept)
	wantObject(t, s, next)

	must(t, v.Remove(2))
	must(t, b.Close())
	must(t, v.Probe())
	must(t, s.Remove(kept.at.Segment))
	must(t, s.Flush())
	wantObject(t, s, put(t, s, small(3, 3000)))
	v = reopen(t, v)
	must(t, v.Probe())
}

func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "24m")
	dir := filepath.Join(disk, "store")
	v := openVolume(t, dir)
	data := noise(1, mib+1)
	b := putBlob(t, v, 1, data, []byte("card"))
	must(t, b.Close())
	o := put(t, v.Segments(), small(1, 1000))
	must(t, v.Close())
	remount := func(flags uintptr) { must(t, unix.Mount("disk", disk, "tmpfs", unix.MS_REMOUNT|flags, "")) }

	remount(unix.MS_RDONLY)
	v = openVolume(t, dir)
	wantErr(t, "probing", v.Probe(), ErrReadOnly)
	b, err := v.Open(1)
	must(t, err)
	for i := range int64(2) {
		must(t, b.Check(i, mib+1))
	}
	have, err := b.Resume(mib+1, nil)
	if err != nil || have.Len() != mib+1 {
		t.Errorf("durable: %v, %v", have, err)
	}
	wantObject(t, v.Segments(), o)
	_, err = b.WriteAt(data, 0)
	wantErr(t, "WriteAt", err, ErrReadOnly)
	wantErr(t, "PutSlot", b.PutSlot(0, hashes(t, data[:mib])), ErrReadOnly)
	wantErr(t, "Forget", b.Forget(0), ErrReadOnly)
	wantErr(t, "SetCard", b.SetCard(nil), ErrReadOnly)
	wantErr(t, "SetSize", b.SetSize(3), ErrReadOnly)
	wantErr(t, "Remove", v.Remove(1), ErrReadOnly)
	_, err = v.Create(2, 1, nil)
	wantErr(t, "Create", err, ErrReadOnly)
	_, err = v.Segments().Append(2, nil, nil)
	wantErr(t, "Append", err, ErrReadOnly)
	wantErr(t, "removing a segment", v.Segments().Remove(o.at.Segment), ErrReadOnly)
	wantObject(t, v.Segments(), o)
	if w := walk(t, v)[1]; w.err != nil || w.card != "card" {
		t.Errorf("walked: %+v", w)
	}
	_, err = Open(filepath.Join(disk, "new"), quiet)
	wantErr(t, "a new volume", err, ErrReadOnly)
	must(t, b.Close())

	remount(0)
	must(t, v.Probe())
	b = putBlob(t, v, 2, data, nil)
	must(t, b.Check(0, mib+1))
	must(t, b.Close())
	wantObject(t, v.Segments(), put(t, v.Segments(), small(2, 100)))
	must(t, v.Segments().Flush())
}

// The disk is pulled and what it was mounted on is left.
func TestPulledDisk(t *testing.T) {
	t.Parallel()
	outer := smallDisk(t, "24m")
	must(t, unix.Mount("disk", outer, "tmpfs", 0, "size=24m"))
	v := openVolume(t, outer)
	must(t, v.Probe())
	must(t, unix.Unmount(outer, unix.MNT_DETACH))
	wantErr(t, "probing", v.Probe(), ErrGone)
	if left, err := os.ReadDir(outer); err != nil || len(left) != 0 {
		t.Errorf("the probe wrote beneath the mount: %v, %v", left, err)
	}
}
