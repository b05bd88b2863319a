package norm

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

const (
	maxObjectSize = 1<<48 - 1
	maxBlocks     = 1 << 24
	// maxWindow is how far object ids may lie apart; half the serial-number
	// space, less some room for receivers that lag.
	maxWindow = 1 << 14
)

// Object is a content to be sent.
type Object struct {
	// Content is read at any offset below Size, from within Poll only. It must
	// not block for long and must stay unchanged until the object is dropped.
	Content io.ReaderAt
	// Size in bytes, 0 to 2^48-1 (and at most 2^24 blocks).
	Size int64
	// Info is the payload of NORM_INFO, empty for none. With the Auth extension
	// and 20 bytes it must fit into a segment. It is required with Auth, for
	// it is what vouches for the object's size, and for an empty object, for it
	// is all that is sent of it.
	Info []byte
}

// Sender sends objects to a group and answers its repair requests.
type Sender struct {
	cfg      SenderConfig
	rng      *rand.Rand
	code     *fec.Code
	instance uint16
	sequence uint16
	stats    SenderStats
	events   []SenderEvent

	// Objects have the ids from oldest up to, not including, next; those
	// dropped are missing from the map. The first pass is at pass.
	objects      map[ObjectID]*txObject
	oldest, next ObjectID
	pass         Position
	read         readAhead
	parity       parityCache

	ahead     anticipation
	repair    repairState
	probe     probeState
	tfmcc     congestion
	quantized struct { // what goes into each header, for it takes logarithms
		from        time.Duration
		grtt, group uint8
	}
	flush     flushState
	watermark watermarkState
	queries   []*query
	squelch   squelchState
	receivers map[NodeID]*ReceiverReport
	eot       eotState
	closing   bool
	tasks     [10]task
}

// NewSender makes a Sender. It fails if cfg is not valid.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sender config: %w", err)
	}
	cfg = cfg.withDefaults()
	code, err := fec.New(cfg.K, cfg.Parity)
	if err != nil {
		return nil, fmt.Errorf("make code: %w", err)
	}
	s := &Sender{
		cfg: cfg, rng: rand.New(cfg.Rand), code: code, instance: cfg.Instance,
		objects: map[ObjectID]*txObject{}, receivers: map[NodeID]*ReceiverReport{},
		parity: newParityCache(cfg.ParityCache),
	}
	s.tasks = s.allTasks()
	for s.instance == 0 {
		s.instance = uint16(s.rng.Uint32())
	}
	s.probe.grtt = cfg.GRTT
	s.quantized.group = quantizeGroup(cfg.GroupSize)
	s.startTFMCC()
	s.clampGRTT()
	return s, nil
}

// Instance is the instance_id of this sender, for a signed notice.
func (s *Sender) Instance() uint16 { return s.instance }

// Add queues an object behind those already there. The id stays taken until
// the object is dropped.
func (s *Sender) Add(o Object) (ObjectID, error) {
	if s.closing {
		return 0, errors.New("add object: sender is closed")
	}
	if s.next.Distance(s.oldest) >= maxWindow {
		return 0, fmt.Errorf("add object: %d objects not dropped yet", maxWindow)
	}
	if (o.Content == nil && o.Size > 0) || o.Size < 0 || o.Size > maxObjectSize {
		return 0, fmt.Errorf("add object: size %d is not in 0..2^48-1, or no content", o.Size)
	}
	part, err := fec.Partition(o.Size, s.cfg.SegmentSize, s.cfg.K)
	if err != nil {
		return 0, fmt.Errorf("add object: %w", err)
	}
	if part.Blocks > maxBlocks {
		return 0, fmt.Errorf("add object: %d blocks, want at most 2^24", part.Blocks)
	}
	order, err := fec.Interleave(part.Blocks, s.cfg.Interleave)
	if err != nil {
		return 0, fmt.Errorf("add object: %w", err)
	}
	if limit := s.cfg.SegmentSize - s.authLen() - 20; len(o.Info) > limit {
		return 0, fmt.Errorf("add object: information of %d bytes, want at most %d", len(o.Info), limit)
	}
	if (s.cfg.Auth != nil || o.Size == 0) && len(o.Info) == 0 {
		return 0, errors.New("add object: information is needed for authentication, and for an empty object")
	}
	id := s.next
	s.next++
	s.objects[id] = &txObject{
		Object: o, id: id, part: part, order: order, blocks: map[uint32]*txBlock{},
		fti: FTI{o.Size, uint16(s.cfg.SegmentSize), uint16(s.cfg.K), uint16(s.cfg.Parity)},
	}
	return id, nil
}

// Drop forgets an object, sent or not; requests for it are squelched.
func (s *Sender) Drop(id ObjectID) {
	o := s.objects[id]
	if o == nil {
		return
	}
	o.dropped = true
	delete(s.objects, id)
	s.dropRepairs(o)
	s.parity.drop(id)
	for s.oldest != s.next && s.objects[s.oldest] == nil {
		s.oldest++
	}
	if s.pass.Object == id {
		s.nextObject()
	}
	if s.watermark.object == id {
		s.failWatermark()
	}
}

// SetRate tells the rate at which the caller sends, in bytes per second; with
// Congestion it is the most that Rate gives.
func (s *Sender) SetRate(bytesPerSecond int64) {
	s.cfg.Rate = max(bytesPerSecond, 1000)
	s.clampGRTT()
}

// Stats is a snapshot of the counters.
func (s *Sender) Stats() SenderStats {
	st := s.stats
	st.GRTT = s.grtt()
	st.PendingRepairs = s.repair.pending
	return st
}

// A task is one thing that a Sender does when its time comes.
type task struct {
	// due says when, and false if there is nothing to do.
	due func(now time.Time) (time.Time, bool)
	// run appends a packet to b, or does its work and leaves b as it is.
	run func(now time.Time, b []byte) []byte
}

// allTasks is them in the order of their urgency.
func (s *Sender) allTasks() [10]task {
	return [...]task{
		{s.probeDue, s.runProbe},
		{s.squelchDue, s.runSquelch},
		{s.advertDue, s.runAdvert},
		{s.aggregationDue, s.runAggregation},
		{s.watermarkDue, s.runWatermark},
		{s.queryDue, s.runQuery},
		{s.infoDue, s.runInfo},
		{s.sendDue, s.runSend},
		{s.flushDue, s.runFlush},
		{s.eotDue, s.runEOT},
	}
}

// Poll appends the next packet that is due at now to b: repairs ahead of new
// data, commands when their time has come. It returns b unchanged when there
// is nothing to send before Wake. The caller paces: it polls whenever its
// token bucket lets a packet of SegmentSize+PacketOverhead bytes go.
func (s *Sender) Poll(now time.Time, b []byte) []byte {
	for _, t := range s.tasks {
		if at, ok := t.due(now); !ok || at.After(now) {
			continue
		}
		if out := t.run(now, b); len(out) > len(b) {
			s.stats.Packets++
			s.stats.Bytes += uint64(len(out) - len(b))
			return out
		}
	}
	return b
}

// Wake is when Poll should be called next: not after now if a packet is ready,
// the zero time if only Handle, Add or Close can make something to do.
func (s *Sender) Wake(now time.Time) time.Time {
	var first time.Time
	for _, t := range s.tasks {
		if at, ok := t.due(now); ok && (first.IsZero() || at.Before(first)) {
			first = at
			if at.IsZero() {
				return now
			}
		}
	}
	return first
}

// Events gives what happened since it was last called, oldest first.
func (s *Sender) Events() []SenderEvent {
	ev := s.events
	s.events = nil
	return ev
}

func (s *Sender) event(e SenderEvent) { s.events = append(s.events, e) }

// header is the beginning of the next message sent.
func (s *Sender) header() SenderHeader {
	s.sequence++
	if grtt := s.grtt(); grtt != s.quantized.from {
		s.quantized.from, s.quantized.grtt = grtt, quantizeRTT(grtt)
	}
	return SenderHeader{
		Header:    Header{Sequence: s.sequence - 1, Source: s.cfg.Node},
		Instance:  s.instance,
		GRTT:      s.quantized.grtt,
		Backoff:   uint8(s.cfg.Backoff),
		GroupSize: s.quantized.group,
	}
}

// authLen is the length of the authentication extension.
func (s *Sender) authLen() int {
	if s.cfg.Auth == nil {
		return 0
	}
	return s.cfg.Auth.Overhead() + 4
}

// command encodes and seals a message other than DATA. h is its header, which
// gets the authentication extension behind those it has.
func (s *Sender) command(b []byte, m Message, h *SenderHeader) []byte {
	if s.cfg.Auth == nil {
		return m.Append(b)
	}
	h.Ext = h.Ext.appendAuth(s.cfg.Auth.Overhead())
	out := m.Append(b)
	seal(s.cfg.Auth, out[len(b):])
	return out
}
