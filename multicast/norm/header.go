package norm

import (
	"encoding/binary"
	"fmt"
)

// Version of the protocol, in the first nibble of each message.
const version = 1

// Type is the kind of a message (RFC 5740 §4.1).
type Type uint8

// Message types. REPORT (6) is not used.
const (
	TypeInfo Type = iota + 1
	TypeData
	TypeCmd
	TypeNack
	TypeAck
)

// Flavor is the kind of a CMD message (RFC 5740 §4.2.3).
type Flavor uint8

// Command flavors.
const (
	FlavorFlush Flavor = iota + 1
	FlavorEOT
	FlavorSquelch
	FlavorCC
	FlavorRepairAdv
	FlavorAckReq
	FlavorApplication
)

// FECID names the code and with it the layout of fec_payload_id and EXT_FTI.
type FECID uint8

// FEC schemes understood; both are the code of package fec.
const (
	FECReedSolomon FECID = 5   // RFC 5510: block 24 bits, symbol 8 bits
	FECSmallBlock  FECID = 129 // RFC 5445: block 32, block length 16, symbol 16 bits
)

// payloadIDLen is the length of fec_payload_id, 0 if the scheme is unknown.
func (f FECID) payloadIDLen() int {
	switch f {
	case FECReedSolomon:
		return 4
	case FECSmallBlock:
		return 8
	}
	return 0
}

// ParseError says what is wrong with a message, and where.
type ParseError struct {
	What   string
	Offset int // in bytes from the start of the message
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("norm message: %s at offset %d", e.What, e.Offset)
}

func malformed(offset int, what string, args ...any) error {
	return &ParseError{What: fmt.Sprintf(what, args...), Offset: offset}
}

// Header is what all messages begin with. What a parsed message holds in
// slices lies in the packet it was parsed from.
type Header struct {
	Sequence uint16
	Source   NodeID
	Ext      Extensions
}

// SenderHeader is what all messages of senders begin with (RFC 5740 §4.2).
// GRTT, Backoff and GroupSize are the quantized wire values.
type SenderHeader struct {
	Header
	Instance  uint16
	GRTT      uint8
	Backoff   uint8 // 4 bits: the factor K
	GroupSize uint8 // 4 bits
}

// Message is one parsed NORM message: *Info, *Data, *Flush, *EOT, *Squelch,
// *CC, *RepairAdv, *AckReq, *Application, *Nack or *Ack.
type Message interface {
	// Append appends the encoded message to b.
	Append(b []byte) []byte
	// parse fills the message from a packet whose frame has been checked.
	parse(f frame) error
}

// frame is a packet cut at its boundaries: base header, extensions, payload.
type frame struct {
	pkt       []byte
	base, hdr int
}

func (f frame) payload() []byte { return f.pkt[f.hdr:] }

// cut checks the outline of a packet: version, lengths and extensions.
func cut(pkt []byte) (frame, error) {
	if len(pkt) < 16 {
		return frame{}, malformed(len(pkt), "ends before its common header")
	}
	if v := pkt[0] >> 4; v != version {
		return frame{}, malformed(0, "version %d", v)
	}
	base, err := baseLen(pkt)
	if err != nil {
		return frame{}, err
	}
	hdr := int(pkt[1]) * 4
	if hdr < base || hdr > len(pkt) {
		return frame{}, malformed(1, "header length %d, want %d to %d", hdr, base, len(pkt))
	}
	if id := NodeID(binary.BigEndian.Uint32(pkt[4:])); !id.Valid() {
		return frame{}, malformed(4, "source_id %#x", uint32(id))
	}
	return frame{pkt, base, hdr}, checkExtensions(pkt[base:hdr], base)
}

// baseLen is the length of a packet's header without extensions, of at least
// 16 bytes.
func baseLen(pkt []byte) (int, error) {
	withID := func(at int) (int, error) {
		n := FECID(pkt[at]).payloadIDLen()
		if n == 0 {
			return 0, malformed(at, "unknown fec_id %d", pkt[at])
		}
		return 16 + n, nil
	}
	switch t := Type(pkt[0] & 15); t {
	case TypeInfo:
		return 16, nil
	case TypeData:
		return withID(13)
	case TypeNack, TypeAck:
		return 24, nil
	case TypeCmd:
		switch flavor := Flavor(pkt[12]); flavor {
		case FlavorFlush, FlavorSquelch:
			return withID(13)
		case FlavorCC:
			return 24, nil
		case FlavorEOT, FlavorRepairAdv, FlavorAckReq, FlavorApplication:
			return 16, nil
		default:
			return 0, malformed(12, "unknown command flavor %d", flavor)
		}
	default:
		return 0, malformed(0, "unknown message type %d", t)
	}
}

// Parse decodes a packet. It allocates one message of fixed size; what the
// message refers to stays in pkt.
func Parse(pkt []byte) (Message, error) {
	f, err := cut(pkt)
	if err != nil {
		return nil, err
	}
	m := newMessage(Type(pkt[0]&15), Flavor(pkt[12]))
	if err := m.parse(f); err != nil {
		return nil, err
	}
	return m, nil
}

// newMessage gives an empty message of a kind that cut has let through.
func newMessage(t Type, flavor Flavor) Message {
	switch t {
	case TypeInfo:
		return new(Info)
	case TypeData:
		return new(Data)
	case TypeNack:
		return new(Nack)
	case TypeAck:
		return new(Ack)
	}
	switch flavor {
	case FlavorFlush:
		return new(Flush)
	case FlavorEOT:
		return new(EOT)
	case FlavorSquelch:
		return new(Squelch)
	case FlavorCC:
		return new(CC)
	case FlavorRepairAdv:
		return new(RepairAdv)
	case FlavorAckReq:
		return new(AckReq)
	default:
		return new(Application)
	}
}

func (h *Header) parse(f frame) {
	h.Sequence = binary.BigEndian.Uint16(f.pkt[2:])
	h.Source = NodeID(binary.BigEndian.Uint32(f.pkt[4:]))
	h.Ext = Extensions(f.pkt[f.base:f.hdr])
}

func (h *Header) append(b []byte, t Type, base int) []byte {
	b = append(b, version<<4|byte(t), byte((base+len(h.Ext))/4))
	b = binary.BigEndian.AppendUint16(b, h.Sequence)
	return binary.BigEndian.AppendUint32(b, uint32(h.Source))
}

func (h *SenderHeader) parse(f frame) {
	h.Header.parse(f)
	h.Instance = binary.BigEndian.Uint16(f.pkt[8:])
	h.GRTT = f.pkt[10]
	h.Backoff, h.GroupSize = f.pkt[11]>>4, f.pkt[11]&15
}

func (h *SenderHeader) append(b []byte, t Type, base int) []byte {
	b = h.Header.append(b, t, base)
	b = binary.BigEndian.AppendUint16(b, h.Instance)
	return append(b, h.GRTT, h.Backoff<<4|h.GroupSize&15)
}

// parsePayloadID reads a fec_payload_id; b is long enough for the scheme.
func parsePayloadID(fec FECID, b []byte) (block uint32, symbol, blockLen uint16) {
	if fec == FECSmallBlock {
		return binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[4:])
	}
	v := binary.BigEndian.Uint32(b)
	return v >> 8, uint16(v & 255), 0
}

func appendPayloadID(b []byte, fec FECID, block uint32, symbol, blockLen uint16) []byte {
	if fec == FECSmallBlock {
		b = binary.BigEndian.AppendUint32(b, block)
		b = binary.BigEndian.AppendUint16(b, blockLen)
		return binary.BigEndian.AppendUint16(b, symbol)
	}
	return binary.BigEndian.AppendUint32(b, block<<8|uint32(symbol&255))
}
