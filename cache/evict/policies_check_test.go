package evict

import (
	"strings"
	"testing"
)

// TestPolicies runs each policy over a sequence worked out by hand: objects of
// one byte, capitals of eight.
func TestPolicies(t *testing.T) {
	tests := []struct {
		policy   string
		capacity int64
		asked    string
		want     string // + hit, - miss
	}{
		{ours, 3, "abcadbefab", "---+----++"}, // b left small and came back to main
		{ours, 9, "aAaAaab", "--++++-"},       // all of it fits
		{"LRU", 3, "abcadba", "---+--+"},
		{"LRU", 9, "abAba", "---+-"},                                // A drives out a
		{"SIEVE", 3, "abcadefga", "---+----+"},                      // the hand has passed a
		{"S3-FIFO by count", 3, "abcaadecadcbac", "---++---+-+-++"}, // a by two hits, c and d as ghosts
		{"ARC", 2, "aabcda", "-+---+"},                              // a scan spares what was hit
		{"ARC", 2, "abacbca", "--+--+-"},                            // the target moves up and down
		{"GDSF", 10, "AbcbddAcdb", "---+-+--++"},                    // the large one goes first, then the one without a hit
	}
	for _, test := range tests {
		p := named(t, test.policy)(test.capacity)
		var got strings.Builder
		for _, c := range test.asked {
			size := int64(1)
			if c < 'a' {
				size = 8
			}
			if p.access(uint32(c), size) {
				got.WriteByte('+')
			} else {
				got.WriteByte('-')
			}
		}
		if got.String() != test.want {
			t.Errorf("%s of %d: %s gives %s, want %s", test.policy, test.capacity, test.asked, &got, test.want)
		}
	}
}

// TestTooLarge: what does not fit is not taken in and drives nothing out.
func TestTooLarge(t *testing.T) {
	for _, p := range policies {
		c := p.make(10)
		c.access('a', 10)
		for range 2 {
			if c.access('b', 11) {
				t.Errorf("%s took in more than it has room for", p.name)
			}
		}
		if !c.access('a', 10) {
			t.Errorf("%s drove out an object for one that does not fit", p.name)
		}
	}
}

func named(t *testing.T, name string) func(int64) policy {
	for _, p := range policies {
		if p.name == name {
			return p.make
		}
	}
	t.Fatalf("no policy %q", name)
	return nil
}

func TestRead(t *testing.T) {
	tr, err := read(strings.NewReader("# time key size\n1 a 10\n2.5 b 3\n\n3 a 11\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []request{{0, 10}, {1, 3}, {0, 10}}
	if len(tr.requests) != 3 || [3]request(tr.requests) != [3]request(want) || tr.footprint != 13 || tr.keys != 2 || tr.once != 1 {
		t.Errorf("read %+v", tr)
	}
	for _, bad := range []string{"1 a", "1 a 2 3", "1 a x", "1 a -1"} {
		if _, err := read(strings.NewReader("1 a 1\n" + bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestGenerate: the same seed draws the same trace, another one another, and
// the parts that the issue names are there.
func TestGenerate(t *testing.T) {
	s := shape{objects: 2000, requests: 6000}
	a, b, c := generate(1, s), generate(1, s), generate(2, s)
	if len(a.requests) != len(b.requests) || a.footprint != b.footprint || a.requests[5000] != b.requests[5000] {
		t.Error("one seed drew two traces")
	}
	if a.footprint == c.footprint {
		t.Error("two seeds drew one trace")
	}
	if share := float64(a.once) / float64(a.keys); share < oneHit-0.02 || share > oneHit+0.02 {
		t.Errorf("%.3f of the objects are asked for once, want %.2f", share, oneHit)
	}
}
