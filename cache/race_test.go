package cache

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// TestBooksBalance fills, merges, evicts, unpublishes and renames objects of
// equal bytes at once; then names, identities and room add up, and no reader
// ever saw other bytes.
func TestBooksBalance(t *testing.T) {
	s := open(t, Config{MaxBytes: 20 * mib})
	data := noise(9, 2*mib+77)
	disturb := []func(num uint64){
		func(num uint64) { _ = s.Evict(num) }, // somebody else may have been first
		func(num uint64) { _ = s.Unpublish(num) },
		func(uint64) { _ = s.DropName("c") },
		func(num uint64) {
			s.CountServed(num, "http", 5)
			if err := s.saveFigures(); err != nil {
				t.Error(err)
			}
		},
		func(uint64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			_ = s.makeRoom(18 * mib) // there may be too much under way
		},
		func(uint64) {},
	}
	var wg sync.WaitGroup
	for i, do := range disturb {
		wg.Go(func() {
			for range 15 {
				if f := fillEqual(t, s, string(rune('a'+i)), data); f != nil {
					do(f.Num())
				}
			}
		})
	}
	wg.Wait()
	balance(t, s)
}

// fillEqual fills an object and reads from it; nil if there was no room.
func fillEqual(t *testing.T, s *Store, name string, data []byte) *Fill {
	f, err := s.Create(Spec{Object: content.Object{Size: int64(len(data))}, Title: name, Public: true}, name, nil)
	if err != nil {
		return nil
	}
	r, err := f.Reader()
	if err != nil {
		t.Error(err)
		return nil
	}
	defer r.Close()
	f.Start(source{"race", func(_ context.Context, sink content.Sink) error {
		return bring(sink, data, content.Range{End: int64(len(data))})
	}})
	<-f.Done()
	got := make([]byte, 100)
	if _, err := r.ReadAt(got, 2*mib-50); err != nil || !bytes.Equal(got, data[2*mib-50:2*mib+50]) {
		t.Errorf("read other bytes, or %v", err)
	}
	return f
}

func has(names map[string][]byte, name string) bool {
	_, ok := names[name]
	return ok
}

// balance checks that what the store holds in memory agrees with itself.
func balance(t *testing.T, s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var used int64
	for _, r := range s.objects {
		used += r.reserved()
		for name := range r.Names {
			if s.names[name] != r.Num {
				t.Errorf("name %s of object %d stands for %d", name, r.Num, s.names[name])
			}
		}
	}
	for name, num := range s.names {
		if r := s.objects[num]; r == nil || !has(r.Names, name) {
			t.Errorf("name %s stands for object %d, which does not have it", name, num)
		}
	}
	for id, num := range s.ids {
		if r := s.objects[num]; r == nil || r.ID != id || !r.Public {
			t.Errorf("identity %s is that of object %d: %+v", id, num, r)
		}
	}
	if used != s.used || len(s.active) != 0 {
		t.Errorf("%d bytes are counted, %d are there; %d fills run", s.used, used, len(s.active))
	}
}
