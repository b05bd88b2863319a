package cache

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

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
	if err := s.SetName(num, strings.Repeat("\x01", maxName), make([]byte, maxMeta)); err == nil {
		t.Error("a name that fills the index was taken")
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
	f.Add(encode(record{Title: "x", Names: []string{"a"}, Parts: []Part{{content.Range{End: 5}, "s"}}}))
	f.Add([]byte(`{"parts":[{"Off":-1,"End":-9}],"from":{"a":-1}}`))
	f.Add([]byte(`{"names":null,"from":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r, again record
		if json.Unmarshal(text, &r) != nil {
			return
		}
		c := r.clone()
		c.add("x")
		if err := json.Unmarshal(encode(c), &again); err != nil || len(again.Names) > maxNames {
			t.Errorf("%s became %d names, %v", text, len(again.Names), err)
		}
		e := entry{size: 5}
		b := &books{names: newRAM[string, *name](1 << 20)}
		r.Names = nil
		if card := b.card(&e, &r); len(r.Title) < 100 && len(card) > maxCard {
			t.Errorf("a card of %d bytes", len(card))
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("http://a.example/?a=b&c=<d>", []byte("meta"))
	f.Add("x\ny", []byte(nil))
	f.Add("\xff", []byte{0})
	f.Fuzz(func(t *testing.T, called string, meta []byte) {
		if checkName(called, meta) != nil {
			return
		}
		n := name{Num: 7, Name: called, Meta: meta}
		value := encode(n)
		var again name
		if err := json.Unmarshal(value, &again); err != nil || again.Name != called || string(again.Meta) != string(meta) || len(value) > index.MaxValue {
			t.Errorf("%q came back as %q, %v, in %d bytes", called, again.Name, err, len(value))
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
	f.Add([]byte(strings.Replace(string(text), `"names":[`, `"names":[null,`, 1)), int64(5), true)
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
