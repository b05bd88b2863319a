package norm

import (
	"encoding/binary"
	"iter"
)

// Header extension types (RFC 5740 §4.1). Below 128 a length follows, from 128
// on the extension is one word.
const (
	extCC         = 3
	extFTI        = 64
	extAuth       = 96 // private: see Auth
	extRate       = 128
	extInterleave = 200 // private: see Interleave
)

// Extensions is the encoded header extensions of a message.
type Extensions []byte

// checkExtensions walks them; base is their offset in the message. A length of
// zero is malformed: it would never end.
func checkExtensions(e []byte, base int) error {
	for at := 0; at < len(e); {
		if len(e)-at < 4 {
			return malformed(base+at, "header extension of %d bytes", len(e)-at)
		}
		n := 4
		if e[at] < 128 {
			n = int(e[at+1]) * 4
		}
		if n == 0 || n > len(e)-at {
			return malformed(base+at+1, "header extension %d of %d words where %d bytes are left", e[at], n/4, len(e)-at)
		}
		at += n
	}
	return nil
}

// all gives each extension of checked Extensions, type and length included.
func (e Extensions) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := []byte(e); len(rest) >= 4; {
			n := 4
			if rest[0] < 128 {
				n = int(rest[1]) * 4
			}
			if n == 0 || n > len(rest) || !yield(rest[:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// find gives the first extension of a type and at least a length, or nil.
func (e Extensions) find(het byte, length int) []byte {
	for ext := range e.all() {
		if ext[0] == het && len(ext) >= length {
			return ext
		}
	}
	return nil
}

// FTI is the FEC Object Transmission Information of an object, EXT_FTI.
type FTI struct {
	Size    int64  // of the object, 48 bits
	Segment uint16 // symbol length in bytes
	K       uint16 // most source symbols of a block
	Parity  uint16 // parity symbols of a block
}

// FTI gives EXT_FTI in the layout of the scheme, if it is there.
func (e Extensions) FTI(fec FECID) (FTI, bool) {
	length := 12
	if fec == FECSmallBlock {
		length = 16
	}
	ext := e.find(extFTI, length)
	if ext == nil || fec.payloadIDLen() == 0 {
		return FTI{}, false
	}
	f := FTI{Size: int64(binary.BigEndian.Uint64(ext) & maxObjectSize)}
	if fec == FECReedSolomon {
		f.Segment, f.K, f.Parity = binary.BigEndian.Uint16(ext[8:]), uint16(ext[10]), uint16(ext[11])
	} else {
		f.Segment = binary.BigEndian.Uint16(ext[10:])
		f.K, f.Parity = binary.BigEndian.Uint16(ext[12:]), binary.BigEndian.Uint16(ext[14:])
	}
	return f, true
}

// AppendFTI appends EXT_FTI in the layout of fec_id 5.
func (e Extensions) AppendFTI(f FTI) Extensions {
	e = append(e, extFTI, 3)
	e = binary.BigEndian.AppendUint16(e, uint16(f.Size>>32))
	e = binary.BigEndian.AppendUint32(e, uint32(f.Size))
	e = binary.BigEndian.AppendUint16(e, f.Segment)
	return append(e, byte(f.K), byte(f.Parity))
}

// Interleave gives the depth to which the object's blocks are interleaved, 1 if
// nothing is said of it: a private extension that stands beside EXT_FTI.
func (e Extensions) Interleave() uint16 {
	ext := e.find(extInterleave, 4)
	if ext == nil {
		return 1
	}
	return binary.BigEndian.Uint16(ext[2:])
}

// AppendInterleave appends the depth of interleaving.
func (e Extensions) AppendInterleave(depth uint16) Extensions {
	return binary.BigEndian.AppendUint16(append(e, extInterleave, 0), depth)
}

// Flags of CCFeedback and of the items of CMD(CC).
const (
	CCFlagCLR   = 0x01 // the receiver is the current limiting receiver
	CCFlagPLR   = 0x02 // it may become that
	CCFlagRTT   = 0x04 // its RTT has been measured
	CCFlagStart = 0x08 // it has seen no loss yet
	CCFlagLeave = 0x10 // it is leaving
)

// CCFeedback is EXT_CC, a receiver's view of congestion. All fields are the
// quantized wire values.
type CCFeedback struct {
	Sequence uint16 // cc_sequence of the CMD(CC) last heard
	Flags    uint8
	RTT      uint8
	Loss     uint16 // fraction of packets lost, of 65535
	Rate     uint16
	LossLow  uint16 // libnorm: the loss fraction's next 16 bits
}

// CC gives EXT_CC, if it is there.
func (e Extensions) CC() (CCFeedback, bool) {
	ext := e.find(extCC, 12)
	if ext == nil {
		return CCFeedback{}, false
	}
	return CCFeedback{
		Sequence: binary.BigEndian.Uint16(ext[2:]), Flags: ext[4], RTT: ext[5],
		Loss: binary.BigEndian.Uint16(ext[6:]), Rate: binary.BigEndian.Uint16(ext[8:]),
		LossLow: binary.BigEndian.Uint16(ext[10:]),
	}, true
}

// AppendCC appends EXT_CC.
func (e Extensions) AppendCC(c CCFeedback) Extensions {
	e = append(e, extCC, 3)
	e = binary.BigEndian.AppendUint16(e, c.Sequence)
	e = append(e, c.Flags, c.RTT)
	e = binary.BigEndian.AppendUint16(e, c.Loss)
	e = binary.BigEndian.AppendUint16(e, c.Rate)
	return binary.BigEndian.AppendUint16(e, c.LossLow)
}

// Rate gives EXT_RATE, the quantized sending rate, if it is there. A receiver
// that sees it in CMD(CC) answers with ACK(CC).
func (e Extensions) Rate() (uint16, bool) {
	ext := e.find(extRate, 4)
	if ext == nil {
		return 0, false
	}
	return binary.BigEndian.Uint16(ext[2:]), true
}

// AppendRate appends EXT_RATE.
func (e Extensions) AppendRate(rate uint16) Extensions {
	return binary.BigEndian.AppendUint16(append(e, extRate, 0), rate)
}

// appendAuth appends an authentication extension whose field is zero.
func (e Extensions) appendAuth(overhead int) Extensions {
	e = append(e, extAuth, byte(overhead/4+1), 0, 0)
	return append(e, make([]byte, overhead)...)
}
