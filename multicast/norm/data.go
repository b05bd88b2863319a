package norm

import "encoding/binary"

// Flags of INFO and DATA (RFC 5740 §4.2.1).
const (
	FlagRepair     = 0x01 // a retransmission
	FlagExplicit   = 0x02 // sent because this very symbol was asked for
	FlagInfo       = 0x04 // the object has NORM_INFO
	FlagUnreliable = 0x08 // nothing of the object is repaired
	FlagFile       = 0x10 // the object is a file
	FlagStream     = 0x20 // the object is a stream; not supported here
)

// Info is NORM_INFO: out-of-band data of an object, in one packet.
type Info struct {
	SenderHeader
	Flags   uint8
	FEC     FECID
	Object  ObjectID
	Payload []byte
}

// Data is NORM_DATA: a source or parity symbol of a block.
type Data struct {
	SenderHeader
	Flags uint8
	FEC   FECID
	Position
	BlockLen uint16 // source symbols of the block; FECSmallBlock only
	Payload  []byte
}

func (m *Info) parse(f frame) error {
	m.SenderHeader.parse(f)
	m.Flags, m.FEC = f.pkt[12], FECID(f.pkt[13])
	m.Object = ObjectID(binary.BigEndian.Uint16(f.pkt[14:]))
	m.Payload = f.payload()
	return nil
}

// Append implements Message.
func (m *Info) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeInfo, 16)
	b = append(b, m.Flags, byte(m.FEC))
	b = binary.BigEndian.AppendUint16(b, uint16(m.Object))
	return append(append(b, m.Ext...), m.Payload...)
}

func (m *Data) parse(f frame) error {
	m.SenderHeader.parse(f)
	m.Flags, m.FEC = f.pkt[12], FECID(f.pkt[13])
	m.Object = ObjectID(binary.BigEndian.Uint16(f.pkt[14:]))
	m.Block, m.Symbol, m.BlockLen = parsePayloadID(m.FEC, f.pkt[16:])
	m.Payload = f.payload()
	return nil
}

// Append implements Message.
func (m *Data) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeData, 16+m.FEC.payloadIDLen())
	b = append(b, m.Flags, byte(m.FEC))
	b = binary.BigEndian.AppendUint16(b, uint16(m.Object))
	b = appendPayloadID(b, m.FEC, m.Block, m.Symbol, m.BlockLen)
	return append(append(b, m.Ext...), m.Payload...)
}
