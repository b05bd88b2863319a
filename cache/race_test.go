package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
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
			s.saveFigures()
		},
		func(uint64) {
			_ = s.evicting(func() ([]*entry, error) { // there may be too much under way
				_, victims, err := s.makeRoom(18*mib, nil, nil)
				return victims, err
			})
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

// balance checks that what the store holds in memory agrees with itself and
// with the index.
func balance(t testing.TB, s *Store) {
	t.Helper()
	var sums, loose, crumbs int64
	queued := 0
	s.mu.Lock()
	for _, e := range s.objects {
		sums += e.reserved()
		if s.evictable(e) {
			loose += e.reserved()
		}
		if s.idle(e) && e.is(isSmall) {
			crumbs += e.reserved()
		}
		queued++
	}
	var inServices, looseInServices, inQueues int64
	lens := 0
	for _, svc := range s.services {
		inServices += svc.bytes
		looseInServices += svc.loose
		crumbs -= svc.crumb
		inQueues += svc.queue.Bytes() + svc.small.Bytes()
		lens += svc.queue.Len() + svc.small.Len()
	}
	var inVolumes int64
	for _, v := range s.volumes {
		inVolumes += v.bytes
	}
	if sums != s.used || sums != inServices || sums != inVolumes || sums != inQueues || loose != looseInServices || queued != lens || crumbs != 0 || len(s.active) != 0 {
		t.Errorf("%d bytes (%d loose) in %d objects; counted are %d, by service %d (%d loose), by volume %d, in queues %d of %d objects; %d fills run",
			sums, loose, queued, s.used, inServices, looseInServices, inVolumes, inQueues, lens, len(s.active))
	}
	s.mu.Unlock()
	for _, info := range s.List() {
		for _, called := range info.Names {
			if n := s.books.named(called); n == nil || n.Num != info.Num {
				t.Errorf("name %s of object %d stands for %+v", called, info.Num, n)
			}
		}
	}
	if err := s.books.eachName(func(n name) {
		if info, ok := s.Get(n.Num); !ok || !slices.Contains(info.Names, n.Name) {
			t.Errorf("name %s stands for object %d, which does not have it", n.Name, n.Num)
		}
	}); err != nil {
		t.Error(err)
	}
	if err := s.books.scan(identityPrefix, func(_, value []byte) bool {
		num := binary.BigEndian.Uint64(value)
		if info, ok := s.Get(num); !ok || !info.Public || !info.Complete {
			t.Errorf("an identity is that of object %d: %+v", num, info)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}
