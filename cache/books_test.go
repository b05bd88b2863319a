package cache

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/index"
)

// TestLargestRecords: the longest names, titles and figures that are taken fit
// the index and the card, whatever letters they are of.
func TestLargestRecords(t *testing.T) {
	t.Parallel()
	for _, letter := range []string{"&", "\x01", "é"} {
		s := open(t, Config{})
		long := strings.Repeat(letter, 9000/len(letter))
		called := "http://a.example/" + long[:2000/len(letter)*len(letter)]
		for i, size := range []int64{4000, 2 * mib} {
			data := noise(uint64(700+i), size)
			f, err := s.Create(Spec{Object: content.Object{Size: size}, Title: long, Vouched: long, Public: true}, fmt.Sprint(i, called), []byte(long))
			if err != nil {
				t.Fatal(err)
			}
			for k := range 700 { // many parts, of a Source with a long name
				f.mu.Lock()
				f.arrived.Add(content.Range{Off: int64(k) * 4, End: int64(k)*4 + 4})
				f.credit(long[:300/len(letter)*len(letter)] + fmt.Sprint(k%2)).Add(content.Range{Off: int64(k) * 4, End: int64(k)*4 + 4})
				f.arrived.Remove(content.Range{Off: int64(k) * 4, End: int64(k)*4 + 4})
				f.mu.Unlock()
			}
			f.Start(from("memory", data, mib))
			<-f.Done()
			if f.Err() != nil {
				t.Fatalf("%q: %v", letter, f.Err())
			}
			for k := range 20 {
				if err := s.SetName(f.Num(), fmt.Sprint(i, k, called), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.saveCards()
		if len(s.cards) != 0 {
			t.Errorf("%q: %d cards could not be written", letter, len(s.cards))
		}
		s = reopen(t, s)
		wantObject(t, s, fmt.Sprint(0, 19, called), noise(700, 4000))
		wantObject(t, s, fmt.Sprint(1, 19, called), noise(701, 2*mib))
		balance(t, s)
	}
}

// TestNamesThatAreRefused: what the index could not give back is not taken.
func TestNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	num := put(t, s, "a", noise(710, 10))
	for what, called := range map[string]string{
		"too long":  strings.Repeat("x", maxName+1),
		"not UTF-8": "http://a.example/\xff",
	} {
		if _, err := s.Create(Spec{Object: content.Object{Size: 1}}, called, nil); err == nil {
			t.Errorf("%s: created", what)
		}
		if err := s.SetName(num, called, nil); err == nil {
			t.Errorf("%s: named", what)
		}
	}
	if err := s.SetName(num, "b", make([]byte, maxMeta+1)); err == nil {
		t.Error("meta beyond the bound was taken")
	}
	if err := s.SetName(num, strings.Repeat("x", maxName), make([]byte, maxMeta)); err != nil {
		t.Errorf("the largest name was refused: %v", err)
	}
}

// TestNamesAreBounded: of very many names the oldest go, from the index too.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	num := put(t, s, "first", noise(711, 10))
	for i := range maxNames {
		if err := s.SetName(num, fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, ok := s.Lookup("first"); ok {
		t.Error("the oldest name is still there")
	}
	if info, _ := s.Get(num); len(info.Names) != maxNames {
		t.Errorf("%d names", len(info.Names))
	}
	balance(t, s)
}

func FuzzRecord(f *testing.F) {
	r := record{
		ID: content.ID{Size: 5}, Title: "a", Names: []string{"a", "b"}, Created: time.Unix(0, 1), Vouched: "v",
		From: map[string]int64{"s": 5}, Served: map[string]int64{"http": 7},
		Parts: []Part{{content.Range{End: 5}, "s"}, {content.Range{Off: 7, End: 9}, "t"}},
	}
	f.Add(r.encode())
	f.Add((&record{Promised: content.ID{Size: 9}, Title: "x"}).encode())
	f.Add(encode(r))
	f.Add([]byte(`{"parts":[{"Off":-1,"End":-9}],"from":{"a":-1}}`))
	f.Add([]byte(`{"names":null,"from":null}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decodeRecord(value)
		if err != nil {
			return
		}
		if again, err := decodeRecord(r.encode()); err != nil || !sameRecord(again, r) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
		c := r.clone()
		if c.add("x"); len(c.Names) > maxNames {
			t.Errorf("%d names", len(c.Names))
		}
		e := entry{size: 5}
		b := &books{names: newRAM[string, *name](1 << 20)}
		r.Names = nil
		if card := b.card(&e, r); len(r.Title) < 100 && len(card) > maxCard {
			t.Errorf("a card of %d bytes", len(card))
		}
	})
}

// sameRecord tells that two records say the same, wherever their clocks are.
func sameRecord(a, b *record) bool {
	return a.ID == b.ID && a.Promised == b.Promised && a.Title == b.Title && a.Vouched == b.Vouched &&
		a.Created.UnixNano() == b.Created.UnixNano() && slices.Equal(a.Names, b.Names) &&
		maps.Equal(a.From, b.From) && maps.Equal(a.Served, b.Served) && slices.Equal(a.Parts, b.Parts)
}

// TestRecordForms: a record comes back as it was, from the form of today and from
// that of the first builds.
func TestRecordForms(t *testing.T) {
	t.Parallel()
	full := &record{
		ID: content.ID{Root: content.Hash{1, 2}, Size: 1 << 40}, Promised: content.ID{Size: 3}, Title: "not a name", Vouched: "somebody",
		Created: time.Now(), Names: []string{"a", "b"}, From: map[string]int64{"m 1": 5, "m 2": 1 << 40},
		Served: map[string]int64{"http": 9}, Parts: []Part{{content.Range{Off: 1, End: 1 << 40}, "m 2"}, {content.Range{End: 1}, "gone"}},
	}
	for what, r := range map[string]*record{"full": full, "named as its title": {Title: "b", Names: []string{"a", "b"}}, "empty": {}} {
		for form, value := range map[string][]byte{"packed": r.encode(), "JSON": encode(r)} {
			if got, err := decodeRecord(value); err != nil || !sameRecord(got, r) {
				t.Errorf("%s, %s: %+v, %v", what, form, got, err)
			}
		}
		for cut := range r.encode() {
			if _, err := decodeRecord(r.encode()[:cut]); err == nil {
				t.Errorf("%s, %d bytes of it: read", what, cut)
			}
		}
	}
	n := &name{Num: 1 << 50, Name: "http://a.example/", Meta: []byte("meta")}
	for form, value := range map[string][]byte{"packed": n.encode(), "JSON": encode(n)} {
		if got, err := decodeName(value); err != nil || !reflect.DeepEqual(got, n) {
			t.Errorf("%s: %+v, %v", form, got, err)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add([]byte{1, 7, 1, 'a', 'm'})
	f.Add([]byte{1, 0, 255, 1})
	f.Add([]byte(`{"num":7,"name":"x"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		n, err := decodeName(value)
		if err != nil {
			return
		}
		again, err := decodeName(n.encode())
		if err != nil || again.Num != n.Num || again.Name != n.Name || string(again.Meta) != string(n.Meta) {
			t.Errorf("%+v came back as %+v, %v", n, again, err)
		}
		if checkName(n.Name, n.Meta) == nil && len(n.encode()) > index.MaxValue {
			t.Errorf("a name of %d bytes", len(n.encode()))
		}
	})
}

// FuzzCardAdopted has any card adopted: the store must not trip over it.
func FuzzCardAdopted(f *testing.F) {
	b := &books{names: newRAM[string, *name](1 << 20)}
	b.names.put("n", &name{Num: 9, Name: "n", Meta: []byte("m")}, 10)
	e := entry{size: 5, flags: isComplete | isPublic}
	text := b.card(&e, &record{ID: content.ID{Size: 5}, Title: "x", Names: []string{"n"}})
	f.Add(text, int64(5), true)
	f.Add(encode(card{Entry: e.encode(), Record: &record{ID: content.ID{Size: 5}, Title: "x"}, Names: []*name{nil, {Num: 9, Name: "n"}}}), int64(5), true)
	f.Add(text, int64(-1), false)
	s := open(f, Config{})
	num := uint64(1 << 40)
	f.Fuzz(func(t *testing.T, text []byte, size int64, small bool) {
		num++
		place := disk.Place{}
		if small {
			place = disk.Place{Segment: 1, Off: 32, Len: 100}
		}
		if size < content.UnknownSize || small && (size < 0 || size > SmallObject) {
			return // the disk gives no such size
		}
		s.editing.Lock()
		ok := s.adoptOne(s.volumes[0], num, size, text, place)
		if ok {
			s.forget(num)
		}
		s.editing.Unlock()
		if s.used != 0 || !reflect.DeepEqual(s.objects, map[uint64]*entry{}) {
			t.Errorf("%d bytes are left in %d objects", s.used, len(s.objects))
		}
	})
}
