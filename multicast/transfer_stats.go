package multicast

import (
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// FileSenderStats are the figures of a FileSender.
type FileSenderStats struct {
	// Files in the order they are sent.
	Files []SentFile `json:"files"`
	// Size is the bytes of all files, Sent those of the first pass so far.
	Size int64 `json:"size"`
	Sent int64 `json:"sent"`
	// Wire counts bytes of all packets with their Ethernet, IP and UDP headers;
	// Repair those of the NORM messages that repeated something.
	Wire   int64 `json:"wire"`
	Repair int64 `json:"repair"`
	// Packets, Nacks and Acks count NORM messages sent and heard.
	Packets uint64 `json:"packets"`
	Nacks   uint64 `json:"nacks"`
	Acks    uint64 `json:"acks"`
	// Ackers are the receivers that have to confirm.
	Ackers []AckerStats `json:"ackers"`
	// Seconds since the transfer began; Tail those after the first pass.
	Seconds float64 `json:"seconds"`
	Tail    float64 `json:"tail"`
	// GRTT is the greatest round trip time of the group, in seconds: waits for
	// feedback and for repairs are multiples of it.
	GRTT float64 `json:"grtt"`
}

// SentFile is a file being sent.
type SentFile struct {
	Path  string `json:"path"`
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// AckerStats are what is known of a receiver that has to confirm.
type AckerStats struct {
	Node norm.NodeID `json:"node"`
	// Confirmed says that it has everything.
	Confirmed bool `json:"confirmed"`
}

// FileReceiverStats are the figures of a FileReceiver.
type FileReceiverStats struct {
	// Files are those received whole, in the order they became so.
	Files []ReceivedFile `json:"files"`
	// Open are those being received.
	Open []OpenFile `json:"open,omitempty"`
	// Packets, Lost and Rejected count messages of senders; Nacks and Acks those
	// sent to them.
	Packets  uint64 `json:"packets"`
	Lost     uint64 `json:"lost"`
	Rejected uint64 `json:"rejected"`
	Nacks    uint64 `json:"nacks"`
	Acks     uint64 `json:"acks"`
	// Dropped counts packets that the kernel dropped for want of buffer.
	Dropped uint64 `json:"dropped"`
}

// ReceivedFile is a file received whole.
type ReceivedFile struct {
	Name   string      `json:"name"`
	Bytes  int64       `json:"bytes"`
	Sender norm.NodeID `json:"sender"`
	// Seconds from its first packet to its last.
	Seconds float64 `json:"seconds"`
	// Finished is when it got its name.
	Finished time.Time `json:"finished"`
}

// OpenFile is a file being received.
type OpenFile struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Size  int64  `json:"size"`
}
