package norm

// SenderEventKind says what a SenderEvent is about.
type SenderEventKind uint8

// Kinds of SenderEvent.
const (
	// ObjectSent: the first pass over the object is over; repairs may follow.
	ObjectSent SenderEventKind = iota + 1
	// ObjectFailed: the content could not be read (Err); the object was dropped.
	ObjectFailed
	// RepairsSpent: a repair limit of the object was reached; what is open
	// must come another way. Said once for an object.
	RepairsSpent
	// NodeAcked: Node has confirmed everything up to and including Object.
	NodeAcked
	// NodeFailed: Node did not confirm Object although asked Robust times.
	NodeFailed
	// Flushed: everything was sent, and the whole FLUSH sequence after it
	// brought no request. Said again after each later burst of repairs.
	Flushed
	// NodeReplied: Node has answered RequestAck (AckType, AckID) with Payload.
	NodeReplied
	// NodeSilent: Node did not answer RequestAck although asked Robust times.
	NodeSilent
	// Closed: EOT has been sent; Poll gives nothing any more.
	Closed
)

// SenderEvent is something the caller of a Sender may act on.
type SenderEvent struct {
	Kind   SenderEventKind
	Object ObjectID
	Node   NodeID
	Err    error

	AckType, AckID uint8  // of RequestAck
	Payload        []byte // of the answer
}
