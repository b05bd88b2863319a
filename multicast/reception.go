package multicast

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// Times of a reception.
const (
	watchEvery = 100 * time.Millisecond
	lingerTime = 2 * time.Second // to confirm, after the object is whole
	reportTime = 5 * time.Second
	stallTime  = time.Second // without gain after the first pass
)

// isLate reports whether so much of an object may have been sent that an agent
// that joins takes what flows and asks for nothing: its requests would cost the
// others more than HTTP costs it. A notice heard long ago tells too little.
func isLate(n announce.Notice) bool {
	age := time.Since(n.Heard)
	if n.State == announce.Due {
		return age > 3*noticeDue
	}
	return age > 100*time.Millisecond || n.Sent > max(1<<20, n.ID.Size/50)
}

// reception is one session that an agent has joined. One goroutine runs it.
type reception struct {
	c      *Catcher
	notice announce.Notice
	sink   content.Sink
	late   bool
	rx, tx conn
	answer answerer
	pump   *pump
	engine *norm.Receiver

	trays   map[norm.ObjectKey]*tray
	pool    *gatherPool
	open    map[uint32]bool // extents of which something was missing
	lacked  int64           // bytes missing at the start
	refuted uint64
	joined  time.Time
	heard   time.Time // last packet of the session; zero if none
	posted  time.Time // last time a notice of it held
	packets uint64    // of the session, when it was looked last
	loss    float64   // fraction lost so far; the engine forgets a sender that is gone
	symbols uint64    // of use, when it was looked last
	gained  time.Time // last time there were more, or the first pass went on
	settled chan struct{}
	err     error // why it ended; valid once settled is closed

	cancel context.CancelCauseFunc
	leave  context.Context // ends when the Source's user has had enough
}

// Why a session is left before the object is whole; another Source goes on.
var (
	errOver     = fmt.Errorf("the session is over: %w", content.ErrNotHere)
	errSilent   = fmt.Errorf("the session fell silent: %w", content.ErrNotHere)
	errStalled  = fmt.Errorf("the session repairs no more: %w", content.ErrNotHere)
	errUnposted = fmt.Errorf("the box posts no notices of the session any more: %w", content.ErrNotHere)
	errSpoilt   = fmt.Errorf("blocks came that are not the object's: %w", content.ErrNotHere)
)

// errHave refuses an extent that is here already.
var errHave = errors.New("extent is here already")

// newReception joins the group of a session.
func newReception(ctx context.Context, c *Catcher, n announce.Notice, sink content.Sink) (*reception, error) {
	r := &reception{
		c: c, notice: n, sink: sink, late: isLate(n),
		trays: map[norm.ObjectKey]*tray{}, pool: newGatherPool(), open: map[uint32]bool{}, joined: time.Now(), posted: time.Now(),
		settled: make(chan struct{}),
	}
	if n := extents(n.ID.Size, n.ExtentSize); n > 4*maxExtents {
		return nil, fmt.Errorf("%d extents", n)
	}
	for _, m := range sink.Missing() {
		r.lacked += m.Len()
		for i := m.Off / n.ExtentSize; i*n.ExtentSize < m.End; i++ {
			r.open[uint32(i)] = true
		}
	}
	channel, _ := c.line.tuned()
	channel.Sources = append(channel.Sources[:0:0], n.Feedback.Addr())
	iface, err := c.iface(ctx)
	if err != nil {
		return nil, err
	}
	if r.rx, err = c.join(ctx, n.Group, channel, true); err != nil {
		return nil, err
	}
	if r.tx, err = c.net.transmit(iface, n.Group.Addr(), socketOptions{}); err != nil {
		return nil, errors.Join(err, r.rx.close())
	}
	r.engine, err = norm.NewReceiver(norm.ReceiverConfig{
		Node: c.line.Node(), Rand: rand.NewPCG(rand.Uint64(), rand.Uint64()), Accept: r.accept,
		Sender: boxNode, Instance: n.Instance, Unicast: true, FeedbackTo: n.Feedback, Silent: r.late,
		MaxObjectSize: n.ExtentSize, MaxSegmentSize: int(n.SegmentSize), MaxSenders: 1, MaxParityBytes: 4 << 20,
		Auth: newAgentAuth(c.line.file.Public, c.line.file.Secret),
	})
	if err != nil {
		return nil, errors.Join(err, r.rx.close(), r.tx.close())
	}
	r.answer = answerer{engine: r.engine, conn: r.tx, group: n.Group}
	r.leave, r.cancel = context.WithCancelCause(context.Background())
	r.pump = startPump(r.rx, maxBatch, restTime)
	return r, nil
}

// shut closes the sockets.
func (r *reception) shut() error {
	r.cancel(nil)
	return errors.Join(r.pump.stop(r.rx), r.tx.close())
}

// accept decides on an extent that the session offers; it is called by the
// engine.
func (r *reception) accept(o norm.Offer) (norm.Sink, error) {
	if !o.HasInfo {
		return nil, errors.New("extent without a descriptor")
	}
	if o.Info == nil {
		return nil, norm.ErrNeedInfo
	}
	d, err := parseDescriptor(o.Info, r.notice.ID, r.notice.ExtentSize)
	if err != nil {
		return nil, err
	}
	if o.Size != d.length || o.SegmentSize != int(r.notice.SegmentSize) {
		return nil, fmt.Errorf("extent of %d bytes in segments of %d does not agree with its descriptor", o.Size, o.SegmentSize)
	}
	if !r.open[d.index] {
		return nil, errHave
	}
	t := newTray(r.sink, content.Range{Off: d.off, End: d.off + d.length}, r.pool)
	r.trays[o.Key] = t
	return t, nil
}

// run receives until nothing more is to come; then, if the object is whole, it
// stays a moment to confirm that to the box.
func (r *reception) run(ctx context.Context) {
	r.begin()
	r.settle(r.loop(ctx, func() bool { return len(r.open) == 0 }))
	if r.err == nil {
		linger, cancel := context.WithTimeout(ctx, lingerTime)
		_ = r.loop(linger, func() bool { return false })
		cancel()
	}
	if err := r.shut(); err != nil {
		r.c.log.Warn("failed to leave a session", "object", r.notice.ID, "err", err)
	}
}

// begin counts the session and tells the box that this agent listens.
func (r *reception) begin() {
	c := r.c
	c.log.Info("joined a session", "object", r.notice.ID, "title", r.notice.Title, "group", r.notice.Group, "late", r.late)
	c.mu.Lock()
	c.stats.Joined++
	if r.late {
		c.stats.Late++
	}
	c.receptions[r] = r.figures()
	c.mu.Unlock()
	r.report(Report{ID: r.notice.ID, State: stateJoined, Late: r.late})
}

// loop drives the engine until done says so (nil) or there is a reason to end.
func (r *reception) loop(ctx context.Context, done func() bool) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	watch := time.Now().Add(watchEvery)
	for {
		now := time.Now()
		if err := r.drive(now); err != nil {
			return err
		}
		if done() {
			return nil
		}
		if !now.Before(watch) {
			watch = now.Add(watchEvery)
			if err := r.watch(now); err != nil {
				return err
			}
		}
		next := watch
		if wake := r.engine.Wake(now); !wake.IsZero() && wake.Before(next) {
			next = wake
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.leave.Done():
			return context.Cause(r.leave)
		case b, ok := <-r.pump.full:
			if !ok {
				return errors.New("the session's socket was closed")
			}
			r.take(b)
		case <-timer.C:
		}
	}
}

// take gives packets to the engine.
func (r *reception) take(b *batch) {
	now := time.Now()
	for _, p := range b.packets {
		r.engine.Handle(now, p.from, p.data)
	}
	if n := r.engine.Stats().Packets; n != r.packets {
		// Not the time before: the sink may have held this goroutine for long, and
		// what came meanwhile waits to be taken.
		r.heard, r.packets = time.Now(), n
	}
	r.pump.free <- b
}

// drive sends what the engine has to say and does what its events ask for.
func (r *reception) drive(now time.Time) error {
	if err := r.answer.send(now); err != nil {
		return err
	}
	for _, ev := range r.engine.Events() {
		if err := r.event(ev); err != nil {
			return err
		}
	}
	for _, t := range r.trays {
		if t.err != nil {
			return fmt.Errorf("keep what the session brings: %w", t.err)
		}
	}
	return nil
}

func (r *reception) event(ev norm.ReceiverEvent) error {
	t := r.trays[ev.Key]
	switch ev.Kind {
	case norm.ObjectRefused:
		if !errors.Is(ev.Err, errHave) {
			r.c.log.Warn("refused an extent", "object", r.notice.ID, "err", ev.Err)
		}
	case norm.ObjectComplete, norm.ObjectAbandoned:
		if t == nil {
			return nil
		}
		delete(r.trays, ev.Key)
		delete(r.open, uint32(t.extent.Off/r.notice.ExtentSize))
		return r.clear(t)
	case norm.SenderGone:
		return errOver
	}
	return nil
}

// clear empties a tray and takes it out of use.
func (r *reception) clear(t *tray) error {
	if t.err == nil {
		t.err = t.flush()
	}
	t.closed = true
	r.refuted += uint64(t.bad)
	return t.err
}

// watch looks for reasons to end, and brings the figures up to date.
func (r *reception) watch(now time.Time) error {
	posted, ok := r.c.board.Get(r.notice.ID)
	if ok = ok && posted.Instance == r.notice.Instance; ok {
		r.posted = now
	}
	if n := r.engine.Stats().Symbols; n != r.symbols || !ok || posted.Sent < posted.ID.Size {
		r.symbols, r.gained = n, now
	}
	quiet := now.Sub(r.joined)
	if !r.heard.IsZero() {
		quiet = now.Sub(r.heard)
	}
	r.publish()
	switch {
	case ok && posted.State == announce.Ended && quiet > watchEvery:
		return errOver
	case quiet > r.c.cfg.Silence && !(ok && posted.State == announce.Due):
		return errSilent
	case now.Sub(r.gained) > max(stallTime, 6*r.grtt()):
		return errStalled // what the box repairs is limited, see CasterConfig.RepairRounds
	case now.Sub(r.posted) > r.c.cfg.Silence:
		return errUnposted // anybody can make noise on a group, only the box notices
	}
	return nil
}

// grtt is the round trip time that the box advertises.
func (r *reception) grtt() time.Duration {
	if s := r.engine.Senders(); len(s) > 0 {
		return s[0].GRTT
	}
	return 0
}

// settle ends the part in which the sink is written to: err says why.
func (r *reception) settle(err error) {
	for _, t := range r.trays {
		if e := r.clear(t); e != nil && !errors.Is(e, err) {
			err = errors.Join(err, e)
		}
	}
	var left int64
	for _, m := range r.sink.Missing() {
		left += m.Len()
	}
	switch {
	case left == 0:
		r.err = nil
	case err == nil:
		r.err = fmt.Errorf("%d bytes of %d did not come: %w", left, r.lacked, errSpoilt)
	default:
		r.err = fmt.Errorf("%d bytes of %d did not come: %w", left, r.lacked, err)
	}
	r.end(left, err)
	close(r.settled)
}
