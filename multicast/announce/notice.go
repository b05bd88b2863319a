package announce

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cistern-edge/cistern/cache/content"
)

// State says how far a session is.
type State uint8

// The states of a session, in order.
const (
	// Due: sending begins within a second; join now.
	Due State = iota + 1
	// OnAir: the bytes flow.
	OnAir
	// Ended: nothing more comes; what is missing comes another way.
	Ended
)

// String gives "due", "on air" or "ended".
func (s State) String() string {
	switch s {
	case Due:
		return "due"
	case OnAir:
		return "on air"
	case Ended:
		return "ended"
	default:
		return fmt.Sprintf("state %d", uint8(s))
	}
}

// Bounds of a notice.
const (
	// MaxNotice is the longest notice, in bytes: one datagram everywhere.
	MaxNotice = 1400
	// MaxTitle is the longest title, in bytes.
	MaxTitle = 255
)

// Notice says what is on air and how to join it.
type Notice struct {
	// Epoch is a random number that the box draws at each start and tells its
	// agents over the pinned channel. With Sequence, which only grows within an
	// epoch, it keeps old notices from being played again; no clock takes part.
	Epoch    uint64
	Sequence uint64
	// Issued is when the box signed, by its own clock: for people, not trusted.
	Issued time.Time
	// Lifetime is how long the notice holds from when it is heard, at most a
	// minute, in whole milliseconds.
	Lifetime time.Duration

	State State
	ID    content.ID
	// Title is what people see, at most MaxTitle bytes of UTF-8.
	Title string
	// Group is where the session's packets go.
	Group netip.AddrPort
	// Feedback is the box's unicast address and port for this session. Its
	// address is also the source to join under SSM.
	Feedback netip.AddrPort
	// Node and Instance are the sender's NORM source_id and instance_id.
	Node     uint32
	Instance uint16
	// SegmentSize, K and Parity are the session's FEC parameters.
	SegmentSize uint16
	K, Parity   uint8
	// ExtentSize is how many bytes of the object one NORM object has; the last
	// one may be shorter.
	ExtentSize int64
	// Sent is how many bytes of the first pass are out. Who comes late takes
	// what flows and asks for nothing.
	Sent int64

	// Heard is when a Board took the notice. It is not part of what is sent.
	Heard time.Time
}

// Layout: magic, version, state, then fixed fields, addresses with a length
// byte, the title, the signature.
const (
	magic       = "CiNo"
	version     = 1
	purpose     = "cistern notice"
	headSize    = len(magic) + 2 + ed25519.PublicKeySize
	fixedSize   = 8 + 8 + 8 + 4 + 32 + 8 + 4 + 2 + 2 + 1 + 1 + 8 + 8
	maxLifetime = time.Minute
)

// Seal encodes and signs n. It fails if a field is out of bounds.
func (k *Key) Seal(n Notice) ([]byte, error) {
	n.Title = clipTitle(n.Title)
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("notice: %w", err)
	}
	b := append(make([]byte, 0, 512), magic...)
	b = append(b, version, byte(n.State))
	b = append(b, k.Public()...)
	b = binary.BigEndian.AppendUint64(b, n.Epoch)
	b = binary.BigEndian.AppendUint64(b, n.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(n.Issued.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, uint32(n.Lifetime.Milliseconds()))
	b = append(b, n.ID.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(n.ID.Size))
	b = binary.BigEndian.AppendUint32(b, n.Node)
	b = binary.BigEndian.AppendUint16(b, n.Instance)
	b = binary.BigEndian.AppendUint16(b, n.SegmentSize)
	b = append(b, n.K, n.Parity)
	b = binary.BigEndian.AppendUint64(b, uint64(n.ExtentSize))
	b = binary.BigEndian.AppendUint64(b, uint64(n.Sent))
	b = appendAddr(b, n.Group)
	b = appendAddr(b, n.Feedback)
	b = append(b, byte(len(n.Title)))
	b = append(b, n.Title...)
	return append(b, k.Sign(purpose, b)...), nil
}

// clipTitle cuts a title to MaxTitle bytes, at a character.
func clipTitle(s string) string {
	s = strings.ToValidUTF8(s, "�")
	for len(s) > MaxTitle {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	raw := a.Addr().Unmap().AsSlice()
	b = append(append(b, byte(len(raw))), raw...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// check reports what keeps n from being sent or believed.
func (n *Notice) check() error {
	var faults []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	bad(n.State >= Due && n.State <= Ended, "unknown state %d", n.State)
	bad(n.Lifetime > 0 && n.Lifetime <= maxLifetime, "lifetime %s is not within a minute", n.Lifetime)
	bad(n.ID.Size > 0, "object of %d bytes", n.ID.Size)
	bad(n.Group.Port() != 0 && n.Group.Addr().IsMulticast(), "group %s is not multicast", n.Group)
	a := n.Feedback.Addr()
	bad(n.Feedback.Port() != 0 && a.IsValid() && !a.IsMulticast() && !a.IsUnspecified(), "feedback address %s is not unicast", n.Feedback)
	bad(n.Group.Addr().Is4() == a.Is4(), "group %s and feedback address %s are of different families", n.Group, n.Feedback)
	bad(n.Node != 0 && n.Node != 1<<32-1, "node %d", n.Node)
	bad(n.SegmentSize >= 16 && n.SegmentSize <= 8192, "segment of %d bytes", n.SegmentSize)
	bad(n.K > 0 && int(n.K)+int(n.Parity) <= 255, "k %d and parity %d", n.K, n.Parity)
	bad(n.ExtentSize > 0 && n.Sent >= 0 && n.Sent <= n.ID.Size, "extents of %d bytes, %d sent", n.ExtentSize, n.Sent)
	bad(utf8.ValidString(n.Title), "title is not UTF-8")
	return errors.Join(faults...)
}

// Errors that Open wraps.
var (
	// ErrMalformed says that the bytes are no notice of this version.
	ErrMalformed = errors.New("malformed notice")
	// ErrForged says that the notice is not signed by the box that was pinned.
	ErrForged = errors.New("notice is not signed by the pinned box")
)

// Open decodes a notice and checks that the box with the pinned fingerprint
// signed it.
func Open(b []byte, pin Fingerprint) (Notice, error) {
	n, pub, err := parse(b)
	if err != nil {
		return Notice{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if got := FingerprintOf(pub); got != pin {
		return Notice{}, fmt.Errorf("%w: key %s", ErrForged, got)
	}
	body := len(b) - ed25519.SignatureSize
	if !Verify(pub, purpose, b[:body], b[body:]) {
		return Notice{}, fmt.Errorf("%w: bad signature", ErrForged)
	}
	return n, nil
}

// parse decodes a notice without believing it.
func parse(b []byte) (n Notice, pub ed25519.PublicKey, err error) {
	if len(b) > MaxNotice || len(b) < headSize+fixedSize+ed25519.SignatureSize {
		return n, nil, fmt.Errorf("%d bytes", len(b))
	}
	if string(b[:len(magic)]) != magic || b[len(magic)] != version {
		return n, nil, fmt.Errorf("starts with %x, not with a notice of version %d", b[:len(magic)+1], version)
	}
	d := decoder{b: b[len(magic)+1 : len(b)-ed25519.SignatureSize]}
	n.State = State(d.uint8())
	pub = ed25519.PublicKey(d.take(ed25519.PublicKeySize))
	n.Epoch = d.uint64()
	n.Sequence = d.uint64()
	n.Issued = time.UnixMilli(int64(d.uint64()))
	n.Lifetime = time.Duration(d.uint32()) * time.Millisecond
	copy(n.ID.Root[:], d.take(len(n.ID.Root)))
	n.ID.Size = int64(d.uint64())
	n.Node = d.uint32()
	n.Instance = d.uint16()
	n.SegmentSize = d.uint16()
	n.K, n.Parity = d.uint8(), d.uint8()
	n.ExtentSize = int64(d.uint64())
	n.Sent = int64(d.uint64())
	n.Group = d.addr()
	n.Feedback = d.addr()
	n.Title = string(d.take(int(d.uint8())))
	if d.short || len(d.b) != 0 {
		return Notice{}, nil, errors.New("fields do not add up to its length")
	}
	return n, pub, n.check()
}

// decoder takes fields off the front of b; once too short it gives zeros.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.short, d.b = true, nil
		return make([]byte, n) // n is at most 255
	}
	field := d.b[:n]
	d.b = d.b[n:]
	return field
}

func (d *decoder) uint8() uint8   { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) uint32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

func (d *decoder) addr() netip.AddrPort {
	a, ok := netip.AddrFromSlice(d.take(int(d.uint8())))
	if !ok || a.Is4In6() {
		d.short = true
	}
	return netip.AddrPortFrom(a, d.uint16())
}
