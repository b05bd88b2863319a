package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// What is read back must say again what was written; all else is an error of a
// known kind. So that the fuzzer gets past the checksums, what it made is tried a
// second time with the right ones.

// sealed puts the checksum of b[from:to] at b[at], if there is room for all.
func sealed(b []byte, at, from, to int, place ...uint64) []byte {
	b = slices.Clone(b)
	if at+4 <= len(b) && from <= to && to <= len(b) {
		binary.BigEndian.PutUint32(b[at:], sum(b[from:to], place...))
	}
	return b
}

// number reads a length that the fuzzer chose.
func number(b []byte, at int) int {
	if at+4 > len(b) {
		return 0
	}
	return int(binary.BigEndian.Uint32(b[at:]) & 0xffffff)
}

func FuzzHead(f *testing.F) {
	f.Add(uint64(5), appendCard(appendHeader(nil, 5, 100), 5, []byte("card")))
	f.Add(uint64(5), appendCard(appendHeader(nil, 5, content.UnknownSize), 5, nil))
	f.Add(uint64(0), appendCard(appendHeader(nil, 0, 0), 0, noise(1, MaxCard)))
	f.Add(uint64(0), make([]byte, headSize))
	check := func(t *testing.T, num uint64, b []byte) {
		size, err := parseHeader(b, num)
		if err == nil && !bytes.Equal(appendHeader(nil, num, size)[:28], b[:28]) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("size %d: %v", size, err)
		}
		if len(b) < headerSize {
			return
		}
		card, err := parseCard(b[headerSize:], num)
		switch {
		case err != nil && (!errors.Is(err, ErrDamaged) || card != nil), len(card) > MaxCard:
			t.Errorf("card of %d bytes: %v", len(card), err)
		case card != nil && !bytes.HasPrefix(b[headerSize:], appendCard(nil, num, card)):
			t.Error("the card is not what lies there")
		}
	}
	f.Fuzz(func(t *testing.T, num uint64, b []byte) {
		check(t, num, b)
		n := number(b, headerSize)
		b = sealed(b, 24, 0, 24, num)
		check(t, num, sealed(b, headerSize+4, headerSize+8, headerSize+8+n, num, uint64(n)))
	})
}

func FuzzSlot(f *testing.F) {
	leaves := make([]content.Hash, content.LeavesPerBlock)
	f.Add(uint64(5), int64(0), appendSlot(nil, 5, 0, slot{leaves: leaves}))
	f.Add(uint64(5), int64(9), appendSlot(nil, 5, 9, slot{leaves: leaves[:1]}))
	f.Add(uint64(5), int64(9), appendSlot(nil, 5, 9, slot{crc: 77}))
	f.Add(uint64(5), int64(9), make([]byte, slotSize))
	f.Add(uint64(5), int64(9), []byte{1})
	check := func(t *testing.T, num uint64, i int64, b []byte) {
		s, err := parseSlot(b, num, i)
		switch {
		case err != nil && (s.leaves != nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissing)):
			t.Errorf("%d leaves: %v", len(s.leaves), err)
		case err == nil && (s.leaves != nil && len(s.leaves) < 1 || !bytes.HasPrefix(b, appendSlot(nil, num, i, s))):
			t.Error("the slot is not what lies there")
		}
	}
	f.Fuzz(func(t *testing.T, num uint64, i int64, b []byte) {
		check(t, num, i, b)
		check(t, num, i, sealed(b, 0, 4, 8+32*number(b, 4), num, uint64(i)))
		check(t, num, i, sealed(b, 0, 4, 12, num, uint64(i)))
	})
}

func FuzzSegment(f *testing.F) {
	const salt = 77
	seg := appendSegmentHead(nil, 3, salt)
	for i := range uint64(3) {
		o := object{num: i, card: noise(i, 5), body: noise(i, 20+int(i))}
		p := Place{Segment: 3, Off: uint32(len(seg)), Len: uint32(recordHead + len(o.card) + len(o.body))}
		seg = appendRecord(seg, p, salt, o.num, o.card, o.body)
	}
	f.Add(seg)
	f.Add(seg[:len(seg)-9])
	f.Add(append(slices.Clone(seg), make([]byte, 100)...))
	f.Add(append(slices.Clone(seg[:40]), seg...))
	check := func(t *testing.T, b []byte) {
		if salt, err := parseSegmentHead(b, 3); err == nil && !bytes.Equal(appendSegmentHead(nil, 3, salt)[:28], b[:28]) {
			t.Error("the header is not what lies there")
		}
		last := int64(0)
		end := scanRecords(b, 3, salt, func(r record, card, body []byte, err error) bool {
			p := r.place
			if int64(p.Off) <= last || int(p.Off) >= len(b) || p.Segment != 3 {
				t.Errorf("a record at %v after %d", p, last)
			}
			last = int64(p.Off)
			if err != nil {
				if !errors.Is(err, ErrDamaged) || card != nil || body != nil {
					t.Errorf("%d and %d bytes with %v", len(card), len(body), err)
				}
				return true
			}
			if want := appendRecord(nil, p, salt, r.num, card, body); !bytes.HasPrefix(b[p.Off:], want[:p.Len]) {
				t.Error("the record is not what lies there")
			}
			return true
		})
		if end < segmentHead || end > max(segmentHead, int64(len(b))) {
			t.Errorf("end at %d of %d", end, len(b))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		check(t, b)
		const at = segmentHead
		card, body := number(b, at+4), number(b, at+16)
		b = sealed(b, at+20, at+recordHead, at+recordHead+card)
		b = sealed(b, at+24, at+recordHead+card, at+recordHead+card+body)
		check(t, sealed(b, at+28, at, at+28, salt, 3<<32|at))
	})
}

func FuzzMarker(f *testing.F) {
	m := marker{Format: 2, ID: "0123456789abcdef0123456789abcdef"}
	f.Add([]byte(`{"format":2,"id":"0123456789abcdef0123456789abcdef","sum":"` + m.sum() + `"}`))
	f.Add([]byte(`{"format":3,"id":"x"}`))
	f.Add([]byte(`{"format":1e999}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMarker(b)
		switch {
		case err == nil && (m.Format != format || m.ID == "" || m.Sum != m.sum()):
			t.Errorf("%+v passed", m)
		case err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer):
			t.Error(err)
		case errors.Is(err, ErrNewer) && m.Format <= format:
			t.Errorf("%+v is newer", m)
		}
	})
}

func FuzzNext(f *testing.F) {
	f.Add(appendNext(nil, 64))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseNext(b); err == nil && !bytes.Equal(appendNext(nil, n), b) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d: %v", n, err)
		}
	})
}
