//go:build linux

package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inFlight bounds the frames on one lane of a wire, and so its memory: at MTU
// size they are 100 ms of 2 Gbit/s.
const inFlight = 16384

// wire is a link made in this process: a TAP at each end and a lane for each
// direction between them.
type wire struct {
	taps  [2]*os.File // near, far
	lanes [2]*lane    // by Direction
	wait  sync.WaitGroup
}

// lane carries the frames of one direction.
type lane struct {
	in, out        *os.File
	size           int // longest frame
	log            *slog.Logger
	lost, overflow atomic.Uint64

	frames  chan frame
	pending atomic.Int64 // frames in the channel or in the hands of deliver
	pool    sync.Pool    // of *[]byte

	mu     sync.Mutex // guards shaper
	shaper *shaper
}

// frame is an Ethernet frame on its way.
type frame struct {
	data *[]byte
	due  time.Time
}

// plugWire makes the ends of the link as TAPs joined by a wire.
func (l *Link) plugWire() error {
	lab := l.host.lab
	w := &wire{}
	for i, e := range []end{l.near, l.far} {
		tap, err := openTAP(e)
		if err != nil {
			return errors.Join(err, w.close())
		}
		w.taps[i] = tap
		if err := l.setUpTAP(e); err != nil {
			return errors.Join(err, w.close())
		}
	}
	size := l.cfg.MTU + 18
	near, far := w.taps[0], w.taps[1]
	w.lanes[ToHost] = newLane(far, near, size, lab.seeded(l.cfg.ToHost), lab.log)
	w.lanes[FromHost] = newLane(near, far, size, lab.seeded(l.cfg.FromHost), lab.log)
	for _, n := range w.lanes {
		w.wait.Go(n.receive)
		w.wait.Go(n.deliver)
	}
	l.wire = w
	lab.onClose(w.close)
	return nil
}

func (l *Link) setUpTAP(e end) error {
	dev, err := e.ns.nl.LinkByName(e.name)
	if err != nil {
		return fmt.Errorf("find TAP %s: %w", e.name, err)
	}
	const queue = 4096 // rides out a pause of this process
	err = errors.Join(
		e.ns.nl.LinkSetHardwareAddr(dev, l.host.lab.nextMAC()),
		e.ns.nl.LinkSetMTU(dev, l.cfg.MTU),
		e.ns.nl.LinkSetTxQLen(dev, queue))
	if err != nil {
		return fmt.Errorf("set up TAP %s: %w", e.name, err)
	}
	return nil
}

// openTAP makes a TAP in the namespace of e; it lives until the file is closed.
func openTAP(e end) (*os.File, error) {
	var tap *os.File
	err := e.ns.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(e.name)
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return errors.Join(fmt.Errorf("make TAP %s: %w", e.name, err), unix.Close(fd))
		}
		tap = os.NewFile(uintptr(fd), e.name)
		return nil
	})
	return tap, err
}

// seeded gives the losses of p a seed where the test did not care.
func (l *Lab) seeded(p Path) Path {
	draw := func(loss *Loss) {
		if loss.Kind != NoLoss && loss.Seed == 0 {
			loss.Seed = rand.Uint64() | 1
			l.log.Info("drew loss seed", "seed", loss.Seed)
		}
	}
	draw(&p.Loss)
	if p.Multicast != nil {
		m := *p.Multicast
		draw(&m.Loss)
		p.Multicast = &m
	}
	return p
}

// setCarrier shows the host a plugged or an unplugged cable.
func (w *wire) setCarrier(up bool) error {
	var value int32
	if up {
		value = 1
	}
	raw, err := w.taps[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("set carrier: %w", err)
	}
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.TUNSETCARRIER, uintptr(unsafe.Pointer(&value)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return fmt.Errorf("set carrier: %w", err)
	}
	return nil
}

// close removes both TAPs and waits for the lanes to end.
func (w *wire) close() error {
	var errs []error
	for _, tap := range w.taps {
		if tap != nil {
			errs = append(errs, tap.Close())
		}
	}
	w.wait.Wait()
	return errors.Join(errs...)
}

func newLane(in, out *os.File, size int, p Path, log *slog.Logger) *lane {
	n := &lane{in: in, out: out, size: size, log: log, shaper: newShaper(p)}
	n.frames = make(chan frame, inFlight)
	n.pool.New = func() any { b := make([]byte, size); return &b }
	return n
}

// set starts a new path, with the loss pattern from its beginning.
func (n *lane) set(p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shaper = newShaper(p)
	n.lost.Store(0)
	n.overflow.Store(0)
}

// receive takes frames in until the TAP is closed.
func (n *lane) receive() {
	defer close(n.frames)
	buf := n.pool.Get().(*[]byte)
	for {
		*buf = (*buf)[:n.size]
		size, err := n.in.Read(*buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				n.log.Warn("wire read failed", "err", err)
			}
			return
		}
		if size < 14 {
			continue
		}
		*buf = (*buf)[:size]
		if n.offer(buf) {
			buf = n.pool.Get().(*[]byte)
		}
	}
}

// offer decides about a frame and tells whether it keeps the buffer.
func (n *lane) offer(buf *[]byte) bool {
	now := time.Now()
	n.mu.Lock()
	due, v := n.shaper.admit(now, *buf)
	n.mu.Unlock()
	switch v {
	case lost:
		n.lost.Add(1)
		return false
	case overflow:
		n.overflow.Add(1)
		return false
	}
	if !due.After(now) && n.pending.Load() == 0 {
		n.send(*buf)
		return false
	}
	select {
	case n.frames <- frame{buf, due}:
		n.pending.Add(1)
		return true
	default:
		n.overflow.Add(1)
		return false
	}
}

// deliver hands delayed frames over when they are due, in their order.
func (n *lane) deliver() {
	for f := range n.frames {
		if wait := time.Until(f.due); wait > 0 {
			time.Sleep(wait)
		}
		n.send(*f.data)
		n.pending.Add(-1)
		n.pool.Put(f.data)
	}
}

// send delivers a frame. An interface that is down swallows it, as a cable that
// ends nowhere would.
func (n *lane) send(data []byte) {
	_, _ = n.out.Write(data)
}
