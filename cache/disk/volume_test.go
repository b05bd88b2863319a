package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestVolumeKeepsItsIdentity(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "some", "where")
	v := openVolume(t, dir)
	id := v.ID()
	if len(id) != 32 || v.Dir() != dir {
		t.Errorf("volume %q in %q", id, v.Dir())
	}
	_, err := Open(dir, quiet)
	wantErr(t, "opening it twice", err, ErrInUse)
	must(t, v.Probe())
	free, total, err := v.Space()
	if err != nil || free <= 0 || total < free {
		t.Errorf("%d of %d bytes are free: %v", free, total, err)
	}
	v = reopen(t, v)
	if v.ID() != id {
		t.Error("the identity changed")
	}
	if other := openVolume(t, t.TempDir()); other.ID() == id {
		t.Error("two volumes have one identity")
	}
}

func TestVolumeRefusesWhatIsNewer(t *testing.T) {
	t.Parallel()
	newer := marker{Format: 3, ID: "abc"}
	newer.Sum = newer.sum()
	for _, text := range []string{
		`{"format":3,"id":"abc"}`,
		fmt.Sprintf(`{"format":3,"id":"abc","sum":%q,"and":{"more":[1,2]}}`, newer.Sum),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, markerName)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := Open(dir, quiet)
		wantErr(t, text, err, ErrNewer)
		if err == nil || !strings.Contains(err.Error(), "it is 3, this program reads up to 2") {
			t.Errorf("the error does not say which: %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("the marker was touched: %q, %v", got, err)
		}
		_, _, err = MigrateV1(dir, nil)
		wantErr(t, "migrating it", err, ErrNewer)
	}
}

func TestDamagedMarkerIsMadeAnew(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	id := v.ID()
	putBlob(t, v, 1, []byte("body"), []byte("card"))
	must(t, v.Close())
	patch(t, filepath.Join(v.dir, markerName), 20, []byte{'!'})
	v = openVolume(t, v.dir)
	if w := walk(t, v)[1]; v.ID() == id || w.card != "card" || w.err != nil {
		t.Errorf("volume %s, blob %+v", v.ID(), w)
	}
	must(t, v.Close())
	must(t, os.Remove(filepath.Join(v.dir, markerName)))
	if w := walk(t, openVolume(t, v.dir))[1]; w.card != "card" {
		t.Errorf("without a marker the blob walked as %+v", w)
	}
}

func TestProbeMissesTheVolume(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	path := filepath.Join(v.dir, markerName)
	was, err := os.ReadFile(path)
	must(t, err)
	for _, harm := range []func() error{
		func() error { return os.Remove(path) },
		func() error { _, err := writeMarker(v.dir); return err },
		func() error { return os.WriteFile(path, []byte("{"), 0o600) },
	} {
		must(t, harm())
		wantErr(t, "probing", v.Probe(), ErrGone)
		must(t, os.WriteFile(path, was, 0o600))
		must(t, v.Probe())
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]error{
		syscall.ENOSPC: ErrFull, syscall.EDQUOT: ErrFull, syscall.EROFS: ErrReadOnly,
		syscall.EIO: ErrGone, syscall.ENODEV: ErrGone, syscall.ESTALE: ErrGone, syscall.ENOTCONN: ErrGone,
	} {
		err := Classify(&fs.PathError{Op: "write", Path: "x", Err: errno})
		if !errors.Is(err, want) || !errors.Is(err, errno) || errors.Is(err, content.ErrFull) != (want == ErrFull) {
			t.Errorf("%v became %v", errno, err)
		}
		if again := Classify(fmt.Errorf("more: %w", err)); strings.Count(again.Error(), want.Error()) != 1 {
			t.Errorf("classified twice: %v", again)
		}
	}
	for _, err := range []error{nil, os.ErrClosed, syscall.ENOENT} {
		if Classify(err) != err {
			t.Errorf("%v was changed", err)
		}
	}
}
