package cache

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// Whoever reads an object that is taken down gets no more of it, large or small,
// complete or on its way in.
func TestTakedownEndsReaders(t *testing.T) {
	s := open(t, Config{})
	small := put(t, s, "http://a.example/small", noise(1, 1000))
	large := put(t, s, "http://a.example/large", noise(2, 2*mib))
	kept := put(t, s, "http://b.example/kept", noise(3, 2*mib))
	fill, err := s.Create(Spec{Object: content.Object{Size: 3 * mib}, Title: "on its way"}, "http://a.example/filling", nil)
	if err != nil {
		t.Fatal(err)
	}
	readers := map[uint64]*Reader{}
	for _, num := range []uint64{small, large, kept, fill.Num()} {
		r, err := s.Read(num)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers[num] = r
	}
	removed, err := s.Purge("a.example", "asked for", "test")
	if err != nil || len(removed) != 3 {
		t.Fatalf("removed %d, %v", len(removed), err)
	}
	for num, r := range readers {
		var got bytes.Buffer
		_, err := r.WriteRange(t.Context(), &got, content.Range{End: 1000})
		_, at := r.ReadAt(make([]byte, 10), 0)
		denied := s.TakenDown(num)
		if num == kept {
			if err != nil || at != nil || denied != nil {
				t.Errorf("an object that was not taken down: %v, %v, %v", err, at, denied)
			}
			continue
		}
		if !errors.Is(err, ErrDenied) || got.Len() > 0 || !errors.Is(at, ErrDenied) || !errors.Is(denied, ErrDenied) {
			t.Errorf("object %d: %d bytes, %v, %v, %v", num, got.Len(), err, at, denied)
		}
	}
}

// An identity counts as a name.
func TestIdentityIsDenied(t *testing.T) {
	s := open(t, Config{})
	num := put(t, s, "http://a.example/x", noise(4, 100_000))
	info, _ := s.Get(num)
	if _, err := s.Purge(info.ID.String(), "asked for", "test"); err != nil {
		t.Fatal(err)
	}
	if err := s.Denied(info.ID.String()); !errors.Is(err, ErrDenied) {
		t.Errorf("%v", err)
	}
	if err := s.Denied("http://a.example/x"); err != nil {
		t.Errorf("its URL: %v", err)
	}
}
