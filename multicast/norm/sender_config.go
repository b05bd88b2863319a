package norm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// PacketOverhead is the most bytes a DATA packet has beyond its segment: the
// caller's token bucket should hold SegmentSize+PacketOverhead plus the
// headers below.
const PacketOverhead = 36

// SenderConfig says how a Sender behaves. The zero value of each field but
// Node and Rand means the default given there.
type SenderConfig struct {
	// Node is this sender's source_id; required.
	Node NodeID
	// Instance is the instance_id; 0 takes a random one.
	Instance uint16
	// Rand is the source of all randomness; required. A seeded one makes the
	// engine repeatable.
	Rand rand.Source

	// SegmentSize is the symbol size in bytes, 16 to 8192 (1400).
	SegmentSize int
	// K is the largest number of source symbols in a block, 1 to 254 (64).
	K int
	// Parity is the number of parity symbols of a block, 0 to 255-K; -1 means
	// none (16).
	Parity int
	// AutoParity is how many of them are sent with the first pass (0).
	AutoParity int
	// Anticipate sends with the first pass, beyond AutoParity, as much parity as
	// each of the last blocks turned out to need. It saves requests and time, and
	// costs next to nothing on the wire.
	Anticipate bool
	// Interleave is the number of blocks that are sent a symbol of each in turn,
	// 1 to 4096, so that a burst of losses harms many of them a little (1). It
	// is announced with the object; foreign receivers do not understand it.
	Interleave int
	// FTIInInfoOnly leaves EXT_FTI out of DATA and saves 12 bytes a packet. A
	// receiver that missed the INFO asks for it. Objects without Info keep it.
	FTIInInfoOnly bool

	// Rate is the caller's sending rate in bytes per second (12.5e6). It is
	// told to receivers and bounds the GRTT from below; SetRate changes it.
	Rate int64
	// Congestion turns on TFMCC (RFC 5740 §5.5.2): the caller asks Rate for the
	// rate and Rate here is the upper bound. It needs rate feedback.
	Congestion bool
	// Backoff is K of RFC 5740: NACKs spread over Backoff*GRTT, 0 to 15; -1
	// means 0 (1).
	Backoff int
	// GroupSize is the expected number of receivers (10).
	GroupSize int
	// GRTT is the first guess of the greatest round trip time (20 ms).
	GRTT time.Duration
	// GRTTMin and GRTTMax bound its estimate (10 ms, 10 s).
	GRTTMin, GRTTMax time.Duration
	// Robust is how often unanswered FLUSHes are repeated, 1 to 200 (20).
	Robust int
	// InfoInterval is the time between repeats of NORM_INFO (1 s); the first
	// repeats come faster, doubling from one GRTT.
	InfoInterval time.Duration
	// ProbeMin is the time between CMD(CC) probes (1 s); the first ones come
	// faster. With NoRateFeedback it grows to ProbeMax (30 s).
	ProbeMin, ProbeMax time.Duration
	// NoRateFeedback leaves EXT_RATE out of probes: receivers then send no
	// ACK(CC), and no loss fraction is known.
	NoRateFeedback bool

	// RepairRounds is how many times one block is repaired; 0 is no limit.
	RepairRounds int
	// RepairBytes is how many payload bytes are spent on the repair of one
	// object; 0 is no limit.
	RepairBytes int64
	// ParityCache bounds the memory for parity symbols in bytes (16 MiB, or more
	// if Interleave and Parity need it).
	ParityCache int
	// MaxReceivers bounds how many receivers are remembered (4096).
	MaxReceivers int

	// Auth authenticates commands and feedback; nil is the plain mode.
	Auth Auth
}

// withDefaults fills in the documented defaults.
func (c SenderConfig) withDefaults() SenderConfig {
	set := func(p *int, d int) {
		switch {
		case *p == 0:
			*p = d
		case *p == -1:
			*p = 0
		}
	}
	set(&c.SegmentSize, 1400)
	set(&c.K, 64)
	set(&c.Parity, 16)
	set(&c.Backoff, 1)
	set(&c.GroupSize, 10)
	set(&c.Robust, 20)
	set(&c.Interleave, 1)
	set(&c.ParityCache, max(16<<20, c.Interleave*(c.Parity+8)*fec.Stride(c.SegmentSize)))
	set(&c.MaxReceivers, 4096)
	dur := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	dur(&c.GRTT, 20*time.Millisecond)
	dur(&c.GRTTMin, 10*time.Millisecond)
	dur(&c.GRTTMax, 10*time.Second)
	dur(&c.InfoInterval, time.Second)
	dur(&c.ProbeMin, time.Second)
	dur(&c.ProbeMax, 30*time.Second)
	if c.Rate == 0 {
		c.Rate = 12_500_000
	}
	return c
}

// Validate reports every fault of the config at once, with defaults applied.
func (c SenderConfig) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(key string, value any, want string) {
		errs = append(errs, fmt.Errorf("%s: %v is not %s", key, value, want))
	}
	between := func(key string, v, lo, hi int) {
		if v < lo || v > hi {
			bad(key, v, fmt.Sprintf("in %d..%d", lo, hi))
		}
	}
	if !c.Node.Valid() {
		bad("Node", c.Node, "the id of a single node")
	}
	if c.Rand == nil {
		errs = append(errs, fmt.Errorf("%s: missing", "Rand"))
	}
	between("SegmentSize", c.SegmentSize, 16, 8192)
	between("K", c.K, 1, 254)
	between("Parity", c.Parity, 0, 255-c.K)
	between("Interleave", c.Interleave, 1, fec.MaxDepth)
	between("AutoParity", c.AutoParity, 0, c.Parity)
	between("Backoff", c.Backoff, 0, 15)
	between("GroupSize", c.GroupSize, 1, 500_000_000)
	between("Robust", c.Robust, 1, 200)
	between("RepairRounds", c.RepairRounds, 0, 1<<20)
	between("ParityCache", c.ParityCache, 0, 1<<40)
	between("MaxReceivers", c.MaxReceivers, 1, 1<<20)
	if c.Rate < 1000 {
		bad("Rate", c.Rate, "at least 1000 bytes per second")
	}
	if c.RepairBytes < 0 {
		bad("RepairBytes", c.RepairBytes, "0 or more")
	}
	if c.GRTTMin < time.Microsecond || c.GRTTMax > 1000*time.Second || c.GRTTMin > c.GRTTMax {
		bad("GRTTMin, GRTTMax", [2]time.Duration{c.GRTTMin, c.GRTTMax}, "an interval within 1 µs..1000 s")
	}
	if c.GRTT <= 0 || c.InfoInterval < time.Millisecond || c.ProbeMin < time.Millisecond || c.ProbeMax < c.ProbeMin {
		errs = append(errs, fmt.Errorf("%s: not positive or out of order", "GRTT, InfoInterval, ProbeMin, ProbeMax"))
	}
	if c.Congestion && c.NoRateFeedback {
		errs = append(errs, fmt.Errorf("%s: needs rate feedback", "Congestion"))
	}
	return errors.Join(append(errs, validateAuth(c.Auth, c.SegmentSize))...)
}

// validateAuth checks the field's size; it may not fill a small segment.
func validateAuth(a Auth, segment int) error {
	if a == nil {
		return nil
	}
	if n := a.Overhead(); n < 4 || n > 256 || n%4 != 0 || (segment > 0 && n+64 > segment) {
		return fmt.Errorf("%s: overhead %d is not a multiple of 4 in 4..256 that leaves 60 bytes of a segment", "Auth", n)
	}
	return nil
}
