package norm

import (
	"encoding/binary"
	"iter"
)

// Form is how the items of a repair request are meant (RFC 5740 §4.3.1).
type Form uint8

// Forms of repair requests.
const (
	FormItems    Form = iota + 1 // each item by itself
	FormRanges                   // pairs: first and last of a range
	FormErasures                 // the item's symbol is a count of erasures in its block
)

// Level flags of a repair request: how much of an item's position counts.
// LevelInfo may stand beside another.
const (
	LevelSegment = 0x01
	LevelBlock   = 0x02
	LevelInfo    = 0x04
	LevelObject  = 0x08
)

// Request is one thing asked for: everything from First to Last, inclusive,
// at a level. Last equals First unless the form is FormRanges.
type Request struct {
	Form        Form
	Level       uint8
	FEC         FECID
	First, Last Position
	BlockLen    uint16 // of First; FECSmallBlock only
}

// Requests is the encoded content of a NACK or REPAIR_ADV.
type Requests []byte

// check walks the content; base is its offset in the message.
func (r Requests) check(base int) error {
	for at := 0; at < len(r); {
		if len(r)-at < 4 {
			return malformed(base+at, "repair request of %d bytes", len(r)-at)
		}
		form, length := Form(r[at]), int(binary.BigEndian.Uint16(r[at+2:]))
		if form < FormItems || form > FormErasures {
			return malformed(base+at, "unknown form %d of repair request", form)
		}
		at += 4
		if length > len(r)-at {
			return malformed(base+at-2, "repair request of %d bytes where %d are left", length, len(r)-at)
		}
		items, end := 0, at+length
		for ; at < end; items++ {
			n := 4 + FECID(r[at]).payloadIDLen()
			if n == 4 || n > end-at {
				return malformed(base+at, "repair item of %d bytes with fec_id %d", end-at, r[at])
			}
			at += n
		}
		if form == FormRanges && items%2 != 0 {
			return malformed(base+end-length, "range of repair without its end")
		}
	}
	return nil
}

// All gives each request of checked content.
func (r Requests) All() iter.Seq[Request] {
	return func(yield func(Request) bool) {
		for rest := []byte(r); len(rest) >= 4; {
			q := Request{Form: Form(rest[0]), Level: rest[1]}
			items := rest[4 : 4+int(binary.BigEndian.Uint16(rest[2:]))]
			rest = rest[4+len(items):]
			for len(items) > 0 {
				q.FEC = FECID(items[0])
				q.First, q.BlockLen, items = cutItem(items)
				q.Last = q.First
				if q.Form == FormRanges {
					q.Last, _, items = cutItem(items)
				}
				if !yield(q) {
					return
				}
			}
		}
	}
}

func cutItem(b []byte) (p Position, blockLen uint16, rest []byte) {
	fec := FECID(b[0])
	p.Object = ObjectID(binary.BigEndian.Uint16(b[2:]))
	p.Block, p.Symbol, blockLen = parsePayloadID(fec, b[4:])
	return p, blockLen, b[4+fec.payloadIDLen():]
}

// requestWriter builds the content of a NACK up to a limit of bytes. Requests
// of the same form and level that follow each other share one header.
type requestWriter struct {
	out   []byte
	limit int
	head  int // offset of the open header, meaningful if open
	open  bool
}

// maxRequestLen is the longest that one add makes the content.
const maxRequestLen = 4 + 2*(4+8)

// full reports whether another request may not fit.
func (w *requestWriter) full() bool { return len(w.out)+maxRequestLen > w.limit }

// add appends a request: an item if first equals last, else a range.
func (w *requestWriter) add(level uint8, fec FECID, first, last Position, blockLen uint16) {
	form := FormItems
	if first != last {
		form = FormRanges
	}
	if !w.open || w.out[w.head] != byte(form) || w.out[w.head+1] != level {
		w.head, w.open = len(w.out), true
		w.out = append(w.out, byte(form), level, 0, 0)
	}
	w.item(fec, first, blockLen)
	if form == FormRanges {
		w.item(fec, last, blockLen)
	}
	binary.BigEndian.PutUint16(w.out[w.head+2:], uint16(len(w.out)-w.head-4))
}

func (w *requestWriter) item(fec FECID, p Position, blockLen uint16) {
	w.out = append(w.out, byte(fec), 0)
	w.out = binary.BigEndian.AppendUint16(w.out, uint16(p.Object))
	w.out = appendPayloadID(w.out, fec, p.Block, p.Symbol, blockLen)
}

// addSet appends requests for the symbols of a block as runs, as long as there
// is room; block's symbol is ignored. It reports whether all fitted.
func (w *requestWriter) addSet(fec FECID, block Position, set *symbolSet, blockLen uint16) bool {
	for i := set.next(0); i < 256; {
		end := set.nextAbsent(i)
		first, last := block, block
		first.Symbol, last.Symbol = uint16(i), uint16(end-1)
		if w.full() {
			return false
		}
		if end-i == 2 {
			w.add(LevelSegment, fec, first, first, blockLen)
			first = last
			if w.full() {
				return false
			}
		}
		w.add(LevelSegment, fec, first, last, blockLen)
		i = set.next(end)
	}
	return true
}

// fixHead sets the open header's length again after the content was cut.
func (w *requestWriter) fixHead() {
	if w.open && w.head+4 <= len(w.out) {
		binary.BigEndian.PutUint16(w.out[w.head+2:], uint16(len(w.out)-w.head-4))
	}
}
