package norm

import "fmt"

// NodeID names a participant of a session (NormNodeId, RFC 5740 §4.1). 0 and
// 0xffffffff are reserved: they name nobody and anybody.
type NodeID uint32

// Reserved node ids.
const (
	NodeNone NodeID = 0
	NodeAny  NodeID = 0xffffffff
)

// Valid reports whether id can name a single participant.
func (id NodeID) Valid() bool { return id != NodeNone && id != NodeAny }

// ObjectID is an object_transport_id. It wraps, so ids are ordered as serial
// numbers (RFC 1982).
type ObjectID uint16

// Before reports whether id comes before other in serial-number order.
func (id ObjectID) Before(other ObjectID) bool { return int16(id-other) < 0 }

// Distance is the number of steps from other to id, negative when id is older.
func (id ObjectID) Distance(other ObjectID) int { return int(int16(id - other)) }

// Position is a point in a sender's transmission: an object, a source block
// of it and a symbol of that block.
type Position struct {
	Object ObjectID
	Block  uint32
	Symbol uint16
}

// Before reports whether p is transmitted earlier than q in the first pass.
func (p Position) Before(q Position) bool {
	if p.Object != q.Object {
		return p.Object.Before(q.Object)
	}
	if p.Block != q.Block {
		return p.Block < q.Block
	}
	return p.Symbol < q.Symbol
}

// String gives object:block:symbol.
func (p Position) String() string {
	return fmt.Sprintf("%d:%d:%d", p.Object, p.Block, p.Symbol)
}

// Range is the bytes of an object from Start up to, not including, End.
type Range struct {
	Start, End int64
}
