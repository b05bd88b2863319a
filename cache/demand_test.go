package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/cache/content"
)

// clerk is a Source that brings what is asked of it, and notes how it was asked.
type clerk struct {
	data []byte

	mu     sync.Mutex
	claims []content.Range
}

func (l *clerk) Name() string { return "clerk" }

func (l *clerk) Fill(ctx context.Context, sink content.Sink) error {
	for {
		r, ok := sink.Claim(-1, math.MaxInt64)
		if !ok {
			return content.ErrNotHere
		}
		l.mu.Lock()
		l.claims = append(l.claims, r)
		l.mu.Unlock()
		err := bring(sink, l.data, r)
		sink.Release(r)
		if err != nil {
			return err
		}
		if len(sink.Missing()) == 0 {
			return nil
		}
	}
}

func (l *clerk) asked() (n int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.claims {
		bytes += r.Len()
	}
	return len(l.claims), bytes
}

// read reads a range as a client of its own would.
func read(t *testing.T, f *Fill, data []byte, rng content.Range) (here bool) {
	t.Helper()
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, missing := r.Expect(rng)
	wantBytes(t, r, data, rng)
	return !missing
}

func TestOnDemandBringsWholeBlocksOfWhatIsAsked(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(980, 40*mib+5)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	l := &clerk{data: data}
	f.OnDemand()
	f.Start(l)
	if read(t, f, data, content.Range{Off: 9_500_000, End: 10_500_000}) {
		t.Error("a cold range was said to be here")
	}
	if n, sum := l.asked(); n != 1 || sum != 2*mib {
		t.Errorf("asked %d times for %d bytes", n, sum)
	}
	if !read(t, f, data, content.Range{Off: 10_500_000, End: 10_600_000}) {
		t.Error("the rest of the block was said not to be here")
	}
	if read(t, f, data, content.Range{Off: 40 * mib, End: 40*mib + 5}) {
		t.Error("the end was said to be here")
	}
	info, _ := s.Get(f.Num())
	if info.Complete || !info.Filling || info.Readable > 6*mib {
		t.Errorf("%+v", info)
	}
	if read(t, f, data, content.Range{End: int64(len(data))}) {
		t.Error("the whole was said to be here")
	}
	<-f.Done()
	if _, sum := l.asked(); f.Err() != nil || sum != int64(len(data)) {
		t.Errorf("%d bytes were asked for, %v", sum, f.Err())
	}
	wantObject(t, s, "a", data)
}

func TestReadAheadOfSlicesGrows(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(981, 24*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	l := &clerk{data: data}
	f.OnDemand()
	f.Start(l)
	for off := int64(0); off < int64(len(data)); off += 512 << 10 {
		read(t, f, data, content.Range{Off: off, End: off + 512<<10})
	}
	<-f.Done()
	n, sum := l.asked()
	if n > 8 || sum != int64(len(data)) || f.Err() != nil {
		t.Errorf("asked %d times for %d bytes: %v, %v", n, sum, l.claims, f.Err())
	}
}

func TestKeepMakesADemandWhole(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(982, 8*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	f.OnDemand()
	f.Start(&clerk{data: data})
	read(t, f, data, content.Range{Off: mib, End: mib + 1})
	s.Keep(f.Num())
	<-f.Done()
	wantObject(t, s, "a", data)
}

// TestDemandEndsAndGoesOn: a fill on demand that was stopped leaves its blocks,
// and a Source that fails fails it.
func TestDemandEndsAndGoesOn(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(983, 8*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	f.OnDemand()
	f.Start(&clerk{data: data})
	read(t, f, data, content.Range{Off: mib, End: mib + 1})
	f.cancel(errUnwanted)
	<-f.Done()
	f, err := s.OpenFill(f.Num(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if missing := f.Missing(); len(missing) != 2 || missing[0].End != mib || missing[1].Off != 2*mib {
		t.Errorf("missing is %v", missing)
	}
	f.OnDemand()
	f.Start(source{"broken", func(_ context.Context, sink content.Sink) error {
		if _, ok := sink.Claim(-1, mib); !ok {
			return content.ErrNotHere
		}
		return context.DeadlineExceeded
	}})
	if !read(t, f, data, content.Range{Off: mib, End: 2 * mib}) {
		t.Error("what is here was said not to be")
	}
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Expect(content.Range{Off: 5 * mib, End: 6 * mib})
	if _, err := r.Wait(t.Context(), 5*mib); err == nil {
		t.Error("what nobody brought was readable")
	}
	<-f.Done()
}

// TestPartTakesItsOwnRoom: a range of an object that is larger than the store
// pushes nothing out; all of it does not fit, and pushes nothing out either.
func TestPartTakesItsOwnRoom(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 48 * mib})
	var others []uint64
	for i := range 3 {
		others = append(others, put(t, s, fmt.Sprint("other-", i), noise(uint64(990+i), 10*mib)))
	}
	huge := make([]byte, 200*mib)
	f, err := s.Create(Spec{Object: content.Object{Size: int64(len(huge))}, Title: "huge", Part: true}, "huge", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.OnDemand()
	f.Start(&clerk{data: huge})
	read(t, f, huge, content.Range{Off: 150 * mib, End: 151 * mib})
	read(t, f, huge, content.Range{Off: 30 * mib, End: 31 * mib})
	if err := f.flush(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := s.grow(f.Num(), f.here()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Bytes < 32*mib || st.Bytes > 36*mib || st.Evicted > 0 {
		t.Errorf("%d bytes are taken, %d objects evicted", st.Bytes, st.Evicted)
	}
	blob := f.body.blob.Load()
	var disk unix.Stat_t
	if err := unix.Fstat(int(blob.File().Fd()), &disk); err != nil || disk.Blocks*512 > 8*mib {
		t.Errorf("the part takes %d bytes of the disk: %v", disk.Blocks*512, err)
	}
	r, err := f.Reader()
	if err != nil {
		t.Fatal(err)
	}
	r.Expect(content.Range{End: math.MaxInt64})
	<-f.Done()
	r.Close()
	if !errors.Is(f.Err(), content.ErrFull) {
		t.Errorf("all of it ended with %v", f.Err())
	}
	s = reopen(t, s)
	for i, num := range others {
		if _, ok := s.Get(num); !ok {
			t.Errorf("object %d was pushed out", i)
		}
	}
	info, _, ok := s.Lookup("huge")
	if !ok || info.Complete || info.From["clerk"] < 2*mib {
		t.Errorf("of the huge one is here: %+v", info)
	}
	balance(t, s)
}

// TestPartThatTurnsWholeReservesItsRoom: what was a part is an object like others
// once all of it was asked for.
func TestPartThatTurnsWholeReservesItsRoom(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 48 * mib})
	old := put(t, s, "old", noise(993, 30*mib))
	data := noise(994, 24*mib)
	f, err := s.Create(Spec{Object: content.Object{Size: int64(len(data))}, Title: "part", Part: true}, "part", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.OnDemand()
	f.Start(&clerk{data: data})
	read(t, f, data, content.Range{Off: 20 * mib, End: 21 * mib})
	if _, ok := s.Get(old); !ok {
		t.Error("a part has pushed an object out")
	}
	read(t, f, data, content.Range{End: int64(len(data))})
	<-f.Done()
	if _, ok := s.Get(old); ok || f.Err() != nil {
		t.Errorf("with all of it, %v, the older object is here: %v", f.Err(), ok)
	}
	if st := s.Stats(); st.Bytes != 24*mib {
		t.Errorf("%d bytes are taken", st.Bytes)
	}
	wantObject(t, s, "part", data)
	balance(t, s)
}
