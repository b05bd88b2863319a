package norm

import "time"

// maxNackPackets bounds how many NACKs are sent at once.
const maxNackPackets = 4

// nackBuilder collects requests into the contents of packets.
type nackBuilder struct {
	w    requestWriter
	done [][]byte
	now  time.Time
}

// room makes room for one more request; false if there are packets enough.
func (nb *nackBuilder) room() bool {
	if nb.w.full() && len(nb.done)+1 < maxNackPackets {
		nb.next()
	}
	return !nb.w.full()
}

// next begins another packet.
func (nb *nackBuilder) next() {
	if len(nb.w.out) > 0 {
		nb.done = append(nb.done, nb.w.out)
	}
	nb.w = requestWriter{limit: nb.w.limit}
}

// buildNacks asks for what is missing before a position, as far as others have
// not asked for it already.
func (s *source) buildNacks(now time.Time, before Position) [][]byte {
	nb := nackBuilder{w: requestWriter{limit: s.requestLimit()}, now: now}
	for id := s.low; !s.high.Before(id) && !before.Object.Before(id) && nb.room(); id++ {
		o := s.objects[id]
		switch {
		case o == nil:
			id = s.askObjects(&nb, id, before.Object)
		case o.unknown():
			if !s.recent(now, o.infoHeard) {
				id = s.askObjects(&nb, id, id)
			}
		case !o.ended():
			if given := s.askObject(&nb, o, o.end(before)); given {
				s.abandon(id, errRounds)
			}
		}
	}
	s.skipEnded()
	nb.next()
	return nb.done
}

// uncovered reports whether something is missing before a position that others
// have not asked for.
func (s *source) uncovered(now time.Time, before Position) bool {
	for id := s.low; !s.high.Before(id) && !before.Object.Before(id); id++ {
		o := s.objects[id]
		if o == nil || (o.lacksInfo() && !s.recent(now, o.infoHeard)) {
			return true
		}
		if o.state != objectOpen {
			continue
		}
		for number := int64(o.low); number < o.end(before); number++ {
			if o.complete.has(uint32(number)) {
				continue
			}
			if b := o.blocks[uint32(number)]; b == nil || !s.covered(now, b) {
				return true
			}
		}
	}
	return false
}

// unknown reports whether all that is known of an object is that it exists.
func (o *rxObject) unknown() bool { return o.state == objectHeard && !o.hasInfo }

// lacksInfo reports whether the object waits for NORM_INFO.
func (o *rxObject) lacksInfo() bool {
	return !o.ended() && o.info == nil && (o.hasInfo || o.state == objectHeard)
}

// end is the first block of the object that a position does not cover.
func (o *rxObject) end(before Position) int64 {
	if o.id.Before(before.Object) {
		return o.part.Blocks
	}
	return min(int64(before.Block), o.part.Blocks)
}

// requestLimit is the room for requests in a NACK that is no longer than a
// DATA packet.
func (s *source) requestLimit() int {
	segment := 512
	for id := s.low; !s.high.Before(id); id++ {
		if o := s.objects[id]; o != nil && o.hasFTI {
			segment = int(o.fti.Segment)
			break
		}
	}
	limit := segment + PacketOverhead - 24 - 12
	if a := s.r.cfg.Auth; a != nil {
		limit -= a.Overhead() + 4
	}
	return max(limit, 2*maxRequestLen)
}

// askObjects asks for the objects from id on, up to end, that were never heard
// of, and gives the last of them.
func (s *source) askObjects(nb *nackBuilder, id, end ObjectID) ObjectID {
	last := id
	for last != s.high && last != end && s.objects[last+1] == nil {
		last++
	}
	nb.w.add(LevelObject, FECReedSolomon, Position{Object: id}, Position{Object: last}, 0)
	return last
}

// askObject asks for what is missing of an object. It reports true if only
// such things are missing that were asked for as often as allowed.
func (s *source) askObject(nb *nackBuilder, o *rxObject, end int64) (given bool) {
	limit := s.r.cfg.NackRounds
	asked := false
	if o.hasInfo && o.info == nil {
		switch {
		case limit > 0 && o.infoRounds >= limit:
			given = true
		case s.recent(nb.now, o.infoHeard):
			asked = true
			if o.infoCounted != o.infoHeard {
				o.infoCounted = o.infoHeard
				o.infoRounds++
			}
		default:
			asked = true
			at := Position{Object: o.id}
			nb.w.add(LevelInfo, o.scheme(), at, at, 0)
			o.infoRounds++
		}
	}
	if o.state != objectOpen {
		return given && !asked
	}
	run := blockRun{nb: nb, o: o}
	for number := int64(o.low); number < end; number++ {
		if o.complete.has(uint32(number)) {
			continue
		}
		b := o.blocks[uint32(number)]
		if limit > 0 && b == nil {
			b = o.spareBlock(uint32(number))
		}
		if b != nil && limit > 0 && b.rounds >= limit {
			given = true
			continue
		}
		asked = true
		if !nb.room() {
			break
		}
		if !s.askBlock(&run, b, uint32(number)) {
			break
		}
	}
	run.flush()
	return given && !asked && end == o.part.Blocks
}

// scheme is the object's fec_id, as far as it is known.
func (o *rxObject) scheme() FECID {
	if o.hasFTI {
		return o.fec
	}
	return FECReedSolomon
}

// blockRun gathers neighbouring blocks of which nothing was received.
type blockRun struct {
	nb          *nackBuilder
	o           *rxObject
	open        bool
	first, last uint32
}

func (r *blockRun) add(number uint32) {
	if r.open && number != r.last+1 {
		r.flush()
	}
	if !r.open {
		r.open, r.first = true, number
	}
	r.last = number
}

func (r *blockRun) flush() {
	if r.open && r.nb.room() {
		o := r.o
		r.nb.w.add(LevelBlock, o.fec, Position{Object: o.id, Block: r.first}, Position{Object: o.id, Block: r.last},
			uint16(o.part.Len(int64(r.first))))
	}
	r.open = false
}

// askBlock asks for what is needed of one block; b is nil if there is no state
// of it. It reports false if there was no room.
func (s *source) askBlock(run *blockRun, b *rxBlock, number uint32) bool {
	o := run.o
	if b == nil {
		run.add(number)
		return true
	}
	n := o.part.Len(int64(number))
	if s.covered(run.nb.now, b) {
		if b.counted != b.heard {
			b.counted = b.heard
			b.rounds++
		}
		return true
	}
	if b.have.empty() {
		b.rounds++
		run.add(number)
		return true
	}
	run.flush()
	set := b.request(run.nb.now, s, n, int(o.fti.Parity))
	// All of a block's requests go into one packet: the sender counts the
	// parity asked for in each.
	w := &run.nb.w
	mark := *w
	at := Position{Object: o.id, Block: number}
	if !w.addSet(o.fec, at, &set, uint16(n)) {
		mark.out = mark.out[:len(mark.out):len(mark.out)]
		*w = mark
		w.fixHead()
		if len(run.nb.done)+1 >= maxNackPackets {
			return false
		}
		run.nb.next()
		w.addSet(o.fec, at, &set, uint16(n)) // in small packets only a part
	}
	b.rounds++
	return true
}

// request is the set of symbols to ask for: as many as are needed, parity
// before source symbols, for parity serves others as well. When all parity has
// been sent, what others asked for already counts.
func (b *rxBlock) request(now time.Time, s *source, n, parity int) symbolSet {
	var set, coming symbolSet
	need := n - b.sources - len(b.parity)
	if b.spent && s.recent(now, b.heard) {
		coming = b.explicit
		need -= b.coming()
	}
	for i := b.have.nextAbsent(n); i < n+parity && need > 0; i = b.have.nextAbsent(i + 1) {
		if !coming.has(i) {
			set.add(i)
			need--
		}
	}
	// The last ones: the first of the missing are left to the parity.
	for i := n - 1; i >= 0 && need > 0; i-- {
		if !b.have.has(i) && !coming.has(i) {
			set.add(i)
			need--
		}
	}
	return set
}

// coming is how many of the symbols that others asked for are missing here.
func (b *rxBlock) coming() int {
	n := 0
	for i := b.explicit.next(0); i < 256; i = b.explicit.next(i + 1) {
		if !b.have.has(i) {
			n++
		}
	}
	return n
}

// recent reports whether what another asked for at a time may still be answered.
func (s *source) recent(now, heard time.Time) bool {
	return !heard.IsZero() && now.Sub(heard) < s.hold()
}

// covered reports whether others have asked for enough of a block of late.
func (s *source) covered(now time.Time, b *rxBlock) bool {
	if !s.recent(now, b.heard) {
		return false
	}
	need := b.n - b.sources - len(b.parity)
	if b.spent {
		return b.coming() >= need
	}
	expected := b.need // fresh parity is sent, whatever the ids
	for i := b.explicit.next(0); i < b.n; i = b.explicit.next(i + 1) {
		if !b.have.has(i) {
			expected++
		}
	}
	return expected >= need
}
