package multicast

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Mode is how a group is joined.
type Mode string

// Modes of joining.
const (
	// SSM joins the box's packets of a group and nobody else's (RFC 4607).
	SSM Mode = "ssm"
	// ASM joins a group whoever sends to it.
	ASM Mode = "asm"
)

// CasterConfig says where and how a box casts. The zero value of each field
// but Interfaces means the default given there.
type CasterConfig struct {
	// Interfaces to cast on, by name. None: nothing is cast.
	Interfaces []string
	// Mode is SSM or ASM (SSM).
	Mode Mode
	// Groups is the range that group addresses are taken from; its second
	// address carries the notices (232.77.0.0/16 for SSM, 239.77.0.0/16 for ASM).
	Groups netip.Prefix
	// Port is the UDP port of notices and sessions (6003).
	Port uint16
	// TTL is how many routers a packet may pass, plus one, 1 to 255 (1).
	TTL int
	// Rate bounds what all sessions send together on each interface, in bits
	// per second of whole Ethernet frames: preamble, header, check sequence and
	// gap included; at least 100,000 (100 Mbit/s).
	Rate int64
	// SegmentSize is the payload of a data packet in bytes, 512 to 8192 (1408).
	SegmentSize int
	// K and Parity are the source and parity symbols of a block (180, 75): enough
	// for a loss of a fifth.
	K, Parity int
	// Interleave is how many blocks are sent side by side, 1 to 64 (8): a burst
	// of 10 ms at 100 Mbit/s takes a few symbols of each, not half of one. Agents
	// keep as many in memory, 2 MiB.
	Interleave int
	// RepairRounds is how many times a block is repaired before the rest is
	// left to HTTP (6). The late rounds are of a symbol or two that were lost
	// again: at 3 % loss three rounds leave one block of 7,000 open, six one of
	// 10^8. What a bad receiver may cost the others is bounded by the bytes of
	// repair instead, half of the object's.
	RepairRounds int
	// MaxSessions is how many objects are on air at once, 1 to 64 (64).
	MaxSessions int
	// Lead is the time from the first notice to the first packet, in which
	// agents join (300 ms). If agents that said they would come have not, it is
	// up to MaxLead (2 s).
	Lead, MaxLead time.Duration
	// Offload leaves the cutting of bursts into packets to the kernel or the
	// network card (UDP_SEGMENT): cheaper above some hundred Mbit/s.
	Offload bool
}

// withDefaults fills in the documented defaults.
func (c CasterConfig) withDefaults() CasterConfig {
	preset(&c.Mode, SSM)
	if !c.Groups.IsValid() {
		first := byte(232)
		if c.Mode == ASM {
			first = 239
		}
		c.Groups = netip.PrefixFrom(netip.AddrFrom4([4]byte{first, 77}), 16)
	}
	preset(&c.Port, 6003)
	preset(&c.TTL, 1)
	preset(&c.Rate, 100e6)
	preset(&c.SegmentSize, 1408)
	preset(&c.K, 180)
	preset(&c.Parity, 75)
	preset(&c.Interleave, 8)
	preset(&c.RepairRounds, 6)
	preset(&c.MaxSessions, 64)
	preset(&c.Lead, 300*time.Millisecond)
	preset(&c.MaxLead, max(c.Lead, 2*time.Second))
	return c
}

// preset sets a field that was left zero.
func preset[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every fault at once, with defaults applied.
func (c CasterConfig) Validate() error {
	c = c.withDefaults()
	var faults []error
	between := func(key string, v, lo, hi int64) {
		if v < lo || v > hi {
			faults = append(faults, fmt.Errorf("multicast.%s: %d is not in %d..%d", key, v, lo, hi))
		}
	}
	if c.Mode != SSM && c.Mode != ASM {
		faults = append(faults, fmt.Errorf("multicast.mode: %q is neither %q nor %q", c.Mode, SSM, ASM))
	}
	if len(c.Interfaces) > 16 {
		faults = append(faults, fmt.Errorf("multicast.interfaces: %d named, at most 16", len(c.Interfaces)))
	}
	if a := c.Groups.Addr(); !a.IsMulticast() || c.Groups.Bits() > a.BitLen()-8 {
		faults = append(faults, fmt.Errorf("multicast.groups: %v is not a range of at least 256 multicast addresses", c.Groups))
	}
	between("ttl", int64(c.TTL), 1, 255)
	between("rate", c.Rate, 100e3, 100e9)
	between("segment_size", int64(c.SegmentSize), 512, 8192)
	between("k", int64(c.K), 1, 254)
	between("parity", int64(c.Parity), 1, int64(255-c.K))
	between("interleave", int64(c.Interleave), 1, 64)
	between("repair_rounds", int64(c.RepairRounds), 1, 100)
	between("max_sessions", int64(c.MaxSessions), 1, 64)
	if c.Lead < 0 || c.MaxLead < c.Lead || c.MaxLead > 30*time.Second {
		faults = append(faults, fmt.Errorf("multicast.lead: %s and %s are not in order within 30s", c.Lead, c.MaxLead))
	}
	return errors.Join(faults...)
}

// DeskConfig says when agents are told to wait for a cast. The zero value of
// each field means the default given there.
type DeskConfig struct {
	// Name is what the box calls itself towards agents ("cistern").
	Name string
	// MinSize is the smallest object that is cast, in bytes (1 MiB).
	MinSize int64
	// MinAgents is how many agents must want an object at once (2).
	MinAgents int
	// Grace is how long the first of them waits for others (1 s). For a large
	// object it is a tenth of the time that its cast would take, up to ten
	// times Grace.
	Grace time.Duration
	// Hold is how long one request of an agent is held before it is told to ask
	// again (20 s).
	Hold time.Duration
}

func (c DeskConfig) withDefaults() DeskConfig {
	preset(&c.Name, "cistern")
	preset(&c.MinSize, 1<<20)
	preset(&c.MinAgents, 2)
	preset(&c.Grace, time.Second)
	preset(&c.Hold, 20*time.Second)
	return c
}

// Validate reports every fault at once, with defaults applied.
func (c DeskConfig) Validate() error {
	c = c.withDefaults()
	var faults []error
	if len(c.Name) > maxName {
		faults = append(faults, fmt.Errorf("multicast.name: %d bytes, at most %d", len(c.Name), maxName))
	}
	if c.MinSize < 1 {
		faults = append(faults, fmt.Errorf("multicast.min_size: %d is not positive", c.MinSize))
	}
	if c.MinAgents < 1 {
		faults = append(faults, fmt.Errorf("multicast.min_agents: %d is not positive", c.MinAgents))
	}
	if c.Grace < 0 || c.Hold < 10*time.Millisecond || c.Hold > time.Minute {
		faults = append(faults, errors.New("multicast.grace, multicast.hold: negative or beyond a minute"))
	}
	return errors.Join(faults...)
}

// CatcherConfig says how an agent receives. The zero value of each field means
// the default given there.
type CatcherConfig struct {
	// Interface to join on, by name. Empty: the one that leads to the box.
	Interface string
	// NoticeWait is how long a Source waits for the notice of a cast that is due
	// (5 s).
	NoticeWait time.Duration
	// Silence is how long a session may bring nothing before it is left (3 s).
	Silence time.Duration
	// Buffer is the size of a socket's receive buffer in bytes (8 MiB), as far
	// as the system allows.
	Buffer int
}

func (c CatcherConfig) withDefaults() CatcherConfig {
	preset(&c.NoticeWait, 5*time.Second)
	preset(&c.Silence, 3*time.Second)
	preset(&c.Buffer, 8<<20)
	return c
}

// Validate reports every fault at once, with defaults applied.
func (c CatcherConfig) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.NoticeWait < 0 || c.Silence < 0 {
		faults = append(faults, errors.New("multicast.notice_wait, multicast.silence: negative"))
	}
	if c.Buffer < 64<<10 || c.Buffer > 1<<30 {
		faults = append(faults, fmt.Errorf("multicast.buffer: %d is not in 64 KiB..1 GiB", c.Buffer))
	}
	return errors.Join(faults...)
}
