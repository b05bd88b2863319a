package norm

import (
	"fmt"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// parityCache keeps parity symbols that are likely to be asked for again:
// those of the blocks worked on last, up to a number of bytes. Parity is
// computed when it is first needed, the rows of a fec step at once.
type parityCache struct {
	limit, used int
	entries     map[parityKey][][]byte
	order       []parityKey // oldest first
	raw         []byte      // scratch for a block as it is read
	source      [][]byte    // scratch for its padded symbols
}

type parityKey struct {
	object ObjectID
	block  uint32
	first  int // row
}

func newParityCache(limit int) parityCache {
	return parityCache{limit: limit, entries: map[parityKey][][]byte{}}
}

// symbol gives a parity symbol as it goes on the wire: as long as the longest
// source symbol of its block.
func (c *parityCache) symbol(code *fec.Code, o *txObject, block uint32, row int) ([]byte, error) {
	first, end := code.Step(row)
	key := parityKey{o.id, block, first}
	rows := c.entries[key]
	if rows == nil {
		var err error
		if rows, err = c.compute(code, o, block, first, end); err != nil {
			return nil, err
		}
		c.keep(key, rows)
	}
	_, n := o.part.Span(int64(block), 0)
	return rows[row-first][:n], nil
}

func (c *parityCache) compute(code *fec.Code, o *txObject, block uint32, first, end int) ([][]byte, error) {
	raw, err := o.readSymbols(int64(block), 0, o.part.Len(int64(block)), c.raw)
	if err != nil {
		return nil, err
	}
	c.raw = raw
	stride := fec.Stride(o.part.Symbol)
	if c.source == nil {
		c.source = fec.Buffers(code.K(), stride)
	}
	source := c.source[:o.part.Len(int64(block))]
	for i := range source {
		from := i * o.part.Symbol
		n := copy(source[i][:o.part.Symbol], raw[from:])
		clear(source[i][n:])
	}
	rows := fec.Buffers(end-first, stride)
	if err := code.Encode(source, first, rows); err != nil {
		return nil, fmt.Errorf("encode block %d: %w", block, err)
	}
	return rows, nil
}

// keep adds an entry and forgets the oldest ones beyond the limit.
func (c *parityCache) keep(key parityKey, rows [][]byte) {
	c.entries[key] = rows
	c.order = append(c.order, key)
	c.used += len(rows) * len(rows[0])
	for c.used > c.limit && len(c.order) > 1 {
		c.forget(c.order[0])
		c.order = c.order[1:]
	}
}

func (c *parityCache) forget(key parityKey) {
	rows := c.entries[key]
	delete(c.entries, key)
	c.used -= len(rows) * len(rows[0])
}

// drop forgets what belongs to an object.
func (c *parityCache) drop(id ObjectID) {
	rest := c.order[:0]
	for _, key := range c.order {
		if key.object == id {
			c.forget(key)
		} else {
			rest = append(rest, key)
		}
	}
	c.order = rest
}
