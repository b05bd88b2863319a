package norm

import (
	"bytes"
	"slices"
)

// earlyData is symbols that came before their object was accepted, because the
// NORM_INFO with its size or for its acceptance was lost.
type earlyData struct {
	symbols []Data
	bytes   int
}

// maxEarly is how many of them are kept, whatever their size.
const maxEarly = 4096

// keepEarly keeps a symbol for when the object is accepted, if there is room.
func (s *source) keepEarly(m *Data) {
	e := &s.early
	if len(e.symbols) >= maxEarly && e.symbols[0].Object != m.Object {
		e.drop(e.symbols[0].Object) // nobody will ask for it any more
	}
	if s.r.earlyBytes()+len(m.Payload) > s.r.cfg.MaxParityBytes/4 || len(e.symbols) >= maxEarly {
		return
	}
	kept := *m
	kept.Ext, kept.Payload = nil, bytes.Clone(m.Payload)
	e.symbols = append(e.symbols, kept)
	e.bytes += len(m.Payload)
}

// earlyBytes is what is kept of all senders, for symbols and for NORM_INFO.
func (r *Receiver) earlyBytes() int {
	n := r.infoBytes
	for _, s := range r.sources {
		n += s.early.bytes
	}
	return n
}

// drop gives the symbols of an object and forgets them.
func (e *earlyData) drop(id ObjectID) []Data {
	var out []Data
	e.symbols = slices.DeleteFunc(e.symbols, func(m Data) bool {
		if m.Object == id {
			out = append(out, m)
			e.bytes -= len(m.Payload)
		}
		return m.Object == id
	})
	return out
}

// join settles where a receiver with SyncHere begins: where it first heard the
// sender go on.
func (s *source) join(at Position) {
	if s.joined != nil || !s.synced || s.r.cfg.Sync != SyncHere || at.Object.Before(s.first) {
		return
	}
	s.joined = &Position{at.Object, at.Block, at.Symbol}
	if o := s.objects[s.first]; o != nil && o.state == objectOpen {
		o.join(s.joined)
		o.finish()
	}
}

// join skips the blocks sent before a position was heard. In the first group of
// an object it is more likely that its beginning was lost than that it was over.
func (o *rxObject) join(at *Position) {
	if at == nil || o.id != o.src.first || o.low > 0 {
		return
	}
	from := o.part.Blocks
	if at.Object == o.id && int64(at.Block) < o.part.Blocks {
		first, end := o.order.Group(int64(at.Block))
		if from = end; first == 0 {
			return
		}
		if int64(at.Block) == first && at.Symbol == 0 {
			from = first
		}
	}
	for number := range o.blocks {
		if int64(number) < from {
			o.blocks[number].dropParity(o.src)
			delete(o.blocks, number)
			o.src.blocks--
		}
	}
	o.from, o.low, o.left = uint32(from), uint32(from), o.part.Blocks-from
}
