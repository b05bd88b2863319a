package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A segment is a header of segmentHead bytes, then records, each at a multiple of
// recordAlign. Integers are big-endian, checksums are CRC-32C.
//
//	0  magic "CISTSEG2"
//	8  version (4), id (4)
//	16 salt (8): random
//	24 checksum of what is above; zero to 32
//
//	0  magic "CiR2"
//	4  length of the card (4)
//	8  number
//	16 length of the body (4)
//	20 checksum of the card (4), of the body (4)
//	28 checksum of salt, id, offset and what is above
//	32 card, body
//
// Nobody outside knows the salt, so no body can pose as a record, whatever is in
// it, when a scan looks for the next one behind a damaged place.
const (
	segmentMagic   = "CISTSEG2"
	segmentVersion = 2
	segmentHead    = 32
	recordMagic    = "CiR2"
	recordHead     = 32
	recordAlign    = 8
	recordMax      = recordHead + MaxCard + MaxSmall

	// SegmentSize is how large a segment grows, in bytes.
	SegmentSize = 8 << 20
	// MaxSmall bounds the body of an object in a segment, in bytes.
	MaxSmall = 64 << 10
)

// Place is where a small object lies.
type Place struct {
	Segment uint32
	Off     uint32 // bytes from the start of the segment
	Len     uint32 // bytes, with the record's own header
}

func appendSegmentHead(b []byte, id uint32, salt uint64) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint64(b, salt)
	b = binary.BigEndian.AppendUint32(b, sum(b[start:]))
	return append(b, make([]byte, segmentHead-(len(b)-start))...)
}

// parseSegmentHead gives the salt.
func parseSegmentHead(b []byte, id uint32) (uint64, error) {
	if len(b) < segmentHead || string(b[:8]) != segmentMagic || binary.BigEndian.Uint32(b[8:]) != segmentVersion ||
		binary.BigEndian.Uint32(b[12:]) != id || binary.BigEndian.Uint32(b[24:]) != sum(b[:24]) {
		return 0, fmt.Errorf("header of segment %d: %w", id, ErrDamaged)
	}
	return binary.BigEndian.Uint64(b[16:]), nil
}

// align is where the next record begins.
func align(n int64) int64 { return (n + recordAlign - 1) &^ (recordAlign - 1) }

// appendRecord appends a record that is to lie at p, and the gap to the next one.
func appendRecord(b []byte, p Place, salt, num uint64, card, body []byte) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(card)))
	b = binary.BigEndian.AppendUint64(b, num)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, sum(card))
	b = binary.BigEndian.AppendUint32(b, sum(body))
	b = binary.BigEndian.AppendUint32(b, recordSum(b[start:], p, salt))
	b = append(append(b, card...), body...)
	var gap [recordAlign]byte
	return append(b, gap[:align(int64(p.Len))-int64(p.Len)]...)
}

func recordSum(head []byte, p Place, salt uint64) uint32 {
	return sum(head, salt, uint64(p.Segment)<<32|uint64(p.Off))
}

// record is what a sound header of a record says.
type record struct {
	place    Place
	num      uint64
	card     uint32 // bytes
	body     uint32 // bytes
	cardSum  uint32
	bodySum  uint32
	contents []byte // card and body; short if the segment ends before them
}

// parseRecord reads the record at p; p.Len is not looked at.
func parseRecord(b []byte, p Place, salt uint64) (record, error) {
	if len(b) < recordHead || string(b[:4]) != recordMagic || binary.BigEndian.Uint32(b[28:]) != recordSum(b[:28], p, salt) {
		return record{}, damagedAt(p)
	}
	r := record{
		place: p, num: binary.BigEndian.Uint64(b[8:]),
		card: binary.BigEndian.Uint32(b[4:]), body: binary.BigEndian.Uint32(b[16:]),
		cardSum: binary.BigEndian.Uint32(b[20:]), bodySum: binary.BigEndian.Uint32(b[24:]),
	}
	if r.card > MaxCard || r.body > MaxSmall {
		return record{}, damagedAt(p)
	}
	r.place.Len = recordHead + r.card + r.body
	r.contents = b[recordHead:min(len(b), int(r.place.Len))]
	return r, nil
}

func damagedAt(p Place) error {
	return fmt.Errorf("record at %d in segment %d: %w", p.Off, p.Segment, ErrDamaged)
}

// split checks card and body.
func (r record) split() (card, body []byte, err error) {
	if uint32(len(r.contents)) != r.card+r.body {
		return nil, nil, fmt.Errorf("segment ends too early: %w", damagedAt(r.place))
	}
	card, body = r.contents[:r.card:r.card], r.contents[r.card:]
	if sum(card) != r.cardSum || sum(body) != r.bodySum {
		return nil, nil, fmt.Errorf("object %d: %w", r.num, damagedAt(r.place))
	}
	return card, body, nil
}

// scanRecords finds the records in the bytes of a whole segment, until use returns
// false. Behind a damaged header it looks for the next sound one; each such gap is
// told once, without a number, unless nothing was ever written there. end is where
// the last sound record ends.
func scanRecords(data []byte, id uint32, salt uint64, use func(r record, card, body []byte, err error) bool) (end int64) {
	end = segmentHead
	gap := int64(-1)
	for off := int64(segmentHead); off < int64(len(data)); {
		var r record
		err := ErrDamaged
		if bytes.HasPrefix(data[off:], []byte(recordMagic)) {
			r, err = parseRecord(data[off:], Place{Segment: id, Off: uint32(off)}, salt)
		}
		if err != nil {
			if gap < 0 {
				gap = off
			}
			off += recordAlign
			continue
		}
		if gap >= 0 && !tellGap(data[gap:off], id, gap, use) {
			return end
		}
		gap = -1
		card, body, err := r.split()
		if err == nil {
			end = min(align(off+int64(r.place.Len)), int64(len(data)))
		}
		if !use(r, card, body, err) {
			return end
		}
		off = align(off + int64(r.place.Len))
	}
	if gap >= 0 {
		tellGap(data[gap:], id, gap, use)
	}
	return end
}

func tellGap(gap []byte, id uint32, off int64, use func(record, []byte, []byte, error) bool) bool {
	if len(bytes.TrimLeft(gap, "\x00")) == 0 {
		return true
	}
	p := Place{Segment: id, Off: uint32(off)}
	return use(record{place: p}, nil, nil, damagedAt(p))
}
