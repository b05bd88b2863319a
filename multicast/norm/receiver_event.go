package norm

import (
	"errors"
	"io"
)

// Sink takes the bytes of one object. They come in any order, each range at
// most once but for rare repeats, and are read back to decode a block. Both
// are called from within Handle only, never beyond the object's size.
type Sink interface {
	io.WriterAt
	io.ReaderAt
}

// ObjectKey names an object among all senders that a Receiver hears.
type ObjectKey struct {
	Source   NodeID
	Instance uint16
	Object   ObjectID
}

// Offer is an object that a sender has announced.
type Offer struct {
	Key         ObjectKey
	Size        int64
	SegmentSize int
	// HasInfo says that the object has NORM_INFO, Info is its payload or nil
	// as long as it has not arrived. It must not be kept or changed.
	HasInfo bool
	Info    []byte
}

// AckQuery is a sender's request for an application's acknowledgement.
type AckQuery struct {
	Source         NodeID
	Instance       uint16
	AckType, AckID uint8
}

// ErrNeedInfo is returned by an Accept function that cannot decide before the
// object's NORM_INFO is there. It is asked again when it is.
var ErrNeedInfo = errors.New("object information needed")

// ErrJoinedLate is why an object is abandoned of which a receiver with SyncHere
// has all that was sent since it joined.
var ErrJoinedLate = errors.New("joined late")

// ReceiverEventKind says what a ReceiverEvent is about.
type ReceiverEventKind uint8

// Kinds of ReceiverEvent.
const (
	// ObjectStarted: the object was offered and accepted.
	ObjectStarted ReceiverEventKind = iota + 1
	// ObjectRefused: Accept refused the object (Err), or a limit of the Config did.
	ObjectRefused
	// ObjectInfo: NORM_INFO (Info) of an accepted object arrived.
	ObjectInfo
	// ObjectComplete: all bytes were written to the Sink.
	ObjectComplete
	// ObjectAbandoned: nothing more will be written (Err); Missing is open.
	ObjectAbandoned
	// SenderFound: a sender, or a new instance of it, was heard first.
	SenderFound
	// SenderGone: the sender said EOT, fell silent or was replaced (Err).
	SenderGone
)

// ReceiverEvent is something the caller of a Receiver may act on. Key.Object
// has no meaning in events about senders.
type ReceiverEvent struct {
	Kind    ReceiverEventKind
	Key     ObjectKey
	Info    []byte
	Missing []Range
	Err     error
}
