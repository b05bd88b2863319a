package norm

import (
	"errors"
	"net/netip"
	"time"
)

// Why a sender is gone or an object is abandoned.
var (
	errEOT      = errors.New("sender ended its transmission")
	errReplaced = errors.New("sender was replaced by a new instance")
	errSilent   = errors.New("sender fell silent")
	errSquelch  = errors.New("sender does not have the object any more")
	errWindow   = errors.New("object is too far behind")
	errRounds   = errors.New("repair was asked for as often as allowed")
)

// maxGRTT is the greatest GRTT that is believed: a forged one must not put
// feedback off for ever.
const maxGRTT = 10 * time.Second

// source is what a receiver knows of one instance of a sender.
type source struct {
	r        *Receiver
	id       NodeID
	instance uint16
	gone     bool
	mayCome  bool           // gone, but only because it was silent
	from     netip.AddrPort // where its packets come from
	heard    time.Time
	silent   int // periods of inactivity so far

	grtt                 time.Duration
	backoff              int // K
	group                int
	heardRTT, heardGroup uint8 // grtt and group as they came, for that takes an exponential
	loss                 lossMeter

	// Objects of the window up to high are in the map once they were heard of;
	// those before low have all ended. Nothing before first is wanted.
	synced           bool
	first, low, high ObjectID
	floor            ObjectID // none before it is in the map
	objects          map[ObjectID]*rxObject
	blocks           int // partly received, of all objects
	parityBytes      int
	holders          []*rxBlock // with parity, in the order of their first
	early            earlyData
	joined           *Position // where SyncHere begins, once it is known

	position Position // block that was heard last
	limit    Position // everything before this block has been sent
	moved    bool     // position and limit are set
	nack     nackState
	ack      ackState
}

func newSource(r *Receiver, id NodeID, instance uint16, now time.Time) *source {
	return &source{r: r, id: id, instance: instance, heard: now, objects: map[ObjectID]*rxObject{}, grtt: time.Second, group: 10, heardGroup: 255}
}

func (s *source) key(id ObjectID) ObjectKey { return ObjectKey{s.id, s.instance, id} }

// hear takes what every message of a sender tells.
func (s *source) hear(now time.Time, from netip.AddrPort, h *SenderHeader, size int, trusted bool) {
	s.heard, s.silent = now, 0
	s.loss.hear(now, h.Sequence, size, s.rtt())
	if trusted {
		s.from = from
		s.backoff = int(h.Backoff)
		if h.GRTT != s.heardRTT || h.GroupSize != s.heardGroup {
			s.heardRTT, s.heardGroup = h.GRTT, h.GroupSize
			s.grtt = min(max(unquantizeRTT(h.GRTT), 100*time.Microsecond), maxGRTT)
			s.group = unquantizeGroup(h.GroupSize)
		}
	}
}

// sync settles where the receiver begins. Repairs of the past do not count:
// they may be about objects that nobody sends any more.
func (s *source) sync(id ObjectID) {
	if s.synced {
		return
	}
	s.synced = true
	s.first, s.high = id, id
	if s.r.cfg.Sync == SyncAll {
		s.first -= ObjectID(s.r.cfg.MaxObjects - 1)
	}
	s.low, s.floor = s.first, s.first
}

// object gives the state of an object that is wanted. A trusted message makes
// one that is new.
func (s *source) object(id ObjectID, trusted bool) *rxObject {
	if id.Before(s.low) {
		return nil
	}
	if o := s.objects[id]; o != nil {
		return o
	}
	if !trusted {
		return nil
	}
	if s.high.Before(id) {
		s.high = id
		s.slide()
	}
	o := &rxObject{src: s, id: id}
	s.objects[id] = o
	return o
}

// slide keeps no more than MaxObjects objects in mind.
func (s *source) slide() {
	first := s.high - ObjectID(s.r.cfg.MaxObjects-1)
	for ; s.floor.Before(first) && len(s.objects) > 0; s.floor++ {
		if s.objects[s.floor] != nil {
			s.abandon(s.floor, errWindow)
			delete(s.objects, s.floor)
		}
	}
	if s.floor.Before(first) {
		s.floor = first
	}
	if s.low.Before(first) {
		s.low = first
		s.skipEnded()
	}
}

// abandon ends an object, if it is not ended; one that was never heard of is
// noted as ended so that nobody asks for it.
func (s *source) abandon(id ObjectID, why error) {
	o := s.objects[id]
	if o == nil {
		s.objects[id] = &rxObject{src: s, id: id, state: objectAbandoned}
		return
	}
	if o.ended() {
		return
	}
	if o.state == objectOpen {
		s.r.event(ReceiverEvent{Kind: ObjectAbandoned, Key: s.key(id), Missing: o.missing(), Err: why})
	}
	s.end(o, objectAbandoned)
}

// end sets the final state of an object and frees what it held.
func (s *source) end(o *rxObject, state objectState) {
	for _, b := range o.blocks {
		b.dropParity(s)
	}
	s.blocks -= len(o.blocks)
	s.early.drop(o.id)
	s.r.infoBytes -= len(o.info)
	o.blocks, o.complete, o.sink, o.code, o.info = nil, nil, nil, nil, nil
	o.state = state
	s.skipEnded()
}

// skipEnded moves low behind the objects that have ended.
func (s *source) skipEnded() {
	for s.low != s.high+1 && s.objects[s.low] != nil && s.objects[s.low].ended() {
		s.low++
	}
}

// leave ends all work for the sender.
func (s *source) leave(why error) {
	if s.gone {
		return
	}
	if s.synced {
		for id := s.low; !s.high.Before(id); id++ {
			s.abandon(id, why)
		}
	}
	s.gone = true
	s.objects, s.early = nil, earlyData{}
	s.r.event(ReceiverEvent{Kind: SenderGone, Key: s.key(0), Err: why})
}

// handleSquelch gives up what the sender does not have any more.
func (s *source) handleSquelch(m *Squelch) {
	if !s.synced || m.Object.Distance(s.high) > 1 {
		return // nothing is wanted, or the future is squelched
	}
	for id := s.low; !s.high.Before(id); id++ {
		if id.Before(m.Object) || m.lists(id) {
			s.abandon(id, errSquelch)
		}
	}
	s.skipEnded()
}

// move notes the block that the sender is at. Within a block nothing changes;
// going on to a later one is the moment to look for losses, going back is the
// beginning of repairs.
//
// Blocks sent interleaved are one block in this.
func (s *source) move(now time.Time, at Position) {
	if o := s.objects[at.Object]; o != nil && o.depth > 1 && int64(at.Block) < o.part.Blocks {
		first, _ := o.order.Group(int64(at.Block))
		at.Block = uint32(first)
	}
	at.Symbol = 0
	forward := s.moved && s.position.Before(at)
	s.moved, s.position, s.limit = true, at, at
	s.nack.rewind(at)
	if forward {
		s.trigger(now)
	}
}

// handleFlush looks for losses up to a position, and confirms it if asked.
func (s *source) handleFlush(now time.Time, m *Flush) {
	s.sync(m.Object)
	s.join(Position{Object: m.Object, Block: maxBlocks})
	if s.object(m.Object, true) == nil && m.Object.Before(s.first) {
		return
	}
	at := Position{Object: m.Object, Block: m.Block}
	if !at.Before(s.position) {
		s.nack.idle(now, s.grtt)
	}
	s.moved, s.position = true, at
	s.limit = Position{Object: m.Object, Block: m.Block + 1}
	s.trigger(now)
	for id := range m.Nodes.All() {
		if id == s.r.cfg.Node {
			s.confirm(now, m)
		}
	}
}

// inactive is the time without a message that makes a period of silence.
func (s *source) inactive() time.Duration {
	return max(time.Second, time.Duration(2*s.r.cfg.Robust)*s.grtt)
}

// poll appends feedback that is due, or changes state as time passes.
func (s *source) poll(now time.Time, b []byte) []byte {
	if out := s.pollAck(now, b); len(out) > len(b) {
		return out
	}
	if out := s.pollNack(now, b); len(out) > len(b) {
		return out
	}
	if now.Sub(s.heard) < s.inactive()*time.Duration(s.silent+1) {
		return b
	}
	if s.silent++; s.silent >= s.r.cfg.Robust {
		s.leave(errSilent)
		s.mayCome = true
		return b
	}
	s.trigger(now)
	return s.pollNack(now, b)
}

// wake is the earliest time at which poll has something to do.
func (s *source) wake() time.Time {
	first := s.heard.Add(s.inactive() * time.Duration(s.silent+1))
	for _, at := range []time.Time{s.nack.due(), s.ack.due()} {
		if !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	return first
}
