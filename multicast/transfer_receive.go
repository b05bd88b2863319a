package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// ErrTimeout says that a FileReceiver got no more for too long.
var ErrTimeout = errors.New("nothing new came")

// maxOpenFiles bounds the files being received at once.
const maxOpenFiles = 256

// FileReceiver receives files from a group in plain RFC 5740, from this
// package's FileSender or from foreign ones. It believes whoever sends: all
// that it promises is that files land in its directory and nowhere else. Run
// may be called once; Stats at any time from any goroutine.
type FileReceiver struct {
	cfg FileReceiverConfig
	log *slog.Logger
	net network

	// Run's goroutine alone has these.
	root   *os.Root
	rx     conn
	answer answerer
	engine *norm.Receiver
	open   map[norm.ObjectKey]*incoming
	pool   *gatherPool
	whole  time.Time // when the last file wanted was whole
	useful uint64    // symbols of use so far
	heard  uint64    // symbols and confirmations so far
	gained time.Time // last time useful grew
	busy   time.Time // last time heard grew
	gone   bool      // the last sender said that this is all

	// mu guards figures.
	mu      sync.Mutex
	figures FileReceiverStats
}

// NewFileReceiver makes a FileReceiver. It opens nothing.
func NewFileReceiver(cfg FileReceiverConfig, log *slog.Logger) (*FileReceiver, error) {
	return newFileReceiver(cfg, kernel{}, log)
}

func newFileReceiver(cfg FileReceiverConfig, net network, log *slog.Logger) (*FileReceiver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &FileReceiver{cfg: cfg.withDefaults(), net: net, log: log, open: map[norm.ObjectKey]*incoming{}, pool: newGatherPool()}, nil
}

// Run receives Count files, stays until their senders know that, and returns
// nil. The error wraps ErrTimeout if nothing new came for the time configured.
func (r *FileReceiver) Run(ctx context.Context) (err error) {
	if err := os.MkdirAll(r.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if r.root, err = os.OpenRoot(r.cfg.Dir); err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { err = errors.Join(err, r.discard(), r.root.Close()) }()
	if err := r.prepare(); err != nil {
		return err
	}
	p := startPump(r.rx, maxBatch, restTime)
	defer func() { err = errors.Join(err, p.stop(r.rx), r.answer.conn.close()) }()
	return r.loop(ctx, p)
}

// prepare opens the sockets and makes the engine.
func (r *FileReceiver) prepare() (err error) {
	cfg := r.cfg
	r.engine, err = norm.NewReceiver(norm.ReceiverConfig{
		Node: cfg.Node, Rand: rand.NewPCG(rand.Uint64(), rand.Uint64()), Accept: r.accept, Unicast: cfg.Unicast,
	})
	if err != nil {
		return err
	}
	var sources []netip.Addr
	if cfg.Source.IsValid() {
		sources = append(sources, cfg.Source)
	}
	if r.rx, err = r.net.join(cfg.Interface, cfg.Group, sources, socketOptions{buffer: cfg.Buffer, bulk: true}); err != nil {
		return err
	}
	tx, err := r.net.transmit(cfg.Interface, cfg.Group.Addr(), socketOptions{})
	if err != nil {
		return errors.Join(err, r.rx.close())
	}
	r.answer = answerer{engine: r.engine, conn: tx, group: cfg.Group}
	return nil
}

// accept takes every file; its name may come later. It is called by the engine.
func (r *FileReceiver) accept(o norm.Offer) (norm.Sink, error) {
	if len(r.open) >= maxOpenFiles {
		return nil, fmt.Errorf("%d files are being received already", maxOpenFiles)
	}
	in, err := newIncoming(r.root, o.Size, r.pool, time.Now())
	if err != nil {
		return nil, err
	}
	r.open[o.Key] = in
	return in, nil
}

// discard removes what is not whole.
func (r *FileReceiver) discard() (err error) {
	for _, in := range r.open {
		err = errors.Join(err, in.discard())
	}
	return err
}

// loop drives the engine until all has come and been confirmed.
func (r *FileReceiver) loop(ctx context.Context, p *pump) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	r.gained = time.Now()
	r.busy = r.gained
	watch := r.gained.Add(watchEvery)
	for {
		now := time.Now()
		if err := r.answer.send(now); err != nil {
			return err
		}
		if err := r.handleEvents(now); err != nil {
			return err
		}
		if !now.Before(watch) || r.gone {
			watch = now.Add(watchEvery)
			if end, err := r.watch(now); end {
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
			return context.Cause(ctx)
		case b, ok := <-p.full:
			if !ok {
				return errors.New("the socket was closed")
			}
			now := time.Now()
			for _, got := range b.packets {
				r.engine.Handle(now, got.from, got.data)
			}
			p.free <- b
		case <-timer.C:
		}
	}
}

// handleEvents does what the engine's events ask for.
func (r *FileReceiver) handleEvents(now time.Time) error {
	for _, ev := range r.engine.Events() {
		in := r.open[ev.Key]
		switch ev.Kind {
		case norm.ObjectRefused:
			r.log.Warn("refused a file", "source", ev.Key.Source, "err", ev.Err)
		case norm.ObjectComplete:
			delete(r.open, ev.Key)
			if err := r.keep(now, in, ev); err != nil {
				return err
			}
		case norm.ObjectAbandoned:
			delete(r.open, ev.Key)
			r.log.Warn("gave a file up", "source", ev.Key.Source, "bytes", in.bytes, "err", ev.Err)
			if err := in.discard(); err != nil {
				return err
			}
		case norm.SenderFound:
			r.gone = false
		case norm.SenderGone:
			r.gone = true
		}
	}
	return nil
}

// keep gives a whole file its name, unless enough have come.
func (r *FileReceiver) keep(now time.Time, in *incoming, ev norm.ReceiverEvent) error {
	if !r.whole.IsZero() {
		return in.discard()
	}
	name := nameFor(ev.Info, ev.Key)
	if err := in.keep(name); err != nil {
		return err
	}
	r.log.Info("received a file", "title", name, "source", ev.Key.Source, "bytes", in.size, "took", now.Sub(in.began))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures.Files = append(r.figures.Files, ReceivedFile{
		Name: name, Bytes: in.size, Sender: ev.Key.Source, Seconds: now.Sub(in.began).Seconds(), Finished: time.Now(),
	})
	if len(r.figures.Files) == r.cfg.Count {
		r.whole = now
	}
	return nil
}

// watch brings the figures up to date and looks whether it is time to end: when
// enough has come and the sender says that this is all or falls silent, so that
// nobody waits for a confirmation; or when nothing new comes any more.
func (r *FileReceiver) watch(now time.Time) (end bool, err error) {
	st := r.engine.Stats()
	if st.Symbols != r.useful {
		r.useful, r.gained = st.Symbols, now
	}
	if n := st.Symbols + st.Duplicates + st.Acks; n != r.heard {
		r.heard, r.busy = n, now
	}
	r.publish(st)
	switch {
	case !r.whole.IsZero() && (r.gone || now.Sub(r.busy) > lingerTime || now.Sub(r.whole) > r.cfg.Timeout):
		return true, nil
	case r.whole.IsZero() && now.Sub(r.gained) > r.cfg.Timeout:
		return true, fmt.Errorf("%w for %s: %d of %d files are here", ErrTimeout, r.cfg.Timeout, len(r.Stats().Files), r.cfg.Count)
	}
	return false, nil
}

// publish brings the figures up to date.
func (r *FileReceiver) publish(st norm.ReceiverStats) {
	var open []OpenFile
	for key, in := range r.open {
		open = append(open, OpenFile{Name: nameFor(nil, key), Bytes: in.bytes, Size: in.size})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &r.figures
	f.Open = open
	f.Packets, f.Lost, f.Rejected, f.Nacks, f.Acks = st.Packets, st.Lost, st.Rejected, st.Nacks, st.Acks
	f.Dropped = r.rx.dropped()
}

// Stats gives a snapshot.
func (r *FileReceiver) Stats() FileReceiverStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.figures
	f.Files = slices.Clone(f.Files)
	return f
}
