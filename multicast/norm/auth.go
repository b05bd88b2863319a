package norm

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
