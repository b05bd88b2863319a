package norm

import "math/bits"

// symbolSet is a set of the symbols of one block, ids 0 to 255.
type symbolSet [4]uint64

func (s *symbolSet) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s *symbolSet) remove(i int)   { s[i>>6] &^= 1 << (i & 63) }
func (s *symbolSet) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

// addRange adds the ids from first up to, not including, end.
func (s *symbolSet) addRange(first, end int) {
	for i := first; i < end; i++ {
		s.add(i)
	}
}

// clear removes the ids from first on.
func (s *symbolSet) clear(first int) {
	for i := s.next(first); i < 256; i = s.next(i + 1) {
		s.remove(i)
	}
}

// union adds all of t.
func (s *symbolSet) union(t *symbolSet) {
	for i := range s {
		s[i] |= t[i]
	}
}

// count is the number of ids from first up to, not including, end.
func (s *symbolSet) count(first, end int) int {
	n := 0
	for i := s.next(first); i < end; i = s.next(i + 1) {
		n++
	}
	return n
}

func (s *symbolSet) empty() bool { return *s == symbolSet{} }

// next is the first id in the set from i on, 256 if there is none.
func (s *symbolSet) next(i int) int {
	for w := i >> 6; w < len(s); w++ {
		word := s[w]
		if w == i>>6 {
			word &^= 1<<(i&63) - 1
		}
		if word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
	}
	return 256
}

// nextAbsent is the first id not in the set from i on, 256 if there is none.
func (s *symbolSet) nextAbsent(i int) int {
	t := symbolSet{^s[0], ^s[1], ^s[2], ^s[3]}
	return t.next(i)
}
