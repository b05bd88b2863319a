package cache

import (
	"cmp"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// maxParts bounds how finely a record says which Source brought what.
const maxParts = 256

// credit is what a Source has brought; f.mu is held.
func (f *Fill) credit(source string) *content.Ranges {
	r := f.brought[source]
	if r == nil {
		r = &content.Ranges{}
		f.brought[source] = r
	}
	return r
}

// discredit takes a range that turned out wrong from every Source; f.mu is
// held.
func (f *Fill) discredit(r content.Range) {
	for _, ranges := range f.brought {
		ranges.Remove(r)
	}
}

// from counts the bytes that are here by Source. Those of earlier fills that
// were too many parts to be told apart keep their count.
func (f *Fill) from() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts()
}

// counts is from; f.mu is held.
func (f *Fill) counts() map[string]int64 {
	sums := map[string]int64{}
	for source, n := range f.before {
		if f.brought[source] == nil && n > 0 {
			sums[source] = n
		}
	}
	for source, ranges := range f.brought {
		if n := ranges.Len(); n > 0 {
			sums[source] = n
		}
	}
	return sums
}

// parts lists which Source brought which range, in order. If that would be too
// fine, the object is cut into maxParts stretches, each said of the Source that
// brought most of it.
func (f *Fill) parts() []Part {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Part
	for source, ranges := range f.brought {
		for _, r := range *ranges {
			all = append(all, Part{r, source})
		}
	}
	if len(all) > maxParts {
		all = f.stretches()
	}
	slices.SortFunc(all, func(a, b Part) int { return cmp.Compare(a.Off, b.Off) })
	return all
}

// stretches is the coarse answer of parts; f.mu is held.
func (f *Fill) stretches() []Part {
	var all []Part
	end := f.arrived[len(f.arrived)-1].End
	step := (end-1)/maxParts + 1
	for off := int64(0); off < end; off += step {
		stretch := content.Range{Off: off, End: min(off+step, end)}
		most, best := int64(0), ""
		for source, ranges := range f.brought {
			n := content.Ranges(ranges.Within(stretch)).Len()
			if n > most || n == most && n > 0 && source < best {
				most, best = n, source
			}
		}
		if n := len(all); n > 0 && best == all[n-1].Source && all[n-1].End == off {
			all[n-1].End = stretch.End
		} else if most > 0 {
			all = append(all, Part{stretch, best})
		}
	}
	return all
}

// describe adds what only the fill knows to a snapshot.
func (f *Fill) describe(i *Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i.Filling = f.started && (!f.ending || f.isWhole())
	i.Size = f.size
	i.Readable = f.readable.Len()
	i.From = f.counts()
}
