package cache

import (
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// TestFiguresOutliveTheirObject: what was filled and served stays counted when
// the object is evicted and the store opened again.
func TestFiguresOutliveTheirObject(t *testing.T) {
	s := open(t, Config{})
	num := put(t, s, "http://a.example/x", noise(1, 3*content.LeafSize))
	s.CountServed(num, "http", 1000)
	before := s.Stats()
	if err := s.Evict(num); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	after := s.Stats()
	var filled int64
	for _, n := range after.Filled {
		filled += n
	}
	if after.Objects != 0 || after.Served["http"] != 1000 || filled != 3*content.LeafSize {
		t.Fatalf("before: %+v; after evicting and opening again: %+v", before, after)
	}
}

// TestUnpublish: an object that became private keeps its name and loses its
// identity, also when the store is opened again.
func TestUnpublish(t *testing.T) {
	s := open(t, Config{})
	num := put(t, s, "http://a.example/x", noise(1, 5))
	info, _ := s.Get(num)
	if _, ok := s.ByID(info.ID); !ok {
		t.Fatal("a public object has no identity")
	}
	if err := s.Unpublish(num); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, ok := s.ByID(info.ID); ok {
			t.Fatal("a private object is found by its identity")
		}
		if got, _, ok := s.Lookup("http://a.example/x"); !ok || got.Public {
			t.Fatalf("by its name: %+v, %v", got, ok)
		}
		s = reopen(t, s)
	}
}
