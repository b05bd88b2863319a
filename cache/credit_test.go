package cache

import (
	"maps"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// TestCreditAfterResume: what was not durable when a fill was cut off is said of
// the Source that brings it again, once.
func TestCreditAfterResume(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(310, 4*mib)
	f := create(t, s, "a", content.Object{Size: int64(len(data))})
	num := f.Num()
	g := make(gate)
	f.Start(g.source())
	g.bring(t, data, 0, mib)
	g.bring(t, data, mib, mib+1000) // not a whole block: lost
	s = reopen(t, s)
	if info, _ := s.Get(num); info.From["gate"] != mib+1000 {
		t.Errorf("cut off: bytes came from %v", info.From)
	}
	f, err := s.OpenFill(num, nil)
	if err != nil {
		t.Fatal(err)
	}
	g = make(gate)
	f.Start(g.source(), from("friend", data, mib))
	if info, _ := s.Get(num); info.From["gate"] != mib {
		t.Errorf("resumed: bytes came from %v", info.From)
	}
	g.bring(t, data, mib, mib+1500)
	close(g)
	<-f.Done()
	want := map[string]int64{"gate": mib + 1500, "friend": 3*mib - 1500}
	if info, _ := s.Get(num); f.Err() != nil || !maps.Equal(info.From, want) {
		t.Errorf("%v: bytes came from %v, want %v", f.Err(), info.From, want)
	}
	// The totals count what came over the wire, also what came twice.
	want = map[string]int64{"gate": mib + 1000 + 1500, "friend": 3*mib - 1500}
	if got := s.Stats().Filled; !maps.Equal(got, want) {
		t.Errorf("in all came %v, want %v", got, want)
	}
	x, err := s.Explain(num)
	if err != nil || len(x.Parts) != 2 || x.Parts[0] != (Part{content.Range{End: mib + 1500}, "gate"}) || x.Parts[1] != (Part{content.Range{Off: mib + 1500, End: 4 * mib}, "friend"}) {
		t.Errorf("parts are %v, %v", x.Parts, err)
	}
	balance(t, s)
}

// TestManyParts: ranges that are too many to be told apart are told roughly, and
// counted exactly.
func TestManyParts(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(311, mib)
	f := create(t, s, "a", content.Object{Size: mib})
	g := make(gate)
	h := make(gate)
	f.Start(g.source())
	odd := h.source()
	odd.name = "other"
	f.Join(odd)
	const step = mib / 1024
	for i := int64(0); i < 1024; i += 2 {
		g.bring(t, data, i*step, (i+1)*step)
		h.bring(t, data, (i+1)*step, (i+2)*step)
	}
	x, err := s.Explain(f.Num())
	if err != nil || len(x.Parts) == 0 || len(x.Parts) > maxParts || x.From["other"] != mib/2 {
		t.Errorf("%d parts, %v, %v", len(x.Parts), x.From, err)
	}
	at := int64(0)
	for _, p := range x.Parts {
		if p.Off < at || p.End <= p.Off {
			t.Fatalf("parts are %v", x.Parts)
		}
		at = p.End
	}
	if at != mib {
		t.Errorf("parts end at %d", at)
	}
	close(g)
	close(h)
	<-f.Done()
	if info, _ := s.Get(f.Num()); f.Err() != nil || info.From["other"] != mib/2 {
		t.Errorf("%v, bytes came from %v", f.Err(), info.From)
	}
}
