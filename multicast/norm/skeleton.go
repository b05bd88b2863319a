package norm

import (
	"net/netip"
	"time"
)

const maxObjectSize = 1<<48 - 1

// Sender sends objects to a group and answers its repair requests.
type Sender struct{ events []SenderEvent }

// Receiver receives the objects of the senders of a group.
type Receiver struct{ events []ReceiverEvent }

// NewSender makes a Sender. It fails if cfg is not valid.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Sender{}, nil
}

// NewReceiver makes a Receiver. It fails if cfg is not valid.
func NewReceiver(cfg ReceiverConfig) (*Receiver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Receiver{}, nil
}

// Instance is the instance_id of this sender, for a signed notice.
func (s *Sender) Instance() uint16 { return 0 }

// Add queues an object behind those already there. The id stays taken until
// the object is dropped.
func (s *Sender) Add(o Object) (ObjectID, error) { return 0, nil }

// Drop forgets an object, sent or not; requests for it are squelched.
func (s *Sender) Drop(id ObjectID) {}

// Watermark asks the nodes to confirm everything up to and including the
// object id, as soon as it has been sent. NodeAcked or NodeFailed follows for
// each. A later watermark replaces one that is not finished; it returns an
// error for an unknown object.
func (s *Sender) Watermark(id ObjectID, nodes []NodeID) error { return nil }

// SetRate tells the rate at which the caller sends, in bytes per second.
func (s *Sender) SetRate(bytesPerSecond int64) {}

// Close ends the session: repairs stop and EOT goes out, then Closed.
func (s *Sender) Close() {}

// Stats is a snapshot of the counters.
func (s *Sender) Stats() SenderStats { return SenderStats{} }

// Receivers reports on each receiver heard, by node id.
func (s *Sender) Receivers() []ReceiverReport { return nil }

// Stats is a snapshot of the counters.
func (r *Receiver) Stats() ReceiverStats { return ReceiverStats{} }

// Senders reports on each sender followed, by node id.
func (r *Receiver) Senders() []SenderReport { return nil }

func (s *Sender) poll(now time.Time, b []byte) []byte            { return b }
func (s *Sender) wake(now time.Time) time.Time                   { return time.Time{} }
func (s *Sender) handle(now time.Time, pkt []byte, unicast bool) {}

func (r *Receiver) handle(now time.Time, from netip.AddrPort, pkt []byte) {}
func (r *Receiver) poll(now time.Time, b []byte) ([]byte, netip.AddrPort) { return b, netip.AddrPort{} }
func (r *Receiver) wake(now time.Time) time.Time                          { return time.Time{} }
func (r *Receiver) missing(key ObjectKey) ([]Range, bool)                 { return nil, false }
func (r *Receiver) abandonKey(key ObjectKey)                              {}
