package norm

import "encoding/binary"

// Nack is NORM_NACK: a receiver's requests for repair (RFC 5740 §4.3.1).
type Nack struct {
	Header
	Sender       NodeID // whom it is for
	Instance     uint16
	GRTTResponse Timestamp // send_time of the last CMD(CC) plus the time held
	Requests     Requests
}

// Types of ACK below 16, the first of the application's own.
const (
	AckCC    = 1
	AckFlush = 2
)

// Ack is NORM_ACK: a receiver's answer to a probe, a watermark or an
// application's request (RFC 5740 §4.3.2).
type Ack struct {
	Header
	Sender         NodeID
	Instance       uint16
	AckType, AckID uint8
	GRTTResponse   Timestamp
	Payload        []byte
}

func (m *Nack) parse(f frame) error {
	m.Header.parse(f)
	m.Sender = NodeID(binary.BigEndian.Uint32(f.pkt[8:]))
	m.Instance = binary.BigEndian.Uint16(f.pkt[12:])
	m.GRTTResponse = parseTimestamp(f.pkt[16:])
	m.Requests = f.payload()
	return m.Requests.check(f.hdr)
}

// Append implements Message.
func (m *Nack) Append(b []byte) []byte {
	b = m.Header.append(b, TypeNack, 24)
	b = binary.BigEndian.AppendUint32(b, uint32(m.Sender))
	b = binary.BigEndian.AppendUint16(b, m.Instance)
	b = m.GRTTResponse.append(append(b, 0, 0))
	return append(append(b, m.Ext...), m.Requests...)
}

func (m *Ack) parse(f frame) error {
	m.Header.parse(f)
	m.Sender = NodeID(binary.BigEndian.Uint32(f.pkt[8:]))
	m.Instance = binary.BigEndian.Uint16(f.pkt[12:])
	m.AckType, m.AckID = f.pkt[14], f.pkt[15]
	m.GRTTResponse = parseTimestamp(f.pkt[16:])
	m.Payload = f.payload()
	if m.AckType == AckFlush {
		_, err := m.watermark(f.hdr)
		return err
	}
	return nil
}

// Append implements Message.
func (m *Ack) Append(b []byte) []byte {
	b = m.Header.append(b, TypeAck, 24)
	b = binary.BigEndian.AppendUint32(b, uint32(m.Sender))
	b = binary.BigEndian.AppendUint16(b, m.Instance)
	b = m.GRTTResponse.append(append(b, m.AckType, m.AckID))
	return append(append(b, m.Ext...), m.Payload...)
}

// watermark reads the position that an ACK(FLUSH) confirms.
func (m *Ack) watermark(offset int) (Position, error) {
	if len(m.Payload) < 8 {
		return Position{}, malformed(offset, "watermark of %d bytes", len(m.Payload))
	}
	fec := FECID(m.Payload[0])
	if n := fec.payloadIDLen(); n == 0 || len(m.Payload) < 4+n {
		return Position{}, malformed(offset, "watermark of %d bytes with fec_id %d", len(m.Payload), fec)
	}
	p := Position{Object: ObjectID(binary.BigEndian.Uint16(m.Payload[2:]))}
	p.Block, p.Symbol, _ = parsePayloadID(fec, m.Payload[4:])
	return p, nil
}
