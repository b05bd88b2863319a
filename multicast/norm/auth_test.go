package norm

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// macAuth authenticates with a key of each node; a stand-in for the signature
// and MACs of real parties.
type macAuth struct {
	own  string
	keys map[NodeID]string
}

func mac(key string, msg []byte) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write(msg)
	return h.Sum(nil)
}

func (a macAuth) Overhead() int          { return 32 }
func (a macAuth) Seal(field, msg []byte) { copy(field, mac(a.own, msg)) }

func (a macAuth) Open(from NodeID, field, msg []byte) error {
	if key := a.keys[from]; key == "" || !hmac.Equal(field, mac(key, msg)) {
		return errors.New("wrong authentication code")
	}
	return nil
}

// withAuth gives each party its key.
func withAuth(s *SenderConfig, r *ReceiverConfig) {
	s.Auth = macAuth{"sender", map[NodeID]string{1001: "receiver 1001", 1002: "receiver 1002"}}
	if r.Node == 1001 || r.Node == 1002 {
		r.Auth = macAuth{map[NodeID]string{1001: "receiver 1001", 1002: "receiver 1002"}[r.Node], map[NodeID]string{1: "sender"}}
	}
	r.Unicast = true
}

// Forged commands of the sender, put in between, disturb nothing.
func TestForgedCommandsAreIgnored(t *testing.T) {
	l := newLAN(t, 21, 2, withAuth)
	l.loss, l.feedback = 0.1, 0.1
	rng := rand.New(rand.NewPCG(1, 1))
	forged := 0
	l.tap = func(pkt []byte) []byte {
		if rng.IntN(3) > 0 {
			return pkt
		}
		forged++
		h := SenderHeader{Header: Header{Sequence: uint16(forged), Source: 1}, Instance: l.sender.Instance(), GRTT: 250}
		if rng.IntN(2) == 0 {
			h.Instance++
		}
		h.Ext = h.Ext.AppendFTI(FTI{1 << 30, 1400, 64, 16})
		if rng.IntN(2) == 0 {
			h.Ext = h.Ext.appendAuth(32)
		}
		messages := []Message{
			&EOT{h},
			&Squelch{h, FECReedSolomon, Position{Object: 1}, 0, []byte{0, 0}},
			&Flush{h, FECReedSolomon, Position{100, 100, 100}, 0, nil},
			&Info{h, FlagInfo, FECReedSolomon, 0, []byte("forged")},
			&CC{SenderHeader: h, SendTime: Timestamp{1, 1}},
			&RepairAdv{SenderHeader: h, Requests: []byte{2, LevelBlock, 0, 16, 5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 255, 255, 255, 0}},
		}
		for i := range l.hosts {
			l.fly(i, messages[rng.IntN(len(messages))].Append(nil), false)
		}
		return pkt
	}
	id, content := l.add(t, 1<<20)
	if err := l.sender.Watermark(id, []NodeID{1001, 1002}); err != nil {
		t.Fatal(err)
	}
	l.run(t, time.Minute, func() bool { return l.complete(1)() && l.has(NodeAcked) && !l.sender.watermark.roll.open() })
	l.same(t, id, content)
	for i, h := range l.hosts {
		if h.count(SenderFound) != 1 || h.count(SenderGone) != 0 || h.count(ObjectAbandoned) != 0 || h.r.Stats().Rejected == 0 {
			t.Errorf("host %d: %+v, events %+v", i, h.r.Stats(), h.events)
		}
		for _, e := range h.events {
			if e.Kind == ObjectComplete && string(e.Info) == "forged" {
				t.Errorf("host %d believed forged information", i)
			}
		}
	}
	if forged == 0 {
		t.Error("nothing was forged")
	}
}

// Feedback without a good MAC is rejected: of a stranger, with another's id,
// with a field of the wrong length, with none.
func TestForgedFeedbackIsIgnored(t *testing.T) {
	l := newLAN(t, 22, 3, withAuth) // the third receiver has no key
	l.loss = 0.1
	id, content := l.add(t, 300_000)
	l.hosts = l.hosts[:2]
	third := l.hosts[0].r.cfg
	third.Node, third.Auth = 1002, macAuth{"guess", map[NodeID]string{1: "sender"}}
	liar, err := NewReceiver(third)
	if err != nil {
		t.Fatal(err)
	}
	l.hosts = append(l.hosts, &host{r: liar, files: map[ObjectKey]memory{}})
	l.run(t, time.Minute, func() bool { return l.has(Flushed) })
	for i := range 2 {
		if l.hosts[i].count(ObjectComplete) != 1 {
			t.Errorf("host %d: not complete", i)
		}
	}
	_, _ = id, content
	st := l.sender.Stats()
	if st.Rejected == 0 || len(l.sender.Receivers()) != 2 {
		t.Errorf("%+v, %d receivers", st, len(l.sender.Receivers()))
	}
	before := st.Rejected
	nack := Nack{Header: Header{Source: 1001}, Sender: 1, Instance: l.sender.Instance()}
	for _, ext := range []Extensions{nil, Extensions(nil).appendAuth(32), Extensions(nil).appendAuth(16)} {
		nack.Ext = ext
		l.sender.Handle(l.now, nack.Append(nil), true)
	}
	if got := l.sender.Stats().Rejected - before; got != 3 {
		t.Errorf("%d of 3 forgeries rejected", got)
	}
}

func TestAuthNeedsInfo(t *testing.T) {
	s, err := NewSender(SenderConfig{Node: 1, Rand: rand.NewPCG(1, 1), Auth: macAuth{own: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(Object{Content: make(memory, 5), Size: 5}); err == nil {
		t.Error("an object without information was taken; no receiver would believe its FTI")
	}
	if _, err := s.Add(Object{Content: make(memory, 5), Size: 5, Info: make([]byte, 1400-36-16+1)}); err == nil {
		t.Error("too much information was taken")
	}
}
