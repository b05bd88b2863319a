package norm

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// txObject is an object being sent.
type txObject struct {
	Object
	id      ObjectID
	part    fec.Blocking
	order   fec.Interleaving
	fti     FTI
	sent    bool // the first pass is over
	dropped bool

	infoSent  bool
	infoAt    time.Time // when INFO was sent last
	infoGap   time.Duration
	infoAsked bool

	blocks      map[uint32]*txBlock // those that were asked for
	repairBytes int64
	spent       bool // nothing of it is repaired any more
	spentSaid   bool
}

func (o *txObject) flags() uint8 {
	if len(o.Info) > 0 {
		return FlagFile | FlagInfo
	}
	return FlagFile
}

// readAt fills p from the content.
func (o *txObject) readAt(p []byte, off int64) error {
	n, err := o.Content.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read content at %d: %w", off+int64(n), err)
}

// readSymbols reads the source symbols of a block from first up to, not
// including, end into buf.
func (o *txObject) readSymbols(block int64, first, end int, buf []byte) ([]byte, error) {
	off, _ := o.part.Span(block, first)
	last, n := o.part.Span(block, end-1)
	size := int(last-off) + n
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	return buf, o.readAt(buf, off)
}

// What is read ahead for the first pass: of each block so much that it is still
// in the processor's cache when it is sent, of all blocks of a group no more
// than the other.
const (
	readAheadBlock = 64 << 10
	readAheadBytes = 4 << 20
)

// readAhead holds the symbols that come next of each block of the group that
// the first pass is in.
type readAhead struct {
	single  []byte // one symbol, for repairs elsewhere
	object  *txObject
	first   int64 // block of the group
	windows []window
}

// window is neighbouring source symbols of one block.
type window struct {
	start, end int
	data       []byte
}

// symbol gives a source symbol of the group in the pass.
func (r *readAhead) symbol(o *txObject, block int64, i int) ([]byte, error) {
	first, end := o.order.Group(block)
	if r.object != o || r.first != first {
		r.object, r.first = o, first
		for len(r.windows) < int(end-first) {
			r.windows = append(r.windows, window{})
		}
		for j := range r.windows {
			r.windows[j].end = 0
		}
	}
	w := &r.windows[block-first]
	if i < w.start || i >= w.end {
		n := max(min(readAheadBlock, readAheadBytes/int(end-first))/o.part.Symbol, 1)
		w.start, w.end = i, min(i+n, o.part.Len(block))
		var err error
		if w.data, err = o.readSymbols(block, w.start, w.end, w.data); err != nil {
			w.end = 0
			return nil, err
		}
	}
	from := (i - w.start) * o.part.Symbol
	return w.data[from:min(from+o.part.Symbol, len(w.data))], nil
}

// sendDue: something of an object waits to be sent.
func (s *Sender) sendDue(time.Time) (time.Time, bool) {
	return time.Time{}, !s.closing && (s.repair.pending > 0 || s.pass.Object != s.next)
}

// runSend sends a repair if one is queued, else the next symbol of the pass.
func (s *Sender) runSend(now time.Time, b []byte) []byte {
	if out := s.sendRepair(now, b); len(out) > len(b) {
		return out
	}
	for s.pass.Object != s.next {
		o := s.objects[s.pass.Object]
		if o == nil {
			s.nextObject()
			continue
		}
		if len(o.Info) > 0 && !o.infoSent {
			return s.runInfo(now, b) // it goes first
		}
		if o.part.Blocks == 0 {
			s.flush.restart()
			s.finishPass(o)
			continue
		}
		if s.pass.Block == 0 && s.pass.Symbol == 0 {
			s.beginGroup(now, o)
		}
		out, err := s.appendSymbol(b, o, s.pass.Block, int(s.pass.Symbol), 0)
		if err != nil {
			s.failObject(o, err)
			continue
		}
		s.stats.DataPackets++
		if int(s.pass.Symbol) >= o.part.Len(int64(s.pass.Block)) {
			s.stats.AheadPackets++
		}
		s.stats.DataBytes += uint64(len(out) - len(b))
		s.advance(now, o)
		return out
	}
	return b
}

// advance moves the first pass behind the symbol just sent: to the same symbol
// of the next block of the group, then to the next symbol, then to the next
// group.
func (s *Sender) advance(now time.Time, o *txObject) {
	s.flush.restart()
	first, end := o.order.Group(int64(s.pass.Block))
	for {
		if s.pass.Block++; int64(s.pass.Block) == end {
			s.pass.Block = uint32(first)
			s.pass.Symbol++
		}
		switch symbol := int(s.pass.Symbol) - s.ahead.parity; {
		case symbol < o.part.Len(int64(s.pass.Block)):
			return
		case symbol >= o.part.Len(first): // the longest are first
			s.endGroup(now, o, first, end)
			return
		}
	}
}

// beginGroup settles how much parity goes out with the group that begins.
func (s *Sender) beginGroup(now time.Time, o *txObject) {
	s.ahead.parity = s.cfg.AutoParity
	if s.cfg.Anticipate {
		s.ahead.parity = s.ahead.settle(now.Add(-s.requestTime()), s.cfg.AutoParity, s.cfg.Parity)
	}
}

// endGroup ends the first pass over a group of blocks.
func (s *Sender) endGroup(now time.Time, o *txObject, first, end int64) {
	if s.cfg.Anticipate {
		for block := first; block < end; block++ {
			s.ahead.passed(now, s.track(o, uint32(block), s.ahead.parity), s.ahead.parity)
		}
	}
	s.pass.Block, s.pass.Symbol = uint32(end), 0
	if end == o.part.Blocks {
		s.finishPass(o)
		return
	}
	s.beginGroup(now, o)
}

func (s *Sender) finishPass(o *txObject) {
	o.sent = true
	s.event(SenderEvent{Kind: ObjectSent, Object: o.id})
	s.nextObject()
}

// passed reports whether the first pass over a block of an object is over.
func (s *Sender) passed(o *txObject, block int64) bool {
	if o.sent || o.id != s.pass.Object {
		return o.sent
	}
	first, _ := o.order.Group(int64(s.pass.Block))
	return block < first
}

func (s *Sender) nextObject() { s.pass = Position{Object: s.pass.Object + 1} }

func (s *Sender) failObject(o *txObject, err error) {
	s.event(SenderEvent{Kind: ObjectFailed, Object: o.id, Err: err})
	s.Drop(o.id)
}

// appendSymbol appends a DATA packet with a source or parity symbol.
func (s *Sender) appendSymbol(b []byte, o *txObject, block uint32, symbol int, flags uint8) ([]byte, error) {
	payload, err := s.symbol(o, block, symbol, flags&FlagRepair == 0)
	if err != nil {
		return b, err
	}
	m := Data{
		SenderHeader: s.header(), Flags: o.flags() | flags, FEC: FECReedSolomon,
		Position: Position{o.id, block, uint16(symbol)}, Payload: payload,
	}
	var ext [16]byte
	if !s.cfg.FTIInInfoOnly || len(o.Info) == 0 {
		m.Ext = s.describe(ext[:0], o)
	}
	return m.Append(b), nil
}

// describe appends what a receiver must know to take the object's symbols.
func (s *Sender) describe(e Extensions, o *txObject) Extensions {
	e = e.AppendFTI(o.fti)
	if s.cfg.Interleave > 1 {
		e = e.AppendInterleave(uint16(s.cfg.Interleave))
	}
	return e
}

// symbol gives the payload of a symbol, valid until the next call.
func (s *Sender) symbol(o *txObject, block uint32, i int, ahead bool) ([]byte, error) {
	n := o.part.Len(int64(block))
	if i >= n {
		return s.parity.symbol(s.code, o, block, i-n)
	}
	if ahead {
		return s.read.symbol(o, int64(block), i)
	}
	off, size := o.part.Span(int64(block), i)
	if cap(s.read.single) < size {
		s.read.single = make([]byte, s.cfg.SegmentSize)
	}
	p := s.read.single[:size]
	return p, o.readAt(p, off)
}

// onAir is the object whose INFO is worth repeating: the one in the first
// pass, else the last one.
func (s *Sender) onAir() *txObject {
	if s.pass.Object != s.next {
		return s.objects[s.pass.Object]
	}
	return s.objects[s.next-1]
}

// infoDue: the INFO of the object on air comes first, then repeats with
// doubling gaps; one that was asked for goes out at once.
func (s *Sender) infoDue(time.Time) (time.Time, bool) {
	if s.closing {
		return time.Time{}, false
	}
	if len(s.repair.infos) > 0 {
		return time.Time{}, true
	}
	o := s.onAir()
	if o == nil || len(o.Info) == 0 || (o.sent && s.flush.done) {
		return time.Time{}, false
	}
	if !o.infoSent {
		return time.Time{}, true
	}
	return o.infoAt.Add(o.infoGap), true
}

func (s *Sender) runInfo(now time.Time, b []byte) []byte {
	var flags uint8
	o := s.onAir()
	if len(s.repair.infos) > 0 {
		o = s.repair.infos[0]
		s.repair.infos = s.repair.infos[1:]
		o.infoAsked, flags = false, FlagRepair
		if o.dropped {
			return b
		}
	}
	switch {
	case !o.infoSent:
		o.infoGap = s.grtt()
	default:
		o.infoGap = min(2*o.infoGap, s.cfg.InfoInterval)
	}
	o.infoSent, o.infoAt = true, now
	m := Info{SenderHeader: s.header(), Flags: o.flags() | flags, FEC: FECReedSolomon, Object: o.id, Payload: o.Info}
	m.Ext = s.describe(nil, o)
	return s.command(b, &m, &m.SenderHeader)
}
