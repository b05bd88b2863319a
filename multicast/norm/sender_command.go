package norm

import (
	"encoding/binary"
	"fmt"
	"time"
)

// flushState is the FLUSH sequence at the end of transmission (RFC 5740 §5.4.1).
type flushState struct {
	sent int       // FLUSHes since the last symbol
	next time.Time // zero: at once
	done bool      // the whole sequence went unanswered
}

// restart is called for each symbol sent.
func (f *flushState) restart() { *f = flushState{} }

// idle reports whether nothing is being sent, queued or collected.
func (s *Sender) idle() bool {
	_, busy := s.sendDue(time.Time{})
	return !s.closing && !busy && s.repair.end.IsZero()
}

// lastPosition is where the transmission ends at present.
func (s *Sender) lastPosition() (Position, bool) {
	for id := s.next; id != s.oldest; id-- {
		if o := s.objects[id-1]; o != nil {
			return o.lastPosition(), true
		}
	}
	return Position{}, false
}

// lastPosition is the last source symbol of the object.
func (o *txObject) lastPosition() Position {
	block := o.part.Blocks - 1
	if block < 0 {
		return Position{o.id, maxBlocks - 1, 255} // what libnorm says of an empty file
	}
	return Position{o.id, uint32(block), uint16(o.part.Len(block) - 1)}
}

func (s *Sender) flushDue(time.Time) (time.Time, bool) {
	_, any := s.lastPosition()
	return s.flush.next, any && !s.flush.done && s.idle()
}

func (s *Sender) runFlush(now time.Time, b []byte) []byte {
	if s.flush.sent >= s.cfg.Robust {
		s.flush.done = true
		s.event(SenderEvent{Kind: Flushed})
		return b
	}
	s.flush.sent++
	s.flush.next = now.Add(2 * s.grtt())
	at, _ := s.lastPosition()
	m := Flush{SenderHeader: s.header(), FEC: FECReedSolomon, Position: at}
	return s.command(b, &m, &m.SenderHeader)
}

// watermarkState is a FLUSH that names nodes, who must confirm it.
type watermarkState struct {
	object ObjectID
	at     Position
	roll   roll // those that have neither confirmed nor failed
	next   time.Time
}

// Watermark asks the nodes to confirm everything up to and including the
// object id, as soon as it has been sent. NodeAcked or NodeFailed follows for
// each. A later watermark replaces one that is not finished. It returns an
// error for an unknown object or node.
func (s *Sender) Watermark(id ObjectID, nodes []NodeID) error {
	o := s.objects[id]
	if o == nil {
		return fmt.Errorf("set watermark: no object %d", id)
	}
	r, err := newRoll(nodes)
	if err != nil {
		return fmt.Errorf("set watermark: %w", err)
	}
	s.watermark = watermarkState{object: id, at: o.lastPosition(), roll: r}
	return nil
}

// watermarkDue: nodes are asked while nothing else is on its way, or at any
// time if the transmission has gone on to later objects.
func (s *Sender) watermarkDue(time.Time) (time.Time, bool) {
	o := s.objects[s.watermark.object]
	if !s.watermark.roll.open() || o == nil || !o.sent || s.closing {
		return time.Time{}, false
	}
	return s.watermark.next, s.idle() || o.id != s.next-1
}

func (s *Sender) runWatermark(now time.Time, b []byte) []byte {
	w := &s.watermark
	list := w.roll.next(s.listRoom(), s.cfg.Robust, func(id NodeID) {
		s.event(SenderEvent{Kind: NodeFailed, Object: w.object, Node: id})
	})
	w.next = now.Add(w.roll.pause(2*s.grtt(), s.listRoom()))
	if len(list) == 0 {
		return b
	}
	if at, ok := s.lastPosition(); ok && at == w.at && s.idle() {
		s.flush.sent++ // it serves as a plain FLUSH too
		s.flush.next = now.Add(2 * s.grtt())
	}
	m := Flush{SenderHeader: s.header(), FEC: FECReedSolomon, Position: w.at, Nodes: list}
	return s.command(b, &m, &m.SenderHeader)
}

// confirm takes an ACK(FLUSH).
func (s *Sender) confirm(m *Ack) {
	w := &s.watermark
	at, err := m.watermark(0)
	if err == nil && at == w.at && w.roll.answered(m.Source) {
		s.event(SenderEvent{Kind: NodeAcked, Object: w.object, Node: m.Source})
	}
}

// failWatermark ends a watermark whose object is gone.
func (s *Sender) failWatermark() {
	for _, id := range s.watermark.roll.clear() {
		s.event(SenderEvent{Kind: NodeFailed, Object: s.watermark.object, Node: id})
	}
}

// squelchState is requests for objects that are not there any more.
type squelchState struct {
	asked []ObjectID
	next  time.Time
}

// askSquelch notes a request for an object that was dropped. One that never
// was is squelched too, by the position alone.
func (s *Sender) askSquelch(id ObjectID) {
	for _, have := range s.squelch.asked {
		if have == id {
			return
		}
	}
	if len(s.squelch.asked) < (s.cfg.SegmentSize-s.authLen())/2 {
		s.squelch.asked = append(s.squelch.asked, id)
	}
}

func (s *Sender) squelchDue(time.Time) (time.Time, bool) {
	return s.squelch.next, len(s.squelch.asked) > 0 && !s.closing
}

func (s *Sender) runSquelch(now time.Time, b []byte) []byte {
	m := Squelch{SenderHeader: s.header(), FEC: FECReedSolomon, Position: Position{Object: s.oldest}}
	for _, id := range s.squelch.asked {
		if !id.Before(s.oldest) && id.Before(s.next) && s.objects[id] == nil {
			m.Invalid = binary.BigEndian.AppendUint16(m.Invalid, uint16(id))
		}
	}
	s.squelch = squelchState{next: now.Add(2 * s.grtt())}
	s.stats.Squelches++
	return s.command(b, &m, &m.SenderHeader)
}

// eotState is the end of the session.
type eotState struct {
	sent int
	next time.Time
	done bool
}

// eotRepeats is how often EOT is sent, so that a lost one does no harm.
const eotRepeats = 5

// Close ends the session: repairs stop and EOT goes out, then Closed.
func (s *Sender) Close() { s.closing = true }

func (s *Sender) eotDue(time.Time) (time.Time, bool) { return s.eot.next, s.closing && !s.eot.done }

func (s *Sender) runEOT(now time.Time, b []byte) []byte {
	if s.eot.sent >= eotRepeats {
		s.eot.done = true
		s.event(SenderEvent{Kind: Closed})
		return b
	}
	s.eot.sent++
	s.eot.next = now.Add(s.grtt())
	m := EOT{SenderHeader: s.header()}
	return s.command(b, &m, &m.SenderHeader)
}
