package norm

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// Receiver receives the objects of the senders of a group.
type Receiver struct {
	cfg     ReceiverConfig
	rng     *rand.Rand
	sources []*source // by node id
	stats   ReceiverStats
	events  []ReceiverEvent

	infoBytes int // NORM_INFO held of objects that have not ended

	data    Data                 // scratch for the message at hand
	codes   map[[2]int]*fec.Code // by k and r, few
	raw     []byte               // scratch for decoding
	symbols [][]byte             // likewise
}

// NewReceiver makes a Receiver. It fails if cfg is not valid.
func NewReceiver(cfg ReceiverConfig) (*Receiver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("receiver config: %w", err)
	}
	cfg = cfg.withDefaults()
	return &Receiver{cfg: cfg, rng: rand.New(cfg.Rand), codes: map[[2]int]*fec.Code{}}, nil
}

// Handle takes a packet from the network that came from the address from.
// What is malformed, forged or beyond a limit is counted and otherwise ignored.
func (r *Receiver) Handle(now time.Time, from netip.AddrPort, pkt []byte) {
	f, err := cut(pkt)
	if err != nil {
		r.stats.Rejected++
		return
	}
	t := Type(pkt[0] & 15)
	var m Message = &r.data
	if t != TypeData {
		m = newMessage(t, Flavor(pkt[12]))
	}
	if err := m.parse(f); err != nil {
		r.stats.Rejected++
		return
	}
	switch m := m.(type) {
	case *Nack:
		r.overhearNack(now, m)
	case *Ack:
		r.overhearAck(m)
	case senderMessage:
		r.handleSender(now, from, f, m)
	}
}

// senderMessage is any message of a sender.
type senderMessage interface {
	Message
	senderHeader() *SenderHeader
}

func (h *SenderHeader) senderHeader() *SenderHeader { return h }

// handleSender takes a message of a sender, once its origin is settled.
func (r *Receiver) handleSender(now time.Time, from netip.AddrPort, f frame, m senderMessage) {
	h := m.senderHeader()
	if h.Source == r.cfg.Node || (r.cfg.Sender != 0 && h.Source != r.cfg.Sender) || (r.cfg.Instance != 0 && h.Instance != r.cfg.Instance) {
		r.stats.Foreign++
		return
	}
	_, isData := m.(*Data)
	trusted := r.cfg.Auth == nil
	if !trusted && !isData {
		if open(r.cfg.Auth, h.Source, f) != nil {
			r.stats.Rejected++
			return
		}
		trusted = true
	}
	_, isEOT := m.(*EOT)
	src := r.admit(now, h, trusted && !isEOT)
	if src == nil {
		r.stats.Foreign++
		return
	}
	r.stats.Packets++
	r.stats.Bytes += uint64(len(f.pkt))
	src.hear(now, from, h, len(f.pkt), trusted)
	switch m := m.(type) {
	case *Data:
		src.handleData(now, m, trusted)
	case *Info:
		src.handleInfo(now, m)
	case *Flush:
		src.handleFlush(now, m)
	case *CC:
		src.handleProbe(now, m)
	case *RepairAdv:
		src.overhear(now, m.Requests)
		src.overhearRate(m.Ext)
	case *AckReq:
		src.handleAckReq(now, m)
	case *Squelch:
		src.handleSquelch(m)
	case *EOT:
		src.leave(errEOT)
	}
}

// admit finds the state of a sender. A trusted message makes one for a sender
// or instance that is new, or was silent; an ended instance stays ended.
func (r *Receiver) admit(now time.Time, h *SenderHeader, trusted bool) *source {
	i, found := slices.BinarySearchFunc(r.sources, h.Source, func(s *source, id NodeID) int { return cmp.Compare(s.id, id) })
	if found && r.sources[i].instance == h.Instance && !r.sources[i].mayCome {
		if r.sources[i].gone {
			return nil
		}
		return r.sources[i]
	}
	if !trusted {
		return nil
	}
	switch {
	case found:
		r.sources[i].leave(errReplaced)
		r.sources = slices.Delete(r.sources, i, i+1)
	case len(r.sources) >= r.cfg.MaxSenders:
		old := slices.IndexFunc(r.sources, func(s *source) bool { return s.gone })
		if old < 0 {
			return nil
		}
		r.sources = slices.Delete(r.sources, old, old+1)
		if old < i {
			i--
		}
	}
	src := newSource(r, h.Source, h.Instance, now)
	r.sources = slices.Insert(r.sources, i, src)
	r.event(ReceiverEvent{Kind: SenderFound, Key: src.key(0)})
	return src
}

// find gives the sender of an instance, or nil.
func (r *Receiver) find(id NodeID, instance uint16) *source {
	for _, s := range r.sources {
		if s.id == id && s.instance == instance && !s.gone {
			return s
		}
	}
	return nil
}

// Poll appends the next feedback packet that is due at now to b, and says
// where it goes: the zero AddrPort means the session's group. It returns b
// unchanged when nothing is due before Wake. It is also what notices that a
// sender has fallen silent.
func (r *Receiver) Poll(now time.Time, b []byte) ([]byte, netip.AddrPort) {
	for _, s := range r.sources {
		if s.gone {
			continue
		}
		if out := s.poll(now, b); len(out) > len(b) {
			to := netip.AddrPort{}
			if r.cfg.Unicast {
				to = s.from
				if r.cfg.FeedbackTo.IsValid() {
					to = r.cfg.FeedbackTo
				}
			}
			return out, to
		}
	}
	return b, netip.AddrPort{}
}

// Wake is when Poll should be called next; zero if only Handle can make
// something to do.
func (r *Receiver) Wake(time.Time) time.Time {
	var first time.Time
	for _, s := range r.sources {
		if s.gone {
			continue
		}
		if at := s.wake(); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// Events gives what happened since it was last called, oldest first.
func (r *Receiver) Events() []ReceiverEvent {
	ev := r.events
	r.events = nil
	return ev
}

func (r *Receiver) event(e ReceiverEvent) { r.events = append(r.events, e) }

// Missing gives the byte ranges of an object that have not been written yet,
// in order, and whether the object is being received or complete. What an
// abandoned object misses was said in its event.
func (r *Receiver) Missing(key ObjectKey) ([]Range, bool) {
	if s := r.find(key.Source, key.Instance); s != nil {
		if o := s.objects[key.Object]; o != nil && (o.state == objectOpen || o.state == objectComplete) {
			return o.missing(), true
		}
	}
	return nil, false
}

// Abandon stops work on an object: no more writes, no more requests. No event
// follows. Ask for what is Missing before.
func (r *Receiver) Abandon(key ObjectKey) {
	if s := r.find(key.Source, key.Instance); s != nil {
		if o := s.objects[key.Object]; o != nil && !o.ended() {
			s.end(o, objectAbandoned)
		}
	}
}

// Stats is a snapshot of the counters.
func (r *Receiver) Stats() ReceiverStats {
	st := r.stats
	for _, s := range r.sources {
		st.Lost += s.loss.lost
		st.ParityBytes += s.parityBytes
	}
	return st
}

// Senders reports on each sender followed, by node id.
func (r *Receiver) Senders() []SenderReport {
	var out []SenderReport
	for _, s := range r.sources {
		if !s.gone {
			out = append(out, SenderReport{
				Source: s.id, Instance: s.instance, LastHeard: s.heard,
				Received: s.loss.received, Lost: s.loss.lost, Loss: s.loss.fraction(), GRTT: s.grtt,
			})
		}
	}
	return out
}

// code gives the code for a pair of k and r.
func (r *Receiver) code(k, parity int) (*fec.Code, error) {
	key := [2]int{k, parity}
	if c := r.codes[key]; c != nil {
		return c, nil
	}
	c, err := fec.New(k, parity)
	if err != nil {
		return nil, fmt.Errorf("make code: %w", err)
	}
	if len(r.codes) >= 16 {
		clear(r.codes) // nobody needs so many; those in use are held by their objects
	}
	r.codes[key] = c
	return c, nil
}
