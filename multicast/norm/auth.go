package norm

import (
	"errors"
	"fmt"
)

// Auth authenticates what must not be forged between parties that share keys:
// a sender's INFO and commands, a receiver's NACK and ACK. DATA is not
// covered. The field travels in a private header extension (het 96, two
// reserved bytes, then Overhead bytes), which foreign peers skip by its
// length. It is computed over the whole message with the field's bytes zero.
//
// An engine seals what it sends and opens what it receives with the same Auth,
// so a sender's Auth typically signs with its own key and checks the MACs of
// its receivers. A nil Auth is the plain mode towards foreign peers.
//
// With Auth a receiver also takes FTI and instance_id only from messages that
// opened, and does not believe the NACKs of other receivers: it suppresses its
// own only by the sender's REPAIR_ADV.
type Auth interface {
	// Overhead is the length of the field, a multiple of 4, 4 to 256 bytes.
	Overhead() int
	// Seal fills field, which lies inside msg and is zero.
	Seal(field, msg []byte)
	// Open checks field against msg, a copy of the message in which the
	// field's bytes are zero. from is the source_id that msg claims.
	Open(from NodeID, field, msg []byte) error
}

var errNoAuth = errors.New("authentication field missing")

// authField gives where the authentication field of a packet lies, nil if
// there is none.
func authField(f frame) []byte {
	if ext := Extensions(f.pkt[f.base:f.hdr]).find(extAuth, 8); ext != nil {
		return ext[4:]
	}
	return nil
}

// seal fills the authentication field of a message that was just encoded.
func seal(a Auth, pkt []byte) {
	if f, err := cut(pkt); err == nil {
		a.Seal(authField(f), pkt)
	}
}

// open checks a packet's authentication field. The packet is left as it was.
func open(a Auth, from NodeID, f frame) error {
	field := authField(f)
	if field == nil {
		return errNoAuth
	}
	if len(field) != a.Overhead() {
		return fmt.Errorf("authentication field of %d bytes, want %d", len(field), a.Overhead())
	}
	// Not in place: the packet belongs to the caller.
	msg := make([]byte, len(f.pkt))
	copy(msg, f.pkt)
	g := frame{msg, f.base, f.hdr}
	clear(authField(g))
	if err := a.Open(from, field, msg); err != nil {
		return fmt.Errorf("open message of node %d: %w", from, err)
	}
	return nil
}
