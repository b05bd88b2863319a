package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// card is what lies beside a body, so that the index can be made again from it.
type card struct {
	Entry  []byte  `json:"entry"`
	Record *record `json:"record"`
	Names  []*name `json:"names"`
}

// card writes an object's card; what does not fit goes first from the names. The
// entry is a copy, or Store.mu is held.
func (b *books) card(e *entry, r *record) []byte {
	lean := *r
	lean.From, lean.Served, lean.Parts, lean.Names = nil, nil, nil, nil
	c := card{Entry: e.encode(), Record: &lean}
	text := encode(c)
	if len(text) > maxCard {
		lean.Title, lean.Vouched = "", ""
		text = encode(c)
	}
	for _, called := range r.Names {
		n := b.named(called)
		if n == nil {
			continue
		}
		c.Names = append(c.Names, n)
		more := encode(c)
		if len(more) > maxCard {
			c.Names = c.Names[:len(c.Names)-1]
			continue
		}
		text = more
	}
	return text
}

// maxCard is how long a card may be, in bytes.
const maxCard = 4000

// readCard reads what card wrote. It came from a disk, not from the network,
// but may be of any age.
func readCard(text []byte) (*entry, *record, []*name, error) {
	var c card
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&c); err != nil || c.Record == nil {
		return nil, nil, nil, errors.New("card says nothing")
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
