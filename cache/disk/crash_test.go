package disk

import (
	"bytes"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// torn gives what can lie on the disk after a write of now over was that was cut
// at byte n: the rest as it was before, or, beyond the old end, missing, zero or
// anything.
func torn(was, now []byte, n int) map[string][]byte {
	states := map[string][]byte{}
	cut := slices.Clone(now[:n])
	if n < len(was) {
		states["over the old"] = append(cut, was[n:]...)
		return states
	}
	rest := len(now) - n
	states["short"] = cut
	states["zeros"] = append(slices.Clone(cut), make([]byte, rest)...)
	states["noise"] = append(slices.Clone(cut), noise(uint64(n), rest)...)
	return states
}

// A segment whose last write was cut at any byte gives the records before it, and
// nothing wrong.
func TestSegmentTailCutAnywhere(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	var all []object
	for i := range uint64(5) {
		all = append(all, put(t, s, object{num: i, card: noise(i, 20), body: noise(i, 50+int(i))}))
	}
	must(t, v.Close())
	path := segmentPath(s.dir, all[0].at.Segment)
	whole, err := os.ReadFile(path)
	must(t, err)
	states := 0
	for n := int(all[3].at.Off); n < len(whole); n++ {
		for kind, state := range torn(nil, whole, n) {
			states++
			patch(t, path, 0, state)
			must(t, os.Truncate(path, int64(len(state))))
			s, err := openSegments(s.dir, quiet)
			must(t, err)
			sound, _ := scanned(t, s)
			for _, o := range all {
				card, body, err := s.Read(o.at, o.num, nil)
				here := int(o.at.Off+o.at.Len) <= n
				switch {
				case err == nil && (!bytes.Equal(card, o.card) || !bytes.Equal(body, o.body)):
					t.Fatalf("cut at %d, %s: object %d came back wrong", n, kind, o.num)
				case here != (err == nil), here && sound[o.at] != o.num:
					t.Fatalf("cut at %d, %s: object %d, scanned %v: %v", n, kind, o.num, sound, err)
				case err != nil && !errors.Is(err, ErrDamaged):
					t.Fatalf("cut at %d, %s: %v", n, kind, err)
				}
			}
			s.files.close()
		}
	}
	t.Logf("figure: cuts of a segment: %d states (all right): ok", states)
}

// After a death the room that a segment had reserved is given back, the records
// stay, and the torn one is cut off.
func TestSegmentIsCutAtOpen(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	a, b := put(t, s, small(1, 1000)), put(t, s, small(2, 1000))
	must(t, s.Flush())
	must(t, v.lock.Close())
	path := segmentPath(s.dir, a.at.Segment)
	must(t, os.Truncate(path, SegmentSize)) // as the reservation left it
	patch(t, path, int64(b.at.Off+b.at.Len)-10, make([]byte, 10))
	must(t, os.WriteFile(filepath.Join(s.dir, "000003e8.seg"), make([]byte, SegmentSize), 0o600)) // died right after it was made
	s = openVolume(t, v.dir).Segments()
	wantObject(t, s, a)
	if list := s.List(); len(list) != 1 || list[0].Bytes != int64(b.at.Off) {
		t.Errorf("segments are %+v, want one of %d bytes", list, b.at.Off)
	}
	if next := put(t, s, small(3, 1)); next.at.Segment <= 0x3e8 {
		t.Errorf("number %d may repeat", next.at.Segment)
	}
}

// A write of a sidecar that was cut at any byte leaves the old, the new or
// nothing.
func TestSidecarCutAnywhere(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	data := noise(1, 2*mib)
	b := putBlob(t, v, 5, data, nil)
	leaves := [2][]content.Hash{hashes(t, data[:mib]), hashes(t, data[mib:])}
	oldCard, newCard := noise(2, 300), noise(3, 250)
	states := 0
	each := func(off int64, was, now []byte, check func(what string)) {
		for n := range len(now) + 1 {
			for kind, state := range torn(was, now, n) {
				states++
				_, err := b.tree.WriteAt(state, off)
				must(t, err)
				check(kind)
			}
		}
	}
	each(headerSize, appendCard(nil, 5, oldCard), appendCard(nil, 5, newCard), func(what string) {
		card, err := b.Card()
		if err == nil && !bytes.Equal(card, oldCard) && !bytes.Equal(card, newCard) || err != nil && (card != nil || !errors.Is(err, ErrDamaged)) {
			t.Fatalf("card %s is %x: %v", what, card, err)
		}
	})
	each(0, appendHeader(nil, 5, content.UnknownSize), appendHeader(nil, 5, 2*mib), func(what string) {
		size, err := b.Size()
		if err == nil && size != content.UnknownSize && size != 2*mib || err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("header %s says %d: %v", what, size, err)
		}
	})
	// Slot 1 was wiped, was never written, or has the hashes of other bytes.
	// Or it has been hashed late, or not at all yet.
	now := appendSlot(nil, 5, 1, slot{leaves: leaves[1]})
	late := slot{crc: crc32.Checksum(data[mib:], castagnoli)}
	summed := append(appendSlot(nil, 5, 1, late), now[12:]...)
	for _, was := range [][]byte{nil, append(make([]byte, 8), now[8:]...), appendSlot(nil, 5, 1, slot{leaves: leaves[0]}), summed} {
		each(slotOff(1), was, now, func(what string) {
			got, err := b.slot(1)
			if err == nil && got.leaves == nil && got.crc != late.crc || got.leaves != nil && !slices.Equal(got.leaves, leaves[1]) && (was == nil || !slices.Equal(got.leaves, leaves[0])) {
				t.Fatalf("slot %s says something else", what)
			}
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissing) {
				t.Fatal(err)
			}
			if states%997 != 0 { // hashing two blocks is slow
				return
			}
			if err := b.Check(0, 2*mib); err != nil {
				t.Fatalf("the neighbour of a slot %s: %v", what, err)
			}
		})
	}
	t.Logf("figure: cuts of a sidecar: %d states (all right): ok", states)
}

// A create that was cut short leaves what Walk calls damaged or a blob that holds
// nothing.
func TestHeadCutAnywhere(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	b := putBlob(t, v, 5, noise(1, 100), nil)
	head := appendCard(appendHeader(nil, 5, 100), 5, noise(2, 10))
	for n := range len(head) + 1 {
		for kind, state := range torn(nil, head, n) {
			must(t, b.tree.Truncate(0))
			_, err := b.tree.WriteAt(state, 0)
			must(t, err)
			w := walk(t, v)[5]
			switch {
			case w.err != nil:
				wantErr(t, kind, w.err, ErrDamaged)
			case w.size != 100 || w.card != "" && w.card != string(noise(2, 10)):
				t.Fatalf("cut at %d, %s: %+v", n, kind, w)
			}
			have, err := b.Resume(100, nil)
			if err != nil || have != nil {
				t.Fatalf("cut at %d, %s: durable %v: %v", n, kind, have, err)
			}
		}
	}
}
