package norm

import "time"

// SenderStats counts what a Sender did since it was made. Bytes are those of
// whole NORM messages.
type SenderStats struct {
	// Packets and Bytes count everything that Poll gave.
	Packets, Bytes uint64
	// DataPackets and DataBytes count the first pass, parity that goes ahead
	// included; AheadPackets are those.
	DataPackets, DataBytes, AheadPackets uint64
	// RepairPackets and RepairBytes count retransmissions and parity that
	// somebody asked for.
	RepairPackets, RepairBytes uint64
	// Nacks and Acks count valid feedback; Rejected what was malformed, stale,
	// not for this sender or failed authentication.
	Nacks, Acks, Rejected uint64
	// Advertised counts REPAIR_ADV, Squelches SQUELCH commands.
	Advertised, Squelches uint64
	// GRTT is the advertised greatest round trip time.
	GRTT time.Duration
	// PendingRepairs is the number of symbols queued for repair.
	PendingRepairs int
}

// ReceiverReport is what a Sender knows of one receiver.
type ReceiverReport struct {
	Node NodeID
	// LastNack and LastAck are zero if there was none.
	LastNack, LastAck time.Time
	// Nacks is the number of NACK messages, Requested the number of symbols
	// asked for in all of them.
	Nacks, Requested uint64
	// Loss is the fraction of packets lost, 0 to 1, as the receiver last
	// reported it in an ACK(CC); HasLoss says that it did.
	Loss    float64
	HasLoss bool
	// Rate is the rate in bytes per second that the receiver last reported.
	Rate float64
	// RTT is the last round trip time measured, 0 if none was.
	RTT time.Duration

	probe  uint16        // the probe that RTT was measured after
	before time.Duration // the RTT that was measured after an earlier one, 0 if none was
}

// ReceiverStats counts what a Receiver did since it was made.
type ReceiverStats struct {
	// Packets and Bytes count the valid messages of senders.
	Packets, Bytes uint64
	// Rejected counts what was malformed, beyond a limit, inconsistent or
	// failed authentication; Foreign what is NORM but not from a sender followed.
	Rejected, Foreign uint64
	// Lost counts gaps in the senders' sequence numbers.
	Lost uint64
	// Symbols counts source and parity symbols that were of use, Duplicates
	// those that were not, Decoded source symbols won from parity.
	Symbols, Duplicates, Decoded uint64
	// Nacks and Acks count feedback sent, Suppressed NACKs that another's made
	// needless.
	Nacks, Acks, Suppressed uint64
	// ParityBytes is the parity held at the moment.
	ParityBytes int
}

// SenderReport is what a Receiver knows of one sender.
type SenderReport struct {
	Source   NodeID
	Instance uint16
	// LastHeard is when its last packet came.
	LastHeard time.Time
	// Received and Lost count its packets by sequence number.
	Received, Lost uint64
	// Loss is the recent fraction lost, 0 to 1.
	Loss float64
	// GRTT is what it advertises.
	GRTT time.Duration
}
