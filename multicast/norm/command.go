package norm

import (
	"encoding/binary"
	"iter"
	"time"
)

// NodeList is an encoded list of node ids, 4 bytes each.
type NodeList []byte

// All gives each id.
func (l NodeList) All() iter.Seq[NodeID] {
	return func(yield func(NodeID) bool) {
		for ; len(l) >= 4; l = l[4:] {
			if !yield(NodeID(binary.BigEndian.Uint32(l))) {
				return
			}
		}
	}
}

// Append appends an id.
func (l NodeList) Append(id NodeID) NodeList { return binary.BigEndian.AppendUint32(l, uint32(id)) }

// Timestamp is a time as the wire has it: seconds and microseconds.
type Timestamp struct {
	Sec, Usec uint32
}

// timestamp converts t.
func timestamp(t time.Time) Timestamp {
	return Timestamp{uint32(t.Unix()), uint32(t.Nanosecond() / 1000)}
}

// zero reports whether no time is given.
func (t Timestamp) zero() bool { return t == Timestamp{} }

// sub is t - u, over the wrap of 32-bit seconds.
func (t Timestamp) sub(u Timestamp) time.Duration {
	return time.Duration(int32(t.Sec-u.Sec))*time.Second + time.Duration(int64(t.Usec)-int64(u.Usec))*time.Microsecond
}

// add is t + d.
func (t Timestamp) add(d time.Duration) Timestamp {
	us := int64(t.Usec) + d.Microseconds()
	return Timestamp{t.Sec + uint32(us/1_000_000), uint32(us % 1_000_000)}
}

func parseTimestamp(b []byte) Timestamp {
	return Timestamp{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

func (t Timestamp) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, t.Sec), t.Usec)
}

// Flush is CMD(FLUSH): the sender has sent everything up to a position. Nodes
// listed confirm that they have it (RFC 5740 §4.2.3.1).
type Flush struct {
	SenderHeader
	FEC FECID
	Position
	BlockLen uint16
	Nodes    NodeList
}

// EOT is CMD(EOT): the sender stops (RFC 5740 §4.2.3.2).
type EOT struct {
	SenderHeader
}

// Squelch is CMD(SQUELCH): repair begins at a position, and the objects listed
// behind it are not repaired either (RFC 5740 §4.2.3.3).
type Squelch struct {
	SenderHeader
	FEC FECID
	Position
	BlockLen uint16
	Invalid  []byte // object ids, 2 bytes each
}

// AckReq is CMD(ACK_REQ): the nodes listed answer with an ACK of this type and
// id (RFC 5740 §4.2.3.6).
type AckReq struct {
	SenderHeader
	AckType, AckID uint8
	Nodes          NodeList
}

// Application is CMD(APPLICATION): data of the application.
type Application struct {
	SenderHeader
	Payload []byte
}

func checkNodes(f frame) (NodeList, error) {
	if n := len(f.payload()); n%4 != 0 {
		return nil, malformed(f.hdr, "list of node ids of %d bytes", n)
	}
	return NodeList(f.payload()), nil
}

func (m *Flush) parse(f frame) (err error) {
	m.SenderHeader.parse(f)
	m.FEC, m.Object = FECID(f.pkt[13]), ObjectID(binary.BigEndian.Uint16(f.pkt[14:]))
	m.Block, m.Symbol, m.BlockLen = parsePayloadID(m.FEC, f.pkt[16:])
	m.Nodes, err = checkNodes(f)
	return err
}

// Append implements Message.
func (m *Flush) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 16+m.FEC.payloadIDLen())
	b = append(b, byte(FlavorFlush), byte(m.FEC))
	b = binary.BigEndian.AppendUint16(b, uint16(m.Object))
	b = appendPayloadID(b, m.FEC, m.Block, m.Symbol, m.BlockLen)
	return append(append(b, m.Ext...), m.Nodes...)
}

func (m *EOT) parse(f frame) error {
	m.SenderHeader.parse(f)
	return nil
}

// Append implements Message.
func (m *EOT) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 16)
	return append(append(b, byte(FlavorEOT), 0, 0, 0), m.Ext...)
}

func (m *Squelch) parse(f frame) error {
	m.SenderHeader.parse(f)
	m.FEC, m.Object = FECID(f.pkt[13]), ObjectID(binary.BigEndian.Uint16(f.pkt[14:]))
	m.Block, m.Symbol, m.BlockLen = parsePayloadID(m.FEC, f.pkt[16:])
	m.Invalid = f.payload()
	if n := len(m.Invalid); n%2 != 0 {
		return malformed(f.hdr, "list of object ids of %d bytes", n)
	}
	return nil
}

// Append implements Message.
func (m *Squelch) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 16+m.FEC.payloadIDLen())
	b = append(b, byte(FlavorSquelch), byte(m.FEC))
	b = binary.BigEndian.AppendUint16(b, uint16(m.Object))
	b = appendPayloadID(b, m.FEC, m.Block, m.Symbol, m.BlockLen)
	return append(append(b, m.Ext...), m.Invalid...)
}

// lists reports whether the command names the object as invalid.
func (m *Squelch) lists(id ObjectID) bool {
	for l := m.Invalid; len(l) >= 2; l = l[2:] {
		if ObjectID(binary.BigEndian.Uint16(l)) == id {
			return true
		}
	}
	return false
}

func (m *AckReq) parse(f frame) (err error) {
	m.SenderHeader.parse(f)
	m.AckType, m.AckID = f.pkt[14], f.pkt[15]
	m.Nodes, err = checkNodes(f)
	return err
}

// Append implements Message.
func (m *AckReq) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 16)
	b = append(b, byte(FlavorAckReq), 0, m.AckType, m.AckID)
	return append(append(b, m.Ext...), m.Nodes...)
}

func (m *Application) parse(f frame) error {
	m.SenderHeader.parse(f)
	m.Payload = f.payload()
	return nil
}

// Append implements Message.
func (m *Application) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 16)
	b = append(b, byte(FlavorApplication), 0, 0, 0)
	return append(append(b, m.Ext...), m.Payload...)
}
