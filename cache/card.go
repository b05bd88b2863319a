package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// card is what lies beside a body, so that the index can be made again from it.
// The first builds wrote it as JSON.
type card struct {
	Entry  []byte  `json:"entry"`
	Record *record `json:"record"`
	Names  []*name `json:"names"`
}

// card writes an object's card: form, entry, record and names, each with its
// length before it. What does not fit goes first from the names. The entry is a
// copy, or Store.mu is held.
func (b *books) card(e *entry, r *record) []byte {
	lean := *r
	lean.From, lean.Served, lean.Parts, lean.Names = nil, nil, nil, nil
	text := packCard(e, &lean)
	if len(text) > maxCard {
		lean.Title, lean.Vouched = "", ""
		text = packCard(e, &lean)
	}
	for _, called := range r.Names {
		n := b.named(called)
		if n == nil {
			continue
		}
		packed := n.encode()
		if len(text)+binary.MaxVarintLen16+len(packed) <= maxCard {
			text = appendText(text, string(packed))
		}
	}
	return text
}

func packCard(e *entry, r *record) []byte {
	text := append(make([]byte, 0, 512), packedForm)
	return appendText(appendText(text, string(e.encode())), string(r.encode()))
}

// maxCard is how long a card may be, in bytes.
const maxCard = 4000

var errCard = errors.New("card says nothing")

// readCard reads what card wrote. It came from a disk, not from the network,
// but may be of any age.
func readCard(text []byte) (*entry, *record, []*name, error) {
	c, err := unpackCard(text)
	if err != nil || c.Record == nil {
		return nil, nil, nil, errCard
	}
	e := new(entry)
	if _, err := e.decode(numKey(entryPrefix, 0), c.Entry); err != nil {
		return nil, nil, nil, err
	}
	if e.is(isComplete) && c.Record.ID != (content.ID{}) && c.Record.ID.Size != e.size {
		return nil, nil, nil, errors.New("card contradicts itself")
	}
	names := slices.DeleteFunc(c.Names, func(n *name) bool { return n == nil || checkName(n.Name, n.Meta) != nil })
	return e, c.Record, names, nil
}

// unpackCard takes a card apart.
func unpackCard(text []byte) (c card, err error) {
	if len(text) == 0 || text[0] != packedForm {
		return c, json.Unmarshal(text, &c)
	}
	p := packed{rest: text[1:]}
	c.Entry = p.take(p.uvarint())
	if c.Record, err = decodeRecord(p.take(p.uvarint())); err != nil {
		return c, err
	}
	for len(p.rest) > 0 {
		n, err := decodeName(p.take(p.uvarint()))
		if err != nil {
			return c, err
		}
		c.Names = append(c.Names, n)
	}
	if p.bad {
		return c, errCard
	}
	return c, nil
}
