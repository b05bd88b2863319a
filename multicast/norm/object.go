package norm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// objectState is how far a receiver has come with an object.
type objectState uint8

const (
	objectHeard     objectState = iota // heard of, not accepted yet
	objectOpen                         // being received
	objectComplete                     // all bytes written
	objectRefused                      // not wanted
	objectAbandoned                    // given up
)

// rxObject is an object being received.
type rxObject struct {
	src   *source
	id    ObjectID
	state objectState

	fec     FECID
	fti     FTI
	hasFTI  bool
	hasInfo bool   // the sender says that there is NORM_INFO
	info    []byte // NORM_INFO, nil as long as it has not come
	part    fec.Blocking
	depth   uint16
	order   fec.Interleaving
	code    *fec.Code
	sink    Sink

	infoRounds  int       // NACKs that asked for INFO
	infoHeard   time.Time // when another asked for INFO
	infoCounted time.Time // the infoHeard that infoRounds counts

	from     uint32 // blocks before it are not wanted: see SyncHere
	low      uint32 // blocks before it are complete, or not wanted
	left     int64  // blocks that are not complete
	complete blockSet
	blocks   map[uint32]*rxBlock // partly received, or asked for
}

// ended reports whether nothing more is done for the object.
func (o *rxObject) ended() bool { return o.state >= objectComplete }

// rxBlock is a block that is not complete.
type rxBlock struct {
	n       int       // source symbols of the block
	have    symbolSet // symbols received
	sources int       // of them source symbols
	parity  []parityRow
	rounds  int // NACKs that asked for it

	// What others asked for since heard; it is void after nackState.hold.
	heard    time.Time
	counted  time.Time // the heard that rounds counts
	need     int       // parity symbols
	explicit symbolSet // symbols, by their ids
	spent    bool      // the last parity symbol has come: what is asked for now is sent by its id
}

// blockSet is a set of block numbers that takes memory only where it has some.
type blockSet map[uint32]*[8]uint64

func (s blockSet) has(n uint32) bool {
	chunk := s[n>>9]
	return chunk != nil && chunk[n>>6&7]&(1<<(n&63)) != 0
}

func (s blockSet) add(n uint32) {
	chunk := s[n>>9]
	if chunk == nil {
		chunk = new([8]uint64)
		s[n>>9] = chunk
	}
	chunk[n>>6&7] |= 1 << (n & 63)
}

// announce takes what DATA or INFO says of the object, and offers it to the
// caller as soon as its size is known. It reports false if that contradicts
// what was said before.
func (o *rxObject) announce(scheme FECID, flags uint8, ext Extensions, trusted bool) bool {
	if o.ended() {
		return true
	}
	if scheme.payloadIDLen() == 0 {
		return false
	}
	// With authentication the INFO is what vouches for the rest.
	if flags&FlagInfo != 0 || o.src.r.cfg.Auth != nil {
		o.hasInfo = true
	}
	fti, ok := ext.FTI(scheme)
	if o.hasFTI {
		return scheme == o.fec && (!ok || (fti == o.fti && ext.Interleave() == o.depth))
	}
	if !ok || !trusted {
		return true
	}
	if flags&FlagStream != 0 {
		o.refuse(errors.New("stream objects are not supported"))
		return true
	}
	if err := o.checkFTI(fti, ext.Interleave()); err != nil {
		o.refuse(err)
		return true
	}
	o.fec, o.fti, o.hasFTI = scheme, fti, true
	o.offer()
	return true
}

// checkFTI refuses sizes beyond the limits, before anything is allocated.
func (o *rxObject) checkFTI(f FTI, depth uint16) error {
	cfg := &o.src.r.cfg
	least := int64(1)
	if o.hasInfo {
		least = 0 // INFO is all there is of an empty object
	}
	if f.Size < least || f.Size > cfg.MaxObjectSize {
		return fmt.Errorf("object of %d bytes: want %d to %d", f.Size, least, cfg.MaxObjectSize)
	}
	if f.Segment < 1 || int(f.Segment) > cfg.MaxSegmentSize {
		return fmt.Errorf("segments of %d bytes: want 1 to %d", f.Segment, cfg.MaxSegmentSize)
	}
	if f.K < 1 || int(f.K)+int(f.Parity) > 255 {
		return fmt.Errorf("code with k=%d and r=%d: want k >= 1 and k+r <= 255", f.K, f.Parity)
	}
	part, err := fec.Partition(f.Size, int(f.Segment), int(f.K))
	if err != nil {
		return fmt.Errorf("partition object: %w", err)
	}
	if part.Blocks > maxBlocks {
		return fmt.Errorf("object of %d blocks: want at most 2^24", part.Blocks)
	}
	order, err := fec.Interleave(part.Blocks, int(depth))
	if err != nil {
		return fmt.Errorf("order object: %w", err)
	}
	o.part, o.depth, o.order = part, depth, order
	return nil
}

func (o *rxObject) refuse(err error) {
	o.src.r.event(ReceiverEvent{Kind: ObjectRefused, Key: o.src.key(o.id), Err: err})
	o.src.end(o, objectRefused)
}

// offer asks the caller for a Sink.
func (o *rxObject) offer() {
	r, key := o.src.r, o.src.key(o.id)
	sink, err := r.cfg.Accept(Offer{Key: key, Size: o.fti.Size, SegmentSize: int(o.fti.Segment), HasInfo: o.hasInfo, Info: o.info})
	if errors.Is(err, ErrNeedInfo) && o.hasInfo && o.info == nil {
		return
	}
	if err == nil && sink == nil {
		err = errors.New("no sink for the object")
	}
	if err == nil {
		o.code, err = r.code(int(o.fti.K), int(o.fti.Parity))
	}
	if err != nil {
		o.refuse(err)
		return
	}
	o.state, o.sink = objectOpen, sink
	o.left, o.complete, o.blocks = o.part.Blocks, blockSet{}, map[uint32]*rxBlock{}
	r.event(ReceiverEvent{Kind: ObjectStarted, Key: key, Info: slices.Clone(o.info)})
	o.join(o.src.joined)
	for _, m := range o.src.early.drop(o.id) {
		if o.state == objectOpen && !o.take(&m) {
			r.stats.Rejected++
		}
	}
	o.finish() // an empty object is complete
}

// takeInfo takes NORM_INFO.
func (o *rxObject) takeInfo(payload []byte) {
	if o.ended() || o.info != nil {
		return
	}
	if o.src.r.earlyBytes()+len(payload) > o.src.r.cfg.MaxParityBytes/4 {
		return // as if it had been lost
	}
	o.info = append(make([]byte, 0, len(payload)), payload...)
	o.src.r.infoBytes += len(payload)
	o.src.nack.answered()
	switch {
	case o.state == objectOpen:
		o.src.r.event(ReceiverEvent{Kind: ObjectInfo, Key: o.src.key(o.id), Info: slices.Clone(o.info)})
		o.finish()
	case o.hasFTI:
		o.offer()
	}
}

// block gives the state of a block that is not complete, or nil if it is
// complete or there are too many.
func (o *rxObject) block(n uint32) *rxBlock {
	b := o.blocks[n]
	if b == nil && n >= o.low && !o.complete.has(n) && o.src.r.blocks() < o.src.r.cfg.MaxBlocks {
		b = &rxBlock{n: o.part.Len(int64(n))}
		o.blocks[n] = b
		o.src.blocks++
	}
	return b
}

// blocks is how many are partly received, of all senders.
func (r *Receiver) blocks() (n int) {
	for _, s := range r.sources {
		n += s.blocks
	}
	return n
}

// spareBlock is block for what the block itself does not need: it leaves half
// of the states to blocks of which something arrives.
func (o *rxObject) spareBlock(n uint32) *rxBlock {
	if o.src.r.blocks() >= o.src.r.cfg.MaxBlocks/2 {
		return o.blocks[n]
	}
	return o.block(n)
}

// take takes a symbol. It reports false if the message makes no sense.
func (o *rxObject) take(m *Data) bool {
	if m.FEC != o.fec || int64(m.Block) >= o.part.Blocks {
		return false
	}
	n, i := o.part.Len(int64(m.Block)), int(m.Symbol)
	if i >= n+int(o.fti.Parity) || (m.FEC == FECSmallBlock && int(m.BlockLen) != n) {
		return false
	}
	_, longest := o.part.Span(int64(m.Block), 0)
	off, size := int64(0), longest
	if i < n {
		off, size = o.part.Span(int64(m.Block), i)
	}
	if len(m.Payload) != size {
		return false
	}
	r := o.src.r
	b := o.block(m.Block)
	if b == nil || b.have.has(i) {
		r.stats.Duplicates++
		return true
	}
	if i < n {
		if _, err := o.sink.WriteAt(m.Payload, off); err != nil {
			o.src.abandon(o.id, fmt.Errorf("write at %d: %w", off, err))
			return true
		}
		b.sources++
	} else {
		stride := fec.Stride(int(o.fti.Segment))
		if !o.src.makeRoom(b, stride) {
			return true // as if it had been lost
		}
		data := make([]byte, stride)
		copy(data, m.Payload)
		b.hold(o.src, parityRow{i - n, data})
	}
	if i >= n || m.Flags&FlagRepair != 0 {
		b.heard = time.Time{} // what the others asked for is on its way
	}
	b.have.add(i)
	b.spent = b.spent || i == n+int(o.fti.Parity)-1
	r.stats.Symbols++
	if b.sources+len(b.parity) >= n {
		o.completeBlock(m.Block, b, n)
	}
	return true
}

// completeBlock decodes what is missing of a block and counts it as done.
func (o *rxObject) completeBlock(number uint32, b *rxBlock, n int) {
	if b.sources < n {
		if err := o.decode(number, b, n); err != nil {
			o.src.abandon(o.id, err)
			return
		}
		o.src.r.stats.Decoded += uint64(n - b.sources)
	}
	b.dropParity(o.src)
	delete(o.blocks, number)
	o.src.blocks--
	o.complete.add(number)
	o.left--
	for int64(o.low) < o.part.Blocks && o.complete.has(o.low) {
		o.low++
	}
	o.finish()
}

// finish ends the object if nothing is missing.
func (o *rxObject) finish() {
	if o.state != objectOpen || o.left > 0 || (o.hasInfo && o.info == nil) {
		return
	}
	if o.from > 0 {
		o.src.abandon(o.id, ErrJoinedLate)
		return
	}
	o.src.r.event(ReceiverEvent{Kind: ObjectComplete, Key: o.src.key(o.id), Info: slices.Clone(o.info)})
	o.src.end(o, objectComplete)
}

// decode computes a block's missing source symbols and writes them. The other
// ones are read back from the sink.
func (o *rxObject) decode(number uint32, b *rxBlock, n int) error {
	r := o.src.r
	start, _ := o.part.Span(int64(number), 0)
	last, tail := o.part.Span(int64(number), n-1)
	size := int(last-start) + tail
	stride := fec.Stride(int(o.fti.Segment))
	if cap(r.raw) < size {
		r.raw = make([]byte, size)
	}
	raw := r.raw[:size]
	got, err := o.sink.ReadAt(raw, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read back at %d: %w", start, err)
	}
	clear(raw[max(got, 0):])
	if len(r.symbols) < n || len(r.symbols[0]) != stride {
		r.symbols = fec.Buffers(n, stride)
	}
	source := r.symbols[:n]
	var missing, rows []int
	var parity [][]byte
	for i := range source {
		if b.have.has(i) {
			from := i * int(o.fti.Segment)
			clear(source[i][copy(source[i], raw[from:min(from+int(o.fti.Segment), size)]):])
			continue
		}
		p := b.parity[len(missing)]
		missing, rows, parity = append(missing, i), append(rows, p.row), append(parity, p.data)
	}
	if err := o.code.Reconstruct(source, missing, rows, parity); err != nil {
		return fmt.Errorf("decode block %d: %w", number, err)
	}
	for _, i := range missing {
		off, size := o.part.Span(int64(number), i)
		if _, err := o.sink.WriteAt(source[i][:size], off); err != nil {
			return fmt.Errorf("write at %d: %w", off, err)
		}
	}
	return nil
}
