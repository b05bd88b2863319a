package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// fillLate starts a fill that may hash late, and holds the hashing up until the
// function that it returns is called. All is here by then.
func fillLate(t *testing.T, s *Store, data []byte, src content.Source) (*Fill, func()) {
	t.Helper()
	s.hashing <- struct{}{}
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	f.HashLate()
	f.Start(src)
	time.Sleep(time.Minute)
	synctest.Wait()
	if !f.whole() || f.isDone() {
		t.Fatalf("all is here: %v, and complete: %v", f.whole(), f.isDone())
	}
	return f, func() { <-s.hashing }
}

// wantComplete waits for a fill and looks at what it has made.
func wantComplete(t *testing.T, s *Store, f *Fill, data []byte) {
	t.Helper()
	<-f.Done()
	_, id := proof(t, data)
	if info, ok := s.Get(f.Num()); f.Err() != nil || !ok || !info.Complete || info.ID != id {
		t.Errorf("the object is %s, complete %v: %v", info.ID, info.Complete, f.Err())
	}
	if l, err := s.Layer(f.Num()); err != nil || l.Check(id) != nil {
		t.Errorf("its layer is none: %v", err)
	}
	if n := s.late.Load(); n != 0 {
		t.Errorf("%d bytes still wait to be hashed", n)
	}
}

// TestHashedLate: what came fast is read before it is hashed, and hashed when all
// is here; what came slowly is hashed as it comes.
func TestHashedLate(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		data := noise(1200, 3*mib+77)
		f, goOn := fillLate(t, s, data, source{"slow, then fast", func(ctx context.Context, sink content.Sink) error {
			if err := bring(sink, data, content.Range{End: mib}); err != nil {
				return err
			}
			time.Sleep(flushAfter + time.Second)
			return from("fast", data, mib).Fill(ctx, sink)
		}})
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, r, data, content.Range{Off: 5, End: int64(len(data))})
		r.Close()
		b := f.body.blob.Load()
		if hashed, err := b.HashLate(0, int64(len(data))); hashed || err != nil {
			t.Errorf("what came slowly was hashed late: %v", err)
		}
		if _, err := b.Layer(int64(len(data))); !errors.Is(err, disk.ErrMissing) || s.late.Load() != 2*mib+77 {
			t.Errorf("the hashes of %d bytes were put off: %v", s.late.Load(), err)
		}
		goOn()
		wantComplete(t, s, f, data)
	})
}

// TestDamagedBeforeItWasHashed: no identity is made of bytes other than those that
// came, and what is damaged comes again.
func TestDamagedBeforeItWasHashed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		data := noise(1201, 3*mib)
		f, goOn := fillLate(t, s, data, from("fast", data, mib))
		flipByte(t, bodyPath(s.cfg.Dir, f.Num()), mib+5)
		goOn()
		wantComplete(t, s, f, data)
		wantObject(t, s, "a", data)
		if n := s.Stats().Damaged; n != 1 {
			t.Errorf("%d blocks were found damaged", n)
		}
	})
}

// TestStoppedBeforeItWasHashed: after a restart nothing comes again but what was
// damaged meanwhile, and nothing is read unchecked.
func TestStoppedBeforeItWasHashed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store) {
		data := noise(1202, 3*mib)
		f, _ := fillLate(t, s, data, from("fast", data, mib))
		s = reopen(t, s)
		flipByte(t, bodyPath(s.cfg.Dir, f.Num()), 2*mib+5)
		f, err := s.OpenFill(f.Num(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if missing := f.Missing(); len(missing) > 0 {
			t.Errorf("%v is missing", missing)
		}
		r, err := f.Reader()
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, r, data, content.Range{Off: 7, End: 2 * mib})
		var came []content.Range
		f.Start(source{"again", func(_ context.Context, sink content.Sink) (err error) {
			for _, r := range sink.Missing() {
				came = append(came, r)
				err = errors.Join(err, bring(sink, data, r))
			}
			return err
		}})
		wantBytes(t, r, data, content.Range{End: 3 * mib})
		r.Close()
		wantComplete(t, s, f, data)
		if want := content.Block(2, 3*mib); len(came) != 1 || came[0] != want {
			t.Errorf("%v came again, want %v", came, want)
		}
	})
}
