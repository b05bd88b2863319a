package multicast

import (
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// CasterStats are the box's multicast figures.
type CasterStats struct {
	// Sessions on air, and up to 32 that have ended, newest first.
	Sessions []SessionStats `json:"sessions"`
	// Cast counts sessions begun, Refused casts that could not begin.
	Cast    uint64 `json:"cast"`
	Refused uint64 `json:"refused"`
	// Payload counts object bytes sent once each, Wire all bytes of packets with
	// their Ethernet, IP and UDP headers, on one interface.
	Payload int64 `json:"payload"`
	Wire    int64 `json:"wire"`
}

// SessionStats are the figures of one session of the box.
type SessionStats struct {
	Object uint64     `json:"object"`
	ID     content.ID `json:"id"`
	Title  string     `json:"title"`
	Group  string     `json:"group"`
	// State is "due", "on air" or "ended".
	State    string    `json:"state"`
	Instance uint16    `json:"instance"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	// Size and Sent are bytes of the object and of its first pass.
	Size int64 `json:"size"`
	Sent int64 `json:"sent"`
	// Wire counts bytes on one interface, Ethernet, IP and UDP headers
	// included; Repair those of the NORM messages that repeated something.
	Wire   int64 `json:"wire"`
	Repair int64 `json:"repair"`
	// Packets and Nacks count NORM messages sent and NACKs heard.
	Packets uint64 `json:"packets"`
	Nacks   uint64 `json:"nacks"`
	// Receivers are the agents that joined.
	Receivers []ReceiverStats `json:"receivers"`
	// Err is what ended the session early.
	Err string `json:"err,omitempty"`
}

// ReceiverStats are the figures of one agent in a session.
type ReceiverStats struct {
	Node norm.NodeID `json:"node"`
	Name string      `json:"name"`
	// State is "expected", "joined", "complete" or "left".
	State string `json:"state"`
	// Late says that it joined when too much had been sent to ask for it.
	Late bool `json:"late,omitempty"`
	// Loss is the fraction of packets lost, 0 to 1, as the agent last said.
	Loss float64 `json:"loss"`
	// Heard is when it last said anything.
	Heard time.Time `json:"heard,omitzero"`
	// Nacks is how many NACKs it sent.
	Nacks uint64 `json:"nacks"`
	// Received counts object bytes that it took from the session, Missing those
	// that it has to fetch by HTTP.
	Received int64 `json:"received"`
	Missing  int64 `json:"missing"`
	// Dropped counts packets that its kernel dropped for want of buffer.
	Dropped uint64 `json:"dropped"`
}

// CatcherStats are an agent's multicast figures.
type CatcherStats struct {
	// Joined counts sessions joined, Late those joined after they began, Whole
	// those that left nothing missing, Silent those that brought nothing
	// although joined.
	Joined uint64 `json:"joined"`
	Late   uint64 `json:"late"`
	Whole  uint64 `json:"whole"`
	Silent uint64 `json:"silent"`
	// Unheard counts casts that were due and of which no notice came.
	Unheard uint64 `json:"unheard"`
	// Notices counts those believed, Refused those that were not.
	Notices uint64 `json:"notices"`
	Refused uint64 `json:"refused"`
	// Bytes counts object bytes received, Left those missing at the end of
	// sessions.
	Bytes int64 `json:"bytes"`
	Left  int64 `json:"left"`
	// Refuted counts blocks that came whole and wrong.
	Refuted uint64 `json:"refuted"`
	// Dropped counts packets that the kernel dropped for want of buffer.
	Dropped uint64 `json:"dropped"`
	// Receptions are the sessions joined now.
	Receptions []ReceptionStats `json:"receptions"`
}

// ReceptionStats are the figures of one session at the agent.
type ReceptionStats struct {
	ID      content.ID `json:"id"`
	Title   string     `json:"title"`
	Group   string     `json:"group"`
	Bytes   int64      `json:"bytes"`
	Loss    float64    `json:"loss"`
	Dropped uint64     `json:"dropped"`
}

// Report is what an agent says of its part in a session.
type Report struct {
	// ID is the object's.
	ID content.ID `json:"id"`
	// State is "joined", "complete" or "left".
	State string `json:"state"`
	// Late is as in ReceiverStats.
	Late bool `json:"late,omitempty"`
	// Loss is the fraction of packets lost, 0 to 1.
	Loss float64 `json:"loss,omitempty"`
	// Received, Missing and Dropped are as in ReceiverStats.
	Received int64  `json:"received,omitempty"`
	Missing  int64  `json:"missing,omitempty"`
	Dropped  uint64 `json:"dropped,omitempty"`
}

// States of an agent in a session. One that was told of a cast is expected
// until it reports.
const (
	stateExpected = "expected"
	stateJoined   = "joined"
	stateComplete = "complete"
	stateLeft     = "left"
)
