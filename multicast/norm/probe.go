package norm

import (
	"encoding/binary"
	"iter"
)

// CC is CMD(CC): a probe that receivers time, and the sender's view of some of
// them (RFC 5740 §4.2.3.4).
type CC struct {
	SenderHeader
	CCSequence uint16
	SendTime   Timestamp
	Items      CCItems
}

// CCItem is the sender's view of one receiver; RTT and Rate are quantized.
type CCItem struct {
	Node  NodeID
	Flags uint8
	RTT   uint8
	Rate  uint16
}

// CCItems is an encoded list of CCItem, 8 bytes each.
type CCItems []byte

// All gives each item.
func (l CCItems) All() iter.Seq[CCItem] {
	return func(yield func(CCItem) bool) {
		for ; len(l) >= 8; l = l[8:] {
			if !yield(CCItem{NodeID(binary.BigEndian.Uint32(l)), l[4], l[5], binary.BigEndian.Uint16(l[6:])}) {
				return
			}
		}
	}
}

// Append appends an item.
func (l CCItems) Append(i CCItem) CCItems {
	l = binary.BigEndian.AppendUint32(l, uint32(i.Node))
	return binary.BigEndian.AppendUint16(append(l, i.Flags, i.RTT), i.Rate)
}

func (m *CC) parse(f frame) error {
	m.SenderHeader.parse(f)
	m.CCSequence = binary.BigEndian.Uint16(f.pkt[14:])
	m.SendTime = parseTimestamp(f.pkt[16:])
	m.Items = f.payload()
	if n := len(m.Items); n%8 != 0 {
		return malformed(f.hdr, "list of receivers of %d bytes", n)
	}
	return nil
}

// Append implements Message.
func (m *CC) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 24)
	b = append(b, byte(FlavorCC), 0)
	b = binary.BigEndian.AppendUint16(b, m.CCSequence)
	b = m.SendTime.append(b)
	return append(append(b, m.Ext...), m.Items...)
}

// AdvLimit in RepairAdv.Flags says that not all pending repairs fitted.
const AdvLimit = 0x01

// RepairAdv is CMD(REPAIR_ADV): the requests that a sender has pending, so
// that receivers who did not hear them can hold theirs back (RFC 5740 §4.2.3.5).
type RepairAdv struct {
	SenderHeader
	Flags    uint8
	Requests Requests
}

func (m *RepairAdv) parse(f frame) error {
	m.SenderHeader.parse(f)
	m.Flags = f.pkt[13]
	m.Requests = f.payload()
	return m.Requests.check(f.hdr)
}

// Append implements Message.
func (m *RepairAdv) Append(b []byte) []byte {
	b = m.SenderHeader.append(b, TypeCmd, 16)
	b = append(b, byte(FlavorRepairAdv), m.Flags, 0, 0)
	return append(append(b, m.Ext...), m.Requests...)
}
