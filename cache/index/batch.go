package index

import (
	"bytes"
	"iter"
	"slices"
	"strings"
)

// Op is one operation of an Update: a value for a key, or its removal.
type Op struct {
	Key    []byte
	Value  []byte
	Delete bool // Value is ignored
}

// change is an Op that was accepted: a sealed record, or nil for a removal.
type change struct {
	key    string
	record []byte
}

// weight is what a change takes in memory and in Badger, in bytes, about.
func (c change) weight() int64 { return int64(len(c.key)+len(c.record)) + 32 }

// batch is what waits for the disk: Updates in order, none to be split. A later
// Update of the same keys takes the place of the earlier one, so that what is set
// over and over while the disk is away does not pile up.
type batch struct {
	updates [][]change
	latest  map[string]place
	bytes   int64
	done    int    // the first so many updates are in Badger
	seq     uint64 // Updates accepted when the batch was closed
}

type place struct{ update, op int }

func newBatch() *batch { return &batch{latest: map[string]place{}} }

// add takes an Update whose keys differ from each other.
func (b *batch) add(update []change) {
	at, known := b.latest[update[0].key]
	if known && b.sameKeys(at.update, update) {
		for i, c := range update {
			old := &b.updates[at.update][i]
			b.bytes += c.weight() - old.weight()
			*old = c
		}
		return
	}
	b.updates = append(b.updates, update)
	for i, c := range update {
		b.latest[c.key] = place{len(b.updates) - 1, i}
		b.bytes += c.weight()
	}
}

// sameKeys tells that an update holds just these keys, and is the latest to do so.
func (b *batch) sameKeys(at int, update []change) bool {
	if len(b.updates[at]) != len(update) {
		return false
	}
	for i, c := range update {
		if b.latest[c.key] != (place{at, i}) {
			return false
		}
	}
	return true
}

// get is what the batch has for key; a nil record is a removal.
func (b *batch) get(key []byte) (record []byte, ok bool) {
	if b == nil {
		return nil, false
	}
	at, ok := b.latest[string(key)]
	if !ok {
		return nil, false
	}
	return b.updates[at.update][at.op].record, true
}

// next takes whole updates off the front, for one transaction, and says how many
// they are.
func (b *batch) next(bytes int64, ops int) (take []change, updates int) {
	weight := int64(0)
	for _, u := range b.updates[b.done:] {
		if weight >= bytes || len(take) >= ops {
			break
		}
		for _, c := range u {
			weight += c.weight()
		}
		take = append(take, u...)
		updates++
	}
	return take, updates
}

// within is the latest changes in the range, sorted; those of newer come before
// those of older.
func within(newer, older *batch, from, to []byte) []change {
	var out []change
	for _, b := range []*batch{newer, older} {
		if b == nil {
			continue
		}
		for key, at := range b.latest {
			if key < string(from) || to != nil && key >= string(to) {
				continue
			}
			if b == older && newer != nil {
				if _, shadowed := newer.latest[key]; shadowed {
					continue
				}
			}
			out = append(out, b.updates[at.update][at.op])
		}
	}
	slices.SortFunc(out, func(a, b change) int { return strings.Compare(a.key, b.key) })
	return out
}

// pair is a key and its sealed record. A nil record is a removal.
type pair struct{ key, record []byte }

// over merges changes over stored pairs, both sorted.
func over(changes []change, stored iter.Seq[pair]) iter.Seq[pair] {
	return func(yield func(pair) bool) {
		rest := changes
		for p := range stored {
			for len(rest) > 0 && rest[0].key < string(p.key) {
				if !rest[0].yield(yield) {
					return
				}
				rest = rest[1:]
			}
			if len(rest) > 0 && bytes.Equal([]byte(rest[0].key), p.key) {
				continue // the change comes in its turn
			}
			if !yield(p) {
				return
			}
		}
		for _, c := range rest {
			if !c.yield(yield) {
				return
			}
		}
	}
}

func (c change) yield(yield func(pair) bool) bool {
	return c.record == nil || yield(pair{[]byte(c.key), c.record})
}
