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

// readBlock reads the source symbols of a block into buf.
func (o *txObject) readBlock(block int64, buf []byte) ([]byte, error) {
	off, _ := o.part.Span(block, 0)
	last, n := o.part.Span(block, o.part.Len(block)-1)
	size := int(last-off) + n
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	return buf, o.readAt(buf, off)
}

// readAhead holds the block that the first pass is in.
type readAhead struct {
	single []byte // one symbol, for repairs elsewhere
	object *txObject
	block  uint32
	data   []byte
}

// symbol gives a source symbol out of the block read ahead.
func (r *readAhead) symbol(o *txObject, block uint32, i int) ([]byte, error) {
	if r.object != o || r.block != block {
		data, err := o.readBlock(int64(block), r.data)
		r.object, r.block, r.data = o, block, data
		if err != nil {
			r.object = nil
			return nil, err
		}
	}
	from := i * o.part.Symbol
	return r.data[from:min(from+o.part.Symbol, len(r.data))], nil
}

// sendDue: something of an object waits to be sent.
func (s *Sender) sendDue(time.Time) (time.Time, bool) {
	return time.Time{}, !s.closing && (len(s.repair.queue) > 0 || s.pass.Object != s.next)
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
		out, err := s.appendSymbol(b, o, s.pass.Block, int(s.pass.Symbol), 0)
		if err != nil {
			s.failObject(o, err)
			continue
		}
		s.stats.DataPackets++
		s.stats.DataBytes += uint64(len(out) - len(b))
		s.advance(o)
		return out
	}
	return b
}

// advance moves the first pass behind the symbol just sent.
func (s *Sender) advance(o *txObject) {
	s.flush.restart()
	s.pass.Symbol++
	if int(s.pass.Symbol) < o.part.Len(int64(s.pass.Block))+s.cfg.AutoParity {
		return
	}
	s.pass.Symbol = 0
	s.pass.Block++
	if int64(s.pass.Block) < o.part.Blocks {
		return
	}
	o.sent = true
	s.event(SenderEvent{Kind: ObjectSent, Object: o.id})
	s.nextObject()
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
	var ext [12]byte
	if !s.cfg.FTIInInfoOnly || len(o.Info) == 0 {
		m.Ext = Extensions(ext[:0]).AppendFTI(o.fti)
	}
	return m.Append(b), nil
}

// symbol gives the payload of a symbol, valid until the next call.
func (s *Sender) symbol(o *txObject, block uint32, i int, ahead bool) ([]byte, error) {
	n := o.part.Len(int64(block))
	if i >= n {
		return s.parity.symbol(s.code, o, block, i-n)
	}
	if ahead {
		return s.read.symbol(o, block, i)
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
	m.Ext = m.Ext.AppendFTI(o.fti)
	return s.command(b, &m, &m.SenderHeader)
}
