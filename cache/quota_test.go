package cache

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// services is what each service has, by its name.
func services(s *Store) map[string]int64 {
	have := map[string]int64{}
	for _, svc := range s.Stats().Services {
		have[svc.Name] = svc.Bytes
	}
	return have
}

var twoQuotas = []Quota{
	{Name: "a", Match: []string{"a.example", "*.a.example"}, MaxBytes: 4 * mib},
	{Name: "b", Match: []string{"b.example", "*.a.example"}, MaxBytes: 100 * mib}, // more than the store has
}

// TestQuotas: a service over its quota evicts its own, one without evicts whoever
// was idle the longest, and a quota larger than the store changes nothing.
func TestQuotas(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 12 * mib, Quotas: twoQuotas})
	a := make([]uint64, 6)
	other, b := put(t, s, "http://other.example/x", noise(850, 2*mib)), put(t, s, "http://b.example/x", noise(851, 2*mib))
	for i := range a {
		a[i] = put(t, s, fmt.Sprintf("http://dl.a.example/%d", i), noise(uint64(860+i), mib))
	}
	if have := services(s); have["a"] != 4*mib || have["b"] != 2*mib || have[""] != 2*mib || !has(s, other) || !has(s, b) {
		t.Errorf("services have %v", have)
	}
	if has(s, a[0]) || has(s, a[1]) || !has(s, a[5]) {
		t.Error("another than the oldest of the service went")
	}
	if err := s.Pin(a[5], true); err != nil {
		t.Fatal(err)
	}
	before := s.Stats().Objects
	for _, size := range []int64{4 * mib, 5 * mib} {
		_, err := s.Create(Spec{Object: content.Object{Size: size}}, "http://a.example/huge", nil)
		if !errors.Is(err, content.ErrFull) || !strings.Contains(err.Error(), "quota of a") || s.Stats().Objects != before {
			t.Errorf("%d bytes for a service whose rest is pinned: %v, %d objects", size, err, s.Stats().Objects)
		}
	}
	big := create(t, s, "http://b.example/big", content.Object{Size: 10 * mib})
	if have := services(s); have["b"] != 10*mib || s.Stats().Bytes > 12*mib || !has(s, a[5]) {
		t.Errorf("services have %v", have)
	}
	if err := s.Evict(big.Num()); err != nil {
		t.Fatal(err)
	}
	balance(t, s)
}

// TestQuotaOfUnknownSize: an object that grows counts for its service.
func TestQuotaOfUnknownSize(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 100 * mib, Quotas: twoQuotas})
	old, other := put(t, s, "http://a.example/old", noise(870, mib)), put(t, s, "http://other.example/x", noise(871, mib))
	f := create(t, s, "http://a.example/new", content.Object{Size: content.UnknownSize})
	g := make(gate)
	f.Start(g.source())
	data := noise(872, 6*mib)
	g.bring(t, data, 0, 3*mib+1)
	if err := s.grow(f.num, 3*mib+1); err != nil || has(s, old) || !has(s, other) {
		t.Errorf("grown: %v, old is here %v, other %v", err, has(s, old), has(s, other))
	}
	if err := s.grow(f.num, 5*mib); !errors.Is(err, content.ErrFull) || !has(s, other) {
		t.Errorf("grown beyond the quota: %v", err)
	}
	g.do(func(sink content.Sink) {
		if err := sink.SetSize(6 * mib); !errors.Is(err, content.ErrFull) {
			t.Errorf("a size beyond the quota was taken: %v", err)
		}
	})
	f.stop(errUnwanted)
	<-f.Done()
	balance(t, s)
}

// TestQuotaOfSmallObjects: a service of small objects makes room for new ones
// within its quota.
func TestQuotaOfSmallObjects(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 100 * mib, Quotas: []Quota{{Name: "a", Match: []string{"a.example"}, MaxBytes: 50_000}}})
	others := putMany(t, s, "http://other.example/", 10, 4000)
	mine := putMany(t, s, "http://a.example/", 20, 4000)
	if have := services(s); have["a"] > 50_000 || have["a"] < 40_000 || have[""] != 40_000 {
		t.Errorf("services have %v", have)
	}
	if has(s, mine[0]) || !has(s, mine[19]) || !has(s, others[0]) {
		t.Error("others than the oldest of the service went")
	}
	balance(t, s)
	s = reopen(t, s)
	wantObject(t, s, "http://a.example/19", noise(ghostOf("http://a.example/")+19, 4000))
	if has(s, mine[0]) {
		t.Error("an evicted object is back")
	}
	balance(t, s)
}

// TestQuotasChange: at a restart services keep their objects whatever their
// places are; a smaller quota is enforced, one that is gone counts no more.
func TestQuotasChange(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 50 * mib, Quotas: []Quota{
		{Name: "a", Match: []string{"a.example"}, MaxBytes: 10 * mib}, {Name: "b", Match: []string{"b.example"}, MaxBytes: 10 * mib},
	}})
	for i := range 5 {
		put(t, s, fmt.Sprintf("http://a.example/%d", i), noise(uint64(880+i), mib))
		put(t, s, fmt.Sprintf("http://b.example/%d", i), noise(uint64(890+i), mib))
	}
	for _, c := range []struct {
		quotas []Quota
		want   map[string]int64
	}{
		{[]Quota{{"c", []string{"c.example"}, mib}, {"b", []string{"b.example"}, 2 * mib}, {"a", []string{"a.example"}, 10 * mib}}, map[string]int64{"a": 5 * mib, "b": 2 * mib}},
		{[]Quota{{"b", []string{"b.example"}, 2 * mib}}, map[string]int64{"a": 5 * mib, "b": 2 * mib}},
		{[]Quota{{"a", []string{"a.example"}, mib}}, map[string]int64{"a": mib, "b": 2 * mib}},
		{nil, map[string]int64{"a": mib, "b": 2 * mib}},
	} {
		cfg := s.cfg
		cfg.Quotas = c.quotas
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		s.tidy()
		have := services(s)
		for name, want := range c.want {
			if have[name] != want {
				t.Errorf("with %v services have %v", c.quotas, have)
			}
		}
		balance(t, s)
	}
}

// TestPins: what is pinned stays whatever room is needed, through restarts, until
// it is let go, evicted by name or taken down.
func TestPins(t *testing.T) {
	t.Parallel()
	s := open(t, Config{MaxBytes: 6 * mib})
	large, small := put(t, s, "large", noise(900, 2*mib)), put(t, s, "small", noise(901, 4000))
	if err := errors.Join(s.Pin(large, true), s.Pin(small, true), s.Pin(large, true)); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for i := range 4 {
			put(t, s, fmt.Sprint(round, i), noise(uint64(910+10*round+i), 2*mib))
		}
		wantObject(t, s, "large", noise(900, 2*mib))
		wantObject(t, s, "small", noise(901, 4000))
		s = reopen(t, s)
	}
	if _, err := s.Create(Spec{Object: content.Object{Size: 5 * mib}}, "x", nil); !errors.Is(err, content.ErrFull) {
		t.Errorf("a pin gave way: %v", err)
	}
	if err := s.Pin(large, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Evict(create(t, s, "x", content.Object{Size: 5 * mib}).Num()); err != nil || has(s, large) {
		t.Errorf("what was let go did not leave: %v", err)
	}
	balance(t, s)
}

// TestEvictMatching: by pattern, pinned ones and ones on their way in too.
func TestEvictMatching(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	names := []string{"http://a.example/x", "http://a.example/y", "http://b.example/x", "btih:0123/file"}
	var nums []uint64
	for i, name := range names {
		nums = append(nums, put(t, s, name, noise(uint64(940+i), []int64{4000, mib}[i%2])))
	}
	if err := errors.Join(s.Pin(nums[0], true), s.SetName(nums[0], "http://a.example/again", nil)); err != nil {
		t.Fatal(err)
	}
	f := create(t, s, "http://a.example/running", content.Object{Size: 2 * mib})
	f.Start(make(gate).source())
	for _, pattern := range []string{"", "*", "*/*"} {
		if _, _, err := s.EvictMatching(pattern); err == nil {
			t.Errorf("%q was evicted", pattern)
		}
	}
	objects, bytes, err := s.EvictMatching("a.example")
	if err != nil || objects != 3 || bytes != 4000+mib+2*mib {
		t.Errorf("evicted %d objects of %d bytes, %v", objects, bytes, err)
	}
	if n, _, err := s.EvictMatching("a.example"); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	if n, _, err := s.EvictMatching("btih:01*"); n != 1 || err != nil || !has(s, nums[2]) || s.Stats().Objects != 1 {
		t.Errorf("by infohash: %d, %v", n, err)
	}
	balance(t, s)
}

// TestExplain: what people are told is so.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Quotas: twoQuotas})
	data := noise(950, 2*mib)
	layer, id := proof(t, data)
	spec := Spec{Object: content.Object{ID: id, Size: id.Size, Layer: layer, Trust: content.TrustPieces}, Title: "x", Public: true, Vouched: "a torrent"}
	f, err := s.Create(spec, "http://a.example/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := make(gate)
	f.Start(g.source())
	g.bring(t, data, mib, 2*mib)
	explain := func(num uint64, wants ...string) Explanation {
		t.Helper()
		x, err := s.Explain(num)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(x.Eviction+"; "+x.Vouched, want) {
				t.Errorf("%q is not in %q, %q", want, x.Eviction, x.Vouched)
			}
		}
		return x
	}
	x := explain(f.Num(), "not while it is being filled", "every piece is proved", "a torrent")
	if len(x.Here) != 1 || x.Here[0] != (content.Range{Off: mib, End: 2 * mib}) || !x.Filling || x.Volume != s.cfg.Dir {
		t.Errorf("explained as %+v", x)
	}
	g.bring(t, data, 0, mib)
	close(g)
	<-f.Done()
	x = explain(f.Num(), "when a (2097152 of 4194304 bytes) needs room", "small queue", "every piece was proved")
	if len(x.Here) != 1 || x.Here[0].Len() != 2*mib || x.Checked != 2*mib {
		t.Errorf("explained as %+v", x)
	}
	s = reopen(t, s)
	num := f.Num()
	r, err := s.Read(num)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, r, data, content.Range{End: 10})
	r.Close()
	if x = explain(num, "asked for 1 times"); x.Checked != mib {
		t.Errorf("%d bytes are said to be checked", x.Checked)
	}
	if err := s.Pin(num, true); err != nil {
		t.Fatal(err)
	}
	explain(num, "never: it is pinned")
	small := put(t, s, "small", noise(951, 4000))
	if x = explain(small, "with its segment", "goes with it", "nothing but the connection"); !x.Small {
		t.Error("a small object is not told as one")
	}
	wantObject(t, s, "small", noise(951, 4000))
	explain(small, "moves on")
	if _, err := s.Explain(99 << 40); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not here was explained: %v", err)
	}
}
