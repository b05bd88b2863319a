package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// record is what the index keeps of an object for people and for merges. One
// that was read or saved is never changed: clone it first.
type record struct {
	ID       content.ID       `json:"id,omitzero"`
	Promised content.ID       `json:"promised,omitzero"`
	Title    string           `json:"title"`
	Vouched  string           `json:"vouched,omitempty"` // by whom
	Created  time.Time        `json:"created"`
	Names    []string         `json:"names,omitempty"`
	From     map[string]int64 `json:"from,omitempty"`
	Served   map[string]int64 `json:"served,omitempty"`
	Parts    []Part           `json:"parts,omitempty"`
}

// Part is a range of an object and the Source that brought it.
type Part struct {
	content.Range
	Source string `json:"source"`
}

// name is what a name stands for.
type name struct {
	Num  uint64 `json:"num"`
	Name string `json:"name"`
	Meta []byte `json:"meta,omitempty"`
}

// Records and names are most of what the index has: there they begin with
// packedForm and say nothing twice. A text is its length and its bytes, a number
// a varint. In cards, and in the indexes of the first builds, they are JSON.
const packedForm = 1

// What a record has; the rest it says by a length of zero.
const (
	hasID byte = 1 << iota
	hasPromised
	hasCreated
)

// encode writes a record: form, what it has, identities, title (the place of the
// name that it is, from 1, or 0 and the text), who vouches, creation in
// nanoseconds, names, figures by source and by outlet, parts (their sources as
// the title: by the place in the figures).
func (r *record) encode() []byte {
	has := byte(0)
	b := append(make([]byte, 0, 256), packedForm, 0)
	for i, id := range []content.ID{r.ID, r.Promised} {
		if id != (content.ID{}) {
			has |= hasID << i
			b = binary.AppendVarint(append(b, id.Root[:]...), id.Size)
		}
	}
	b = appendText(appendOneOf(b, r.Title, r.Names), r.Vouched)
	if !r.Created.IsZero() {
		has |= hasCreated
		b = binary.AppendVarint(b, r.Created.UnixNano())
	}
	b[1] = has
	b = binary.AppendUvarint(b, uint64(len(r.Names)))
	for _, called := range r.Names {
		b = appendText(b, called)
	}
	sources := slices.Sorted(maps.Keys(r.From))
	b = appendCounts(b, sources, r.From)
	b = appendCounts(b, slices.Sorted(maps.Keys(r.Served)), r.Served)
	b = binary.AppendUvarint(b, uint64(len(r.Parts)))
	for _, p := range r.Parts {
		b = binary.AppendVarint(binary.AppendVarint(b, p.Off), p.End)
		b = appendOneOf(b, p.Source, sources)
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// appendOneOf writes a text that may be among others.
func appendOneOf(b []byte, text string, of []string) []byte {
	if i := slices.Index(of, text); i >= 0 {
		return binary.AppendUvarint(b, uint64(i+1))
	}
	return appendText(append(b, 0), text)
}

func appendCounts(b []byte, keys []string, counts map[string]int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, key := range keys {
		b = binary.AppendVarint(appendText(b, key), counts[key])
	}
	return b
}

var errRecord = errors.New("record makes no sense")

// decodeRecord reads what encode wrote, or JSON.
func decodeRecord(value []byte) (*record, error) {
	r := new(record)
	if len(value) < 2 || value[0] != packedForm {
		return r, json.Unmarshal(value, r)
	}
	has, p := value[1], packed{rest: value[2:]}
	for i, id := range []*content.ID{&r.ID, &r.Promised} {
		if has&(hasID<<i) != 0 {
			copy(id.Root[:], p.take(uint64(len(id.Root))))
			id.Size = p.varint()
		}
	}
	title, at := p.oneOf()
	r.Vouched = p.text()
	if has&hasCreated != 0 {
		r.Created = time.Unix(0, p.varint())
	}
	for range p.count() {
		r.Names = append(r.Names, p.text())
	}
	r.Title = p.resolve(title, at, r.Names)
	var sources []string
	r.From, sources = p.counts()
	r.Served, _ = p.counts()
	for range p.count() {
		part := Part{Range: content.Range{Off: p.varint(), End: p.varint()}}
		source, at := p.oneOf()
		part.Source = p.resolve(source, at, sources)
		r.Parts = append(r.Parts, part)
	}
	if p.bad || len(p.rest) > 0 {
		return r, errRecord
	}
	return r, nil
}

// encode writes a name: form, number, the name, what is kept with it.
func (n *name) encode() []byte {
	b := append(make([]byte, 0, 16+len(n.Name)+len(n.Meta)), packedForm)
	b = appendText(binary.AppendUvarint(b, n.Num), n.Name)
	return append(b, n.Meta...)
}

// decodeName reads what encode wrote, or JSON.
func decodeName(value []byte) (*name, error) {
	n := new(name)
	if len(value) < 2 || value[0] != packedForm {
		return n, json.Unmarshal(value, n)
	}
	p := packed{rest: value[1:]}
	n.Num, n.Name = p.uvarint(), p.text()
	if n.Meta = slices.Clone(p.rest); len(n.Meta) == 0 {
		n.Meta = nil
	}
	if p.bad {
		return n, errRecord
	}
	return n, nil
}

// packed is what is left to read of a record. After the first fault it gives
// zeros, and bad is set.
type packed struct {
	rest []byte
	bad  bool
}

func (p *packed) fail() { p.rest, p.bad = nil, true }

func (p *packed) take(n uint64) []byte {
	if n > uint64(len(p.rest)) {
		p.fail()
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *packed) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *packed) varint() int64 {
	v, n := binary.Varint(p.rest)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *packed) text() string { return string(p.take(p.uvarint())) }

// count is how many items follow; each takes a byte at least.
func (p *packed) count() int {
	n := p.uvarint()
	if n > uint64(len(p.rest)) {
		p.fail()
		return 0
	}
	return int(n)
}

// oneOf reads a text, or its place among others, from 1; see resolve.
func (p *packed) oneOf() (text string, at uint64) {
	if at = p.uvarint(); at == 0 {
		text = p.text()
	}
	return text, at
}

func (p *packed) resolve(text string, at uint64, of []string) string {
	switch {
	case at == 0:
		return text
	case at > uint64(len(of)):
		p.fail()
		return ""
	}
	return of[at-1]
}

func (p *packed) counts() (counts map[string]int64, keys []string) {
	n := p.count()
	if n == 0 {
		return nil, nil
	}
	counts = map[string]int64{}
	for range n {
		key := p.text()
		keys = append(keys, key)
		counts[key] = p.varint()
	}
	return counts, keys
}

// clone gives a record that may be changed.
func (r *record) clone() *record {
	c := *r
	c.Names = slices.Clone(r.Names)
	c.From, c.Served = cloneCounts(r.From), cloneCounts(r.Served)
	c.Parts = slices.Clone(r.Parts)
	return &c
}

func cloneCounts(m map[string]int64) map[string]int64 {
	c := make(map[string]int64, len(m)+1)
	for k, v := range m {
		c[k] = v
	}
	return c
}

// add notes one more name, and returns those that it pushes out.
func (r *record) add(called string) (pushed []string) {
	if slices.Contains(r.Names, called) {
		return nil
	}
	r.Names = append(r.Names, called)
	bytes := 0
	for _, n := range r.Names {
		bytes += len(n)
	}
	for len(r.Names) > maxNames || bytes > maxNameBytes {
		bytes -= len(r.Names[0])
		pushed, r.Names = append(pushed, r.Names[0]), r.Names[1:]
	}
	return pushed
}
