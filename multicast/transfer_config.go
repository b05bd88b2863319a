package multicast

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// maxTransferFiles bounds the files of one transfer: each is open to its end.
const maxTransferFiles = 1000

// FileSenderConfig says how a FileSender sends. The zero value of each field
// but Group, Interface and Files means the default given there.
type FileSenderConfig struct {
	// Group is the multicast address and port; required. In the SSM ranges
	// (232.0.0.0/8, ff3x::/32) feedback is taken by unicast alone.
	Group netip.AddrPort
	// Interface to send on, by name; required.
	Interface string
	// Files are the paths of regular files; required, at most 1000. Receivers
	// learn the last element of each path.
	Files []string
	// Node is the sender's own id (a random one).
	Node norm.NodeID
	// Ackers are the receivers that have to confirm everything.
	Ackers []norm.NodeID
	// TTL is how many routers a packet may pass, plus one, 1 to 255 (1).
	TTL int
	// Rate is in bits per second of Ethernet frames as an interface counts
	// them, headers included; at least 100,000 (100 Mbit/s). On the line each
	// takes 24 bytes more.
	Rate int64
	// SegmentSize is the payload of a data packet in bytes, 64 to 8192 (1400).
	SegmentSize int
	// K and Parity are the source and parity symbols of a block (180, 75).
	K, Parity int
	// Interleave is how many blocks are sent side by side, so that a burst of
	// losses harms each of them a little; foreign receivers do not understand
	// it (1).
	Interleave int
	// Timeout is how long to wait for ackers once everything has been sent and
	// nothing is asked for (60 s).
	Timeout time.Duration
}

func (c FileSenderConfig) withDefaults() FileSenderConfig {
	preset(&c.Node, randomNode())
	preset(&c.TTL, 1)
	preset(&c.Rate, 100e6)
	preset(&c.SegmentSize, 1400)
	preset(&c.K, 180)
	preset(&c.Parity, 75)
	preset(&c.Interleave, 1)
	preset(&c.Timeout, time.Minute)
	return c
}

// randomNode is an id that no other node is likely to have.
func randomNode() norm.NodeID { return 1 + norm.NodeID(rand.Uint32N(uint32(norm.NodeAny)-1)) }

// Validate reports every fault at once, with defaults applied.
func (c FileSenderConfig) Validate() error {
	c = c.withDefaults()
	faults := validateLink(c.Group, c.Interface, c.Timeout)
	between := func(key string, v, lo, hi int64) {
		if v < lo || v > hi {
			faults = append(faults, fmt.Errorf("%s: %d is not in %d..%d", key, v, lo, hi))
		}
	}
	between("files", int64(len(c.Files)), 1, maxTransferFiles)
	between("ttl", int64(c.TTL), 1, 255)
	between("rate", c.Rate, 100e3, 100e9)
	between("segment", int64(c.SegmentSize), 64, 8192)
	between("k", int64(c.K), 1, 254)
	between("parity", int64(c.Parity), 1, int64(255-c.K))
	between("interleave", int64(c.Interleave), 1, fec.MaxDepth)
	if !c.Node.Valid() {
		faults = append(faults, fmt.Errorf("node: %d is not the id of a single node", c.Node))
	}
	for _, id := range c.Ackers {
		if !id.Valid() || id == c.Node {
			faults = append(faults, fmt.Errorf("acker: %d is not the id of a receiver", id))
		}
	}
	return errors.Join(faults...)
}

// FileReceiverConfig says how a FileReceiver receives. The zero value of each
// field but Group, Interface, Dir and Node means the default given there.
type FileReceiverConfig struct {
	// Group is the multicast address and port; required.
	Group netip.AddrPort
	// Interface to join on, by name; required.
	Interface string
	// Dir is the directory that files go to, made if it is not there; required.
	Dir string
	// Node is the receiver's id; required.
	Node norm.NodeID
	// Source joins the packets of one sender's address alone (RFC 4607), and
	// makes feedback unicast. The zero Addr joins those of all.
	Source netip.Addr
	// Unicast sends feedback to the sender alone instead of to the group. In
	// the SSM ranges there is no other way.
	Unicast bool
	// Count is how many files to receive (1).
	Count int
	// Timeout is how long to wait while nothing new comes (60 s).
	Timeout time.Duration
	// Buffer is the size of the socket's receive buffer in bytes (16 MiB), as
	// far as the system allows.
	Buffer int
}

func (c FileReceiverConfig) withDefaults() FileReceiverConfig {
	c.Unicast = c.Unicast || c.Source.IsValid() || sourceSpecific(c.Group.Addr())
	preset(&c.Count, 1)
	preset(&c.Timeout, time.Minute)
	preset(&c.Buffer, 16<<20)
	return c
}

// Validate reports every fault at once, with defaults applied.
func (c FileReceiverConfig) Validate() error {
	c = c.withDefaults()
	faults := validateLink(c.Group, c.Interface, c.Timeout)
	if c.Dir == "" {
		faults = append(faults, errors.New("dir: missing"))
	}
	if !c.Node.Valid() {
		faults = append(faults, fmt.Errorf("node: %d is not the id of a single node", c.Node))
	}
	if c.Count < 1 {
		faults = append(faults, fmt.Errorf("count: %d is not positive", c.Count))
	}
	switch s := c.Source; {
	case !s.IsValid() && sourceSpecific(c.Group.Addr()):
		faults = append(faults, fmt.Errorf("source: %s takes the address of a sender (RFC 4607)", c.Group.Addr()))
	case s.IsValid() && (s.Is4() != c.Group.Addr().Is4() || s.IsMulticast()):
		faults = append(faults, fmt.Errorf("source: %s is not an address that sends to %s", s, c.Group.Addr()))
	}
	if c.Buffer < 64<<10 || c.Buffer > 1<<30 {
		faults = append(faults, fmt.Errorf("buffer: %d is not in 64 KiB..1 GiB", c.Buffer))
	}
	return errors.Join(faults...)
}

// validateLink checks what both sides have in common.
func validateLink(group netip.AddrPort, iface string, timeout time.Duration) (faults []error) {
	if !group.Addr().IsMulticast() || group.Port() == 0 {
		faults = append(faults, fmt.Errorf("group: %s is not a multicast address with a port", group))
	}
	if iface == "" {
		faults = append(faults, errors.New("interface: missing"))
	}
	if timeout < 0 {
		faults = append(faults, fmt.Errorf("timeout: %s is negative", timeout))
	}
	return faults
}

// sourceSpecific reports whether a group is in the ranges of RFC 4607.
func sourceSpecific(group netip.Addr) bool {
	if group.Is4() {
		return group.As4()[0] == 232
	}
	b := group.As16()
	return b[0] == 0xff && b[1]>>4 == 3 && b[2] == 0 && b[3] == 0
}
