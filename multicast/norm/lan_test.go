package norm

import (
	"bytes"
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// memory is a Sink or content in memory.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return 0, fmt.Errorf("write of %d bytes at %d beyond %d", len(p), off, len(m))
	}
	return copy(m[off:], p), nil
}

func (m memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func randomBytes(seed uint64, n int) memory {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// lan is a sender, receivers and a lossy wire between them, in virtual time.
// All randomness is from its seed.
type lan struct {
	now      time.Time
	sender   *Sender
	hosts    []*host
	rng      *rand.Rand
	delay    time.Duration
	jitter   time.Duration // more delay, up to this: packets overtake each other
	loss     float64       // of the sender's packets, at each receiver
	feedback float64       // of the receivers' packets, at each who hears them
	every    time.Duration // between the beginnings of outages of a host, on average
	rate     float64       // bytes per second
	free     time.Time
	flights  flights
	order    int
	events   []SenderEvent
	wire     int // bytes with Ethernet, IPv4 and UDP headers
	packets  int
	trace    hash.Hash64
	tap      func(pkt []byte) []byte // sees what the sender sends, may replace it
	lose     func(to int, pkt []byte) bool
	log      func(from int, pkt []byte, unicast bool) // sees what anybody sends; -1 is the sender
}

type host struct {
	r      *Receiver
	wake   time.Time
	files  map[ObjectKey]memory
	events []ReceiverEvent
	from   time.Time // deaf before
	outage time.Time // beginning of the current or next outage
}

// flight is a packet on its way to hosts, or to the sender if that is -1.
type flight struct {
	at      time.Time
	order   int
	to      []int
	pkt     []byte
	unicast bool
}

type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	return f[i].at.Before(f[j].at) || (f[i].at.Equal(f[j].at) && f[i].order < f[j].order)
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	old := *f
	x := old[len(old)-1]
	*f = old[:len(old)-1]
	return x
}

// outage is how long a host loses everything in a burst.
const outage = 10 * time.Millisecond

const frameOverhead = 14 + 20 + 8

var senderAddr = netip.MustParseAddrPort("10.0.0.1:6003")

// newLAN makes one with n receivers; the configs may be adjusted.
func newLAN(t testing.TB, seed uint64, n int, adjust func(*SenderConfig, *ReceiverConfig)) *lan {
	t.Helper()
	l := &lan{
		now: time.Unix(1_700_000_000, 0), rng: rand.New(rand.NewPCG(seed, 0)),
		delay: 200 * time.Microsecond, rate: 12.5e6, trace: fnv.New64a(),
	}
	sc := SenderConfig{Node: 1, Rand: rand.NewPCG(seed, 1)}
	for i := range n {
		h := &host{files: map[ObjectKey]memory{}}
		rc := ReceiverConfig{Node: NodeID(1001 + i), Rand: rand.NewPCG(seed, uint64(i+2)), Accept: func(o Offer) (Sink, error) {
			h.files[o.Key] = make(memory, o.Size)
			return h.files[o.Key], nil
		}}
		if adjust != nil {
			adjust(&sc, &rc)
		}
		var err error
		if h.r, err = NewReceiver(rc); err != nil {
			t.Fatal(err)
		}
		l.hosts = append(l.hosts, h)
	}
	if n == 0 && adjust != nil {
		adjust(&sc, &ReceiverConfig{})
	}
	sc.Rate = int64(l.rate)
	var err error
	if l.sender, err = NewSender(sc); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lan) fly(to int, pkt []byte, unicast bool) { l.flyAll([]int{to}, pkt, unicast) }

// flyAll sends a packet to hosts; jitter sets each apart.
func (l *lan) flyAll(to []int, pkt []byte, unicast bool) {
	if l.jitter == 0 {
		l.order++
		heap.Push(&l.flights, flight{l.now.Add(l.delay), l.order, to, pkt, unicast})
		return
	}
	for i := range to {
		l.order++
		delay := l.delay + time.Duration(l.rng.Int64N(int64(l.jitter)))
		heap.Push(&l.flights, flight{l.now.Add(delay), l.order, to[i : i+1], pkt, unicast})
	}
}

// step goes on to the next thing that happens; false if nothing ever will.
func (l *lan) step() bool {
	at := time.Time{}
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	send := l.sender.Wake(l.now)
	if !send.IsZero() && send.Before(l.free) {
		send = l.free
	}
	earlier(send)
	if len(l.flights) > 0 {
		earlier(l.flights[0].at)
	}
	for _, h := range l.hosts {
		earlier(h.wake)
	}
	if at.IsZero() {
		return false
	}
	if at.After(l.now) {
		l.now = at
	}
	l.deliver()
	l.transmit()
	for i, h := range l.hosts {
		if !h.wake.IsZero() && !h.wake.After(l.now) {
			l.answer(i, h)
		}
	}
	return true
}

func (l *lan) deliver() {
	for len(l.flights) > 0 && !l.flights[0].at.After(l.now) {
		f := heap.Pop(&l.flights).(flight)
		for _, to := range f.to {
			if to < 0 {
				l.sender.Handle(l.now, f.pkt, f.unicast)
				continue
			}
			h := l.hosts[to]
			h.r.Handle(l.now, senderAddr, f.pkt)
			h.wake = h.r.Wake(l.now)
			h.events = append(h.events, h.r.Events()...)
		}
	}
}

// transmit lets the sender send one packet if the rate allows.
func (l *lan) transmit() {
	if l.free.After(l.now) {
		return
	}
	pkt := l.sender.Poll(l.now, nil)
	l.events = append(l.events, l.sender.Events()...)
	if len(pkt) == 0 {
		return
	}
	l.wire += len(pkt) + frameOverhead
	l.packets++
	l.free = l.now.Add(time.Duration(float64(len(pkt)+frameOverhead) / l.rate * 1e9))
	fmt.Fprint(l.trace, l.now.UnixNano(), pkt[:min(len(pkt), 24)])
	if l.tap != nil {
		pkt = l.tap(pkt)
	}
	if l.log != nil {
		l.log(-1, pkt, false)
	}
	var to []int
	for i, h := range l.hosts {
		if !l.now.Before(h.from) && l.rng.Float64() >= l.loss && !l.outage(h) && (l.lose == nil || !l.lose(i, pkt)) {
			to = append(to, i)
		}
	}
	l.flyAll(to, pkt, false)
}

// outage reports whether a host loses everything at the moment: for 10 ms in
// l.every on average.
func (l *lan) outage(h *host) bool {
	if l.every == 0 {
		return false
	}
	for !l.now.Before(h.outage.Add(outage)) {
		next := h.outage
		if next.IsZero() {
			next = l.now
		}
		h.outage = next.Add(outage + time.Duration(l.rng.ExpFloat64()*float64(l.every-outage)))
	}
	return !l.now.Before(h.outage)
}

// answer sends a receiver's feedback.
func (l *lan) answer(from int, h *host) {
	for {
		pkt, to := h.r.Poll(l.now, nil)
		if len(pkt) == 0 {
			break
		}
		fmt.Fprint(l.trace, l.now.UnixNano(), pkt)
		if l.log != nil {
			l.log(from, pkt, to.IsValid())
		}
		if l.rng.Float64() >= l.feedback {
			l.fly(-1, pkt, to.IsValid())
		}
		var others []int
		for i := range l.hosts {
			if !to.IsValid() && i != from && l.rng.Float64() >= l.feedback {
				others = append(others, i)
			}
		}
		l.flyAll(others, pkt, false)
	}
	h.wake = h.r.Wake(l.now)
	h.events = append(h.events, h.r.Events()...)
}

// run steps until done or the virtual time is over.
func (l *lan) run(t testing.TB, limit time.Duration, done func() bool) {
	t.Helper()
	end := l.now.Add(limit)
	for !done() {
		if !l.step() || l.now.After(end) {
			t.Fatalf("not done after %v; sender %+v", limit, l.sender.Stats())
		}
	}
}

// has reports whether the sender said an event of a kind.
func (l *lan) has(kind SenderEventKind) bool {
	for _, e := range l.events {
		if e.Kind == kind {
			return true
		}
	}
	return false
}

// count is the number of a host's events of a kind.
func (h *host) count(kind ReceiverEventKind) int {
	n := 0
	for _, e := range h.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// complete reports whether every host has n objects complete.
func (l *lan) complete(n int) func() bool {
	return func() bool {
		for _, h := range l.hosts {
			if h.count(ObjectComplete) < n {
				return false
			}
		}
		return true
	}
}

// same checks that every host has the object as it was sent.
func (l *lan) same(t testing.TB, id ObjectID, want []byte) {
	t.Helper()
	key := ObjectKey{1, l.sender.Instance(), id}
	for i, h := range l.hosts {
		if !bytes.Equal(h.files[key], want) {
			t.Errorf("host %d: object %d differs", i, id)
		}
	}
}
