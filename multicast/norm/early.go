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
	if e.bytes+len(m.Payload) > s.r.cfg.MaxParityBytes/4 || len(e.symbols) >= maxEarly {
		return
	}
	kept := *m
	kept.Ext, kept.Payload = nil, bytes.Clone(m.Payload)
	e.symbols = append(e.symbols, kept)
	e.bytes += len(m.Payload)
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
