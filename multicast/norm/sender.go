package norm

import (
	"io"
	"time"
)

// Object is a content to be sent.
type Object struct {
	// Content is read at any offset below Size, from within Poll only. It must
	// not block for long and must stay unchanged until the object is dropped.
	Content io.ReaderAt
	// Size in bytes, 1 to 2^48-1 (and at most 2^24 blocks).
	Size int64
	// Info is the payload of NORM_INFO, empty for none. With it, the Auth
	// field and 16 bytes of FTI it must fit into a segment.
	Info []byte
}

// SenderEventKind says what a SenderEvent is about.
type SenderEventKind uint8

// Kinds of SenderEvent.
const (
	// ObjectSent: the first pass over the object is over; repairs may follow.
	ObjectSent SenderEventKind = iota + 1
	// ObjectFailed: the content could not be read (Err); the object was dropped.
	ObjectFailed
	// RepairsSpent: the object's repair limit was reached; later requests for
	// it are not answered, what is open must come another way.
	RepairsSpent
	// NodeAcked: Node has confirmed everything up to and including Object.
	NodeAcked
	// NodeFailed: Node did not confirm Object although asked Robust times.
	NodeFailed
	// Flushed: everything was sent, and the whole FLUSH sequence after it
	// brought no request. Said again after each later burst of repairs.
	Flushed
	// Closed: EOT has been sent; Poll gives nothing any more.
	Closed
)

// SenderEvent is something the caller of a Sender may act on.
type SenderEvent struct {
	Kind   SenderEventKind
	Object ObjectID
	Node   NodeID
	Err    error
}

// Poll appends the next packet that is due at now to b: repairs ahead of new
// data, commands when their time has come. It returns b unchanged when there
// is nothing to send before Wake. The caller paces: it polls whenever its
// token bucket lets a packet of SegmentSize+PacketOverhead bytes go.
func (s *Sender) Poll(now time.Time, b []byte) []byte { return s.poll(now, b) }

// Wake is when Poll should be called next: not after now if a packet is ready,
// the zero time if only Handle or Add can make something to do.
func (s *Sender) Wake(now time.Time) time.Time { return s.wake(now) }

// Handle takes a packet from the network. unicast says that it was addressed
// to this host alone, so that other receivers have not heard it. What is not
// valid feedback to this sender is counted and otherwise ignored; packets of
// other senders, and the sender's own, may be passed in too.
func (s *Sender) Handle(now time.Time, pkt []byte, unicast bool) { s.handle(now, pkt, unicast) }

// Events gives what happened since it was last called, oldest first.
func (s *Sender) Events() []SenderEvent {
	ev := s.events
	s.events = nil
	return ev
}
