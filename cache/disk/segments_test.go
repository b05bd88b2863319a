package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// object is a small object and where it lies.
type object struct {
	num        uint64
	card, body []byte
	at         Place
}

func small(seed uint64, bodyLen int) object {
	return object{num: seed, card: noise(seed, int(seed%300)), body: noise(seed+1, bodyLen)}
}

func put(t testing.TB, s *Segments, o object) object {
	t.Helper()
	var err error
	o.at, err = s.Append(o.num, o.card, o.body)
	must(t, err)
	return o
}

// wantObject reads an object that must be there.
func wantObject(t testing.TB, s *Segments, o object) {
	t.Helper()
	card, body, err := s.Read(o.at, o.num, nil)
	if err != nil || !bytes.Equal(card, o.card) || !bytes.Equal(body, o.body) {
		t.Errorf("object %d came back wrong: %v", o.num, err)
	}
}

func TestSegmentsKeep(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	var all []object
	for i := range 400 { // some 13 MB: two segments, with much in the buffer in between
		all = append(all, put(t, s, small(uint64(i), i*163%(MaxSmall+1))))
		wantObject(t, s, all[i])
	}
	all = append(all, put(t, s, object{num: 1 << 60, card: noise(1, MaxCard), body: noise(2, MaxSmall)}), put(t, s, object{num: 9000}))
	for _, flush := range []bool{false, true} {
		if flush {
			must(t, s.Flush())
		}
		for _, o := range all {
			wantObject(t, s, o)
		}
	}
	if list := s.List(); len(list) != 2 || !list[0].Sealed || list[1].Sealed || list[0].ID >= list[1].ID {
		t.Errorf("segments are %+v", list)
	}
	v = reopen(t, v)
	s = v.Segments()
	sound, bad := scanned(t, s)
	if len(sound) != len(all) || bad != 0 {
		t.Errorf("scanned %d, %d bad, of %d", len(sound), bad, len(all))
	}
	buf := make([]byte, recordMax)
	for _, o := range all {
		wantObject(t, s, o)
		if sound[o.at] != o.num {
			t.Errorf("object %d was scanned as %d", o.num, sound[o.at])
		}
		card, _, err := s.Read(o.at, o.num, buf)
		if err != nil || len(card) > 0 && &card[0] != &buf[recordHead] {
			t.Errorf("dst was not used: %v", err)
		}
		for _, wrong := range []Place{
			{o.at.Segment, o.at.Off, o.at.Len + 1},
			{o.at.Segment, o.at.Off + 8, o.at.Len},
			{o.at.Segment, o.at.Off, 0},
			{o.at.Segment, 1<<32 - 8, o.at.Len},
			{o.at.Segment, o.at.Off, 1<<32 - 1},
			{o.at.Segment, 0, 64},
		} {
			_, _, err := s.Read(wrong, o.num, nil)
			wantErr(t, "a wrong place", err, ErrDamaged)
		}
		_, _, err = s.Read(o.at, o.num+1, nil)
		wantErr(t, "another number", err, ErrDamaged)
	}
	for _, i := range s.List() {
		st, err := os.Stat(segmentPath(s.dir, i.ID))
		if err != nil || st.Size() != i.Bytes || !i.Sealed {
			t.Errorf("segment %+v has a file of %d bytes: %v", i, st.Size(), err)
		}
	}
	if _, err := s.Append(1, nil, make([]byte, MaxSmall+1)); err == nil {
		t.Error("a body too large was taken")
	}
	if _, err := s.Append(1, make([]byte, MaxCard+1), nil); err == nil {
		t.Error("a card too large was taken")
	}
	seen := 0
	must(t, s.Scan(1, func(uint64, Place, []byte, int, error) bool { seen++; return seen < 3 }))
	if seen != 3 {
		t.Errorf("a scan that was stopped saw %d", seen)
	}
}

func TestSegmentsAfterClose(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	o := put(t, s, small(1, 100))
	must(t, v.Close())
	_, _, err := s.Read(o.at, o.num, nil)
	wantErr(t, "reading after the end", err, os.ErrClosed) // and not fs.ErrNotExist: nothing is gone
	_, err = s.Append(1, nil, nil)
	wantErr(t, "appending after the end", err, os.ErrClosed)
}

func TestSegmentNumbersNeverRepeat(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	last := uint32(0)
	for round := range 6 {
		s := v.Segments()
		for range 3 {
			o := put(t, s, small(uint64(round), 100))
			if o.at.Segment <= last && round > 0 {
				t.Fatalf("segment %d came after %d", o.at.Segment, last)
			}
			last = o.at.Segment
			must(t, s.Flush())
			must(t, s.Remove(o.at.Segment))
			_, _, err := s.Read(o.at, o.num, nil)
			wantErr(t, "reading what was removed", err, fs.ErrNotExist)
			next := put(t, s, small(1, 1))
			if next.at.Segment <= last {
				t.Fatalf("segment %d came after %d was removed", next.at.Segment, last)
			}
			last = next.at.Segment
			must(t, s.Remove(last))
			must(t, s.Remove(last)) // twice is no error
		}
		for _, i := range s.List() {
			must(t, s.Remove(i.ID))
		}
		switch round {
		case 2: // the note of the number is damaged: the files tell
			o := put(t, s, small(1, 1))
			must(t, s.Flush())
			last = o.at.Segment
			must(t, v.Close())
			patch(t, filepath.Join(s.dir, "next"), 1, []byte{0xff})
		case 3: // the process dies: nothing is written at the end
			must(t, v.lock.Close())
		default:
			must(t, v.Close())
		}
		v = openVolume(t, v.dir)
	}
}

// A body that looks like a record must not become one, not even when a scan has
// lost its way right before it.
func TestNoBodyPosesAsRecord(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	first := put(t, s, object{num: 1})
	for salt := range uint64(50) {
		// All but the salt is known: the number of the segment and where it lies.
		at := Place{Segment: first.at.Segment, Len: recordHead + 4}
		o := object{num: 2 + salt}
		at.Off = uint32(s.List()[0].Bytes) + recordHead
		o.body = appendRecord(nil, at, salt, 666, nil, []byte("fake"))
		put(t, s, o)
	}
	must(t, s.Flush())
	damage := make([]byte, 4)
	sound, _ := scanned(t, s)
	for p := range sound {
		patch(t, segmentPath(s.dir, p.Segment), int64(p.Off), damage)
	}
	sound, bad := scanned(t, s)
	if len(sound) != 0 || bad == 0 {
		t.Errorf("found %v among %d damaged", sound, bad)
	}
}

func TestScanGoesOnBehindDamage(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	var all []object
	for i := range uint64(30) {
		all = append(all, put(t, s, small(i, 500)))
	}
	must(t, s.Flush())
	path := segmentPath(s.dir, all[0].at.Segment)
	patch(t, path, int64(all[3].at.Off), make([]byte, 40))                // a header
	patch(t, path, int64(all[7].at.Off+all[7].at.Len-1), []byte{0xa5})    // the end of a body
	patch(t, path, int64(all[11].at.Off), make([]byte, 2*all[11].at.Len)) // one and more
	sound, bad := scanned(t, s)
	if len(sound) < 30-4 || bad < 3 {
		t.Errorf("%d sound, %d bad", len(sound), bad)
	}
	for i, o := range all {
		_, ok := sound[o.at]
		_, _, err := s.Read(o.at, o.num, nil)
		if ok != (err == nil) || err != nil && !errors.Is(err, ErrDamaged) || ok && (i == 3 || i == 7 || i == 11) {
			t.Errorf("object %d: scanned %v, read %v", i, ok, err)
		}
	}
}

// Readers, appenders, flushers and a remover at once: each read is right or says
// that the segment is gone.
func TestSegmentsAtOnce(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	var mu sync.Mutex // guards all
	var all []object
	pick := func(r *rand.Rand) (object, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(all) == 0 {
			return object{}, false
		}
		return all[r.IntN(len(all))], true
	}
	body := noise(1, MaxSmall)
	var appenders, others sync.WaitGroup
	var done atomic.Bool
	var right, gone atomic.Int64
	for w := range uint64(3) {
		appenders.Go(func() {
			for i := range uint64(300) {
				o := object{num: w<<32 | i, card: body[w+i : w+i+30], body: body[i : i+40000]}
				var err error
				if o.at, err = s.Append(o.num, o.card, o.body); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, o)
				mu.Unlock()
			}
		})
		others.Go(func() {
			r, buf := rand.New(rand.NewPCG(w, 1)), make([]byte, recordMax)
			for !done.Load() {
				o, ok := pick(r)
				if !ok {
					continue
				}
				card, got, err := s.Read(o.at, o.num, buf)
				switch {
				case errors.Is(err, fs.ErrNotExist):
					gone.Add(1)
				case err != nil || !bytes.Equal(card, o.card) || !bytes.Equal(got, o.body):
					t.Errorf("object %d at %v: %v", o.num, o.at, err)
				default:
					right.Add(1)
				}
			}
		})
	}
	others.Go(func() {
		for !done.Load() {
			if err := s.Flush(); err != nil {
				t.Error(err)
			}
			list := s.List()
			if len(list) > 2 && list[0].Sealed {
				_ = s.Scan(list[1].ID, func(_ uint64, _ Place, _ []byte, _ int, err error) bool {
					if err != nil {
						t.Error(err)
					}
					return true
				})
				if err := s.Remove(list[0].ID); err != nil {
					t.Error(err)
				}
			}
		}
	})
	appenders.Wait()
	done.Store(true)
	others.Wait()
	must(t, s.Flush())
	if right.Load() == 0 {
		t.Error("nothing was read")
	}
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	for id, x := range s.files.open {
		if x.users > 1 || x.users == 1 && (s.current == nil || s.current.id != id) {
			t.Errorf("segment %d has %d users left", id, x.users)
		}
	}
}

func TestFewSegmentsStayOpen(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	var all []object
	for i := range uint64(maxHandles + 20) {
		all = append(all, put(t, s, small(i, 10)))
		s.appending.Lock()
		s.seal()
		s.appending.Unlock()
	}
	must(t, s.Flush())
	for range 2 {
		for _, o := range all {
			wantObject(t, s, o)
		}
	}
	if n := len(s.files.open); n != maxHandles {
		t.Errorf("%d segments are open, want %d", n, maxHandles)
	}
}

// What a Flush could not bring to the disk is told once, and what comes after it
// is not harmed.
func TestFlushTellsWhatIsLost(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	kept := put(t, s, small(1, 100))
	must(t, s.Flush())
	lost := put(t, s, small(2, 100))
	must(t, s.current.file.Close()) // every write fails from here on
	if err := s.Flush(); err == nil {
		t.Error("a flush that failed said nothing")
	}
	after := put(t, s, small(3, 100))
	must(t, s.Flush())
	s = reopen(t, v).Segments()
	wantObject(t, s, kept)
	wantObject(t, s, after)
	_, _, err := s.Read(lost.at, lost.num, nil)
	wantErr(t, "reading what was lost", err, ErrDamaged)
}

// TestFullSegmentIsNotReadAtStart: what is damaged in a segment that was written
// to its end is found when it is read, not by reading all of it at each start.
func TestFullSegmentIsNotReadAtStart(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	s := v.Segments()
	first := put(t, s, object{num: 1, body: noise(1, 60_000)})
	last, num := first, uint64(2)
	for ; last.at.Segment == first.at.Segment; num++ {
		room := SegmentSize - int(align(int64(last.at.Off)+int64(last.at.Len))) - recordHead
		if room < 0 { // full
			break
		}
		last = put(t, s, object{num: num, body: noise(num, min(room, 60_000))})
	}
	path := segmentPath(s.dir, first.at.Segment)
	must(t, v.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("torn"), int64(last.at.Off)+recordHead+1)
	must(t, errors.Join(err, f.Close()))

	s = openVolume(t, v.dir).Segments()
	if list := s.List(); len(list) != 1 || list[0].Bytes != SegmentSize {
		t.Errorf("segments are %+v", list)
	}
	wantObject(t, s, first)
	_, _, err = s.Read(last.at, last.num, nil)
	wantErr(t, "the torn record", err, ErrDamaged)
}
