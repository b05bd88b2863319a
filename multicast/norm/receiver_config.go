package norm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// SyncPolicy says where a receiver that comes late begins.
type SyncPolicy uint8

// Policies of joining a sender.
const (
	// SyncCurrent begins with the object that is on air when the receiver
	// joins, from its first byte.
	SyncCurrent SyncPolicy = iota
	// SyncAll also asks for the objects before it, up to MaxObjects of them.
	SyncAll
	// SyncHere begins with the object that is on air, but asks only for what is
	// sent after the receiver joined: for the blocks behind the one (or the
	// interleaved ones) it heard first. The object is abandoned with
	// ErrJoinedLate and what is Missing as soon as the rest is there.
	SyncHere
)

// ReceiverConfig says how a Receiver behaves. The zero value of each field but
// Node, Rand and Accept means the default given there.
type ReceiverConfig struct {
	// Node is this receiver's id, the source_id of its feedback; required.
	Node NodeID
	// Rand is the source of all randomness; required.
	Rand rand.Source
	// Accept is asked once for each object, from within Handle, and gives the
	// Sink for it or an error to refuse; required. See ErrNeedInfo.
	Accept func(Offer) (Sink, error)

	// Sender, if not 0, is the only source_id listened to.
	Sender NodeID
	// Instance, if not 0, is the only instance_id listened to.
	Instance uint16
	// Sync is where a late receiver begins (SyncCurrent).
	Sync SyncPolicy
	// Unicast sends feedback to the sender alone: to FeedbackTo if that is
	// set, else to where the sender's packets come from. Otherwise it goes to
	// the group.
	Unicast    bool
	FeedbackTo netip.AddrPort
	// Silent never sends anything.
	Silent bool
	// Answer gives the payload of the ACK to a CMD(ACK_REQ) of the application's
	// own types, from within Poll; at most a segment long. It may decline. nil
	// answers all with an empty payload.
	Answer func(AckQuery) (payload []byte, ok bool)
	// NackRounds is how many times an object is asked for before it is
	// abandoned, 0 for no limit. A round is one NACK episode in which the
	// object had something to ask.
	NackRounds int
	// Robust is how many silent periods (of 2*Robust*GRTT, at least 1 s) make
	// a sender gone, 1 to 200 (20).
	Robust int

	// MaxObjectSize is the largest object taken, in bytes (1 TiB).
	MaxObjectSize int64
	// MaxSegmentSize is the largest segment taken, in bytes (8192).
	MaxSegmentSize int
	// MaxSenders is how many senders are followed at once (8).
	MaxSenders int
	// MaxObjects is how many objects of a sender are kept in mind, at most
	// 16384 (4096).
	MaxObjects int
	// MaxBlocks is how many partly received blocks of all senders are kept in
	// mind, some 300 bytes each (65536).
	MaxBlocks int
	// MaxParityBytes is how much parity of all senders is held until its blocks
	// can be decoded (16 MiB). A quarter as much may be NORM_INFO, and symbols of
	// objects whose NORM_INFO has yet to come.
	MaxParityBytes int

	// Auth authenticates commands and feedback; nil is the plain mode.
	Auth Auth
}

// withDefaults fills in the documented defaults.
func (c ReceiverConfig) withDefaults() ReceiverConfig {
	set := func(p *int, d int) {
		if *p == 0 {
			*p = d
		}
	}
	set(&c.Robust, 20)
	set(&c.MaxSegmentSize, 8192)
	set(&c.MaxSenders, 8)
	set(&c.MaxObjects, 4096)
	set(&c.MaxBlocks, 1<<16)
	set(&c.MaxParityBytes, 16<<20)
	if c.MaxObjectSize == 0 {
		c.MaxObjectSize = 1 << 40
	}
	return c
}

// Validate reports every fault of the config at once, with defaults applied.
func (c ReceiverConfig) Validate() error {
	c = c.withDefaults()
	var errs []error
	between := func(key string, v, lo, hi int) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s: %d is not in %d..%d", key, v, lo, hi))
		}
	}
	if !c.Node.Valid() {
		errs = append(errs, fmt.Errorf("%s: %d is not the id of a single node", "Node", c.Node))
	}
	if c.Rand == nil {
		errs = append(errs, fmt.Errorf("%s: missing", "Rand"))
	}
	if c.Accept == nil {
		errs = append(errs, fmt.Errorf("%s: missing", "Accept"))
	}
	if c.Sync > SyncHere {
		errs = append(errs, fmt.Errorf("%s: unknown policy %d", "Sync", c.Sync))
	}
	if c.MaxObjectSize < 1 || c.MaxObjectSize > maxObjectSize {
		errs = append(errs, fmt.Errorf("%s: %d is not in 1..2^48-1", "MaxObjectSize", c.MaxObjectSize))
	}
	between("NackRounds", c.NackRounds, 0, 1<<20)
	between("Robust", c.Robust, 1, 200)
	between("MaxSegmentSize", c.MaxSegmentSize, 16, 65000)
	between("MaxSenders", c.MaxSenders, 1, 1024)
	between("MaxObjects", c.MaxObjects, 1, 16384)
	between("MaxBlocks", c.MaxBlocks, 1, 1<<24)
	between("MaxParityBytes", c.MaxParityBytes, 0, 1<<40)
	return errors.Join(append(errs, validateAuth(c.Auth, 0))...)
}
