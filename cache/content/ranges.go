package content

import (
	"fmt"
	"slices"
	"sort"
)

// Range is the bytes from Off up to but not including End.
type Range struct{ Off, End int64 }

// Len is the number of bytes in the range; 0 if it is empty or turned around.
func (r Range) Len() int64 { return max(0, r.End-r.Off) }

// String is "[Off,End)".
func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Off, r.End) }

// Clip is the part of r that lies within other; its Len is 0 if they are apart.
func (r Range) Clip(other Range) Range {
	return Range{Off: max(r.Off, other.Off), End: min(r.End, other.End)}
}

// Ranges is a set of bytes: ranges in order, apart from each other and none
// empty. The zero value is the empty set. It is not safe for concurrent use.
type Ranges []Range

// Add puts the bytes of r into the set.
func (s *Ranges) Add(r Range) {
	if r.Len() == 0 {
		return
	}
	set := *s
	i := sort.Search(len(set), func(i int) bool { return set[i].End >= r.Off })
	j := i
	for ; j < len(set) && set[j].Off <= r.End; j++ {
		r.Off = min(r.Off, set[j].Off)
		r.End = max(r.End, set[j].End)
	}
	*s = slices.Replace(set, i, j, r)
}

// Remove takes the bytes of r out of the set.
func (s *Ranges) Remove(r Range) {
	if r.Len() == 0 {
		return
	}
	set := *s
	i := sort.Search(len(set), func(i int) bool { return set[i].End > r.Off })
	j := i
	var left []Range
	for ; j < len(set) && set[j].Off < r.End; j++ {
		if set[j].Off < r.Off {
			left = append(left, Range{set[j].Off, r.Off})
		}
		if set[j].End > r.End {
			left = append(left, Range{r.End, set[j].End})
		}
	}
	*s = slices.Replace(set, i, j, left...)
}

// Covers reports whether all of r is in the set. The empty range always is.
func (s Ranges) Covers(r Range) bool {
	if r.Len() == 0 {
		return true
	}
	return s.From(r.Off) >= r.End
}

// From is how far the set reaches without a gap from off: off itself if the
// byte there is not in the set.
func (s Ranges) From(off int64) int64 {
	i := sort.Search(len(s), func(i int) bool { return s[i].End > off })
	if i < len(s) && s[i].Off <= off {
		return s[i].End
	}
	return off
}

// Without lists the parts of r that are not in the set, in order.
func (s Ranges) Without(r Range) []Range {
	var gaps []Range
	i := sort.Search(len(s), func(i int) bool { return s[i].End > r.Off })
	for ; i < len(s) && s[i].Off < r.End; i++ {
		if s[i].Off > r.Off {
			gaps = append(gaps, Range{r.Off, s[i].Off})
		}
		r.Off = s[i].End
	}
	if r.Len() > 0 {
		gaps = append(gaps, r)
	}
	return gaps
}

// Within lists the parts of r that are in the set, in order.
func (s Ranges) Within(r Range) []Range {
	var parts []Range
	i := sort.Search(len(s), func(i int) bool { return s[i].End > r.Off })
	for ; i < len(s) && s[i].Off < r.End; i++ {
		if part := s[i].Clip(r); part.Len() > 0 {
			parts = append(parts, part)
		}
	}
	return parts
}

// Len is how many bytes the set has.
func (s Ranges) Len() int64 {
	var n int64
	for _, r := range s {
		n += r.Len()
	}
	return n
}
