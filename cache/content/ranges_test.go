package content_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// span is how many bytes the naive model has.
const span = 64

// model is a set of bytes as a bitmap.
type model [span]bool

func (m *model) set(r content.Range, to bool) {
	for i := max(r.Off, 0); i < min(r.End, span); i++ {
		m[i] = to
	}
}

// runs lists the runs of bytes within r that are, or are not, in the set.
func (m *model) runs(r content.Range, want bool) []content.Range {
	var out []content.Range
	for i := r.Off; i < r.End; i++ {
		if m[i] != want {
			continue
		}
		if n := len(out); n > 0 && out[n-1].End == i {
			out[n-1].End++
			continue
		}
		out = append(out, content.Range{Off: i, End: i + 1})
	}
	return out
}

// against compares a set with the model in every way it can be asked.
func against(t *testing.T, set content.Ranges, m *model, r content.Range) {
	t.Helper()
	whole := content.Range{End: span}
	if want := m.runs(whole, true); !slices.Equal([]content.Range(set), want) {
		t.Fatalf("set is %v, want %v", set, want)
	}
	if got, want := set.Within(r), m.runs(r, true); !slices.Equal(got, want) {
		t.Fatalf("%v within %s: %v, want %v", set, r, got, want)
	}
	if got, want := set.Without(r), m.runs(r, false); !slices.Equal(got, want) {
		t.Fatalf("%s without %v: %v, want %v", r, set, got, want)
	}
	if got, want := set.Covers(r), len(m.runs(r, false)) == 0; got != want {
		t.Fatalf("%v covers %s: %v, want %v", set, r, got, want)
	}
	from := r.Off
	for from < span && m[from] {
		from++
	}
	if got := set.From(r.Off); got != from {
		t.Fatalf("%v from %d: %d, want %d", set, r.Off, got, from)
	}
	var n int64
	for _, in := range m {
		if in {
			n++
		}
	}
	if set.Len() != n {
		t.Fatalf("%v has %d bytes, want %d", set, set.Len(), n)
	}
}

func TestRangesAgainstBitmap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var set content.Ranges
		var m model
		for range 40 {
			a, b := rng.Int64N(span+1), rng.Int64N(span+1) // turned around half of the time: empty
			r := content.Range{Off: a, End: b}
			add := rng.IntN(5) > 1
			if add {
				set.Add(r)
			} else {
				set.Remove(r)
			}
			if r.Len() > 0 {
				m.set(r, add)
			}
			q := content.Range{Off: rng.Int64N(span), End: rng.Int64N(span + 1)}
			against(t, set, &m, q)
		}
	}
}

func FuzzRanges(f *testing.F) {
	f.Add([]byte{0, 10, 1, 5, 7, 0, 5, 7, 1})
	f.Add([]byte{0, 64, 1, 0, 64, 0, 63, 64, 1, 9, 3, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var set content.Ranges
		var m model
		for ; len(ops) >= 3; ops = ops[3:] {
			r := content.Range{Off: int64(ops[0] % span), End: int64(ops[1] % (span + 1))}
			if ops[2]%2 == 1 {
				set.Add(r)
			} else {
				set.Remove(r)
			}
			m.set(r, ops[2]%2 == 1)
			against(t, set, &m, r)
		}
	})
}

func TestRangesToTheEndOfTime(t *testing.T) {
	all := content.Range{End: math.MaxInt64}
	var set content.Ranges
	set.Add(content.Range{Off: math.MaxInt64 - 1, End: math.MaxInt64})
	set.Add(content.Range{Off: 0, End: 5})
	if gaps := set.Without(all); len(gaps) != 1 || gaps[0] != (content.Range{Off: 5, End: math.MaxInt64 - 1}) {
		t.Errorf("gaps are %v", gaps)
	}
	set.Add(all)
	if !set.Covers(all) || len(set) != 1 {
		t.Errorf("set is %v", set)
	}
	set.Remove(all)
	if len(set) != 0 {
		t.Errorf("set is %v, want nothing", set)
	}
}

func TestRange(t *testing.T) {
	r := content.Range{Off: 5, End: 9}
	if r.Len() != 4 || r.String() != "[5,9)" || (content.Range{Off: 9, End: 5}).Len() != 0 {
		t.Error("a range is told wrongly")
	}
	if got := r.Clip(content.Range{Off: 7, End: 20}); got != (content.Range{Off: 7, End: 9}) {
		t.Errorf("clipped to %v", got)
	}
	if got := r.Clip(content.Range{Off: 20, End: 30}); got.Len() != 0 {
		t.Errorf("ranges apart share %v", got)
	}
}
