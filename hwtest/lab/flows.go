//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// Flow is an entry of a router's connection tracking table.
type Flow struct {
	Protocol uint8 // IP protocol number
	// Src and Dst are the addresses in the first packet of the flow; ports are
	// 0 where the protocol has none.
	Src, Dst netip.AddrPort
	// ReplySrc and ReplyDst are those of the replies as they arrive: after NAT
	// ReplyDst is the router's own address.
	ReplySrc, ReplyDst netip.AddrPort
	// Established: a TCP connection whose handshake is done and that nobody has
	// begun to close.
	Established bool
	// SentBytes and ReplyBytes are IP bytes, headers included.
	SentBytes, ReplyBytes uint64
}

// Flows lists what the router tracks now, of all protocols.
func (r *Router) Flows() ([]Flow, error) {
	c, err := r.openConntrack()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return dumpFlows(c)
}

func (r *Router) openConntrack() (*conntrack.Conn, error) {
	var c *conntrack.Conn
	err := r.Do(func() (err error) {
		c, err = conntrack.Dial(nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open conntrack of %s: %w", r.name, err)
	}
	return c, nil
}

func dumpFlows(c *conntrack.Conn) ([]Flow, error) {
	const established = 3 // TCP_CONNTRACK_ESTABLISHED
	entries, err := c.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("list flows: %w", err)
	}
	flows := make([]Flow, len(entries))
	for i, e := range entries {
		f := Flow{
			Protocol:   e.TupleOrig.Proto.Protocol,
			SentBytes:  e.CountersOrig.Bytes,
			ReplyBytes: e.CountersReply.Bytes,
		}
		f.Src, f.Dst = endpoints(e.TupleOrig)
		f.ReplySrc, f.ReplyDst = endpoints(e.TupleReply)
		tcp := e.ProtoInfo.TCP
		f.Established = f.Protocol == unix.IPPROTO_TCP && tcp != nil && tcp.State == established
		flows[i] = f
	}
	return flows, nil
}

func endpoints(t conntrack.Tuple) (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(t.IP.SourceAddress, t.Proto.SourcePort),
		netip.AddrPortFrom(t.IP.DestinationAddress, t.Proto.DestinationPort)
}

// FlowStats sums up a FlowWatch.
type FlowStats struct {
	Samples int // how often was looked
	Last    int // matching flows at the last look
	Peak    int // most matching flows at one look
}

// FlowWatch counts matching flows at intervals until Stop.
type FlowWatch struct {
	conn *conntrack.Conn
	stop chan struct{}
	done chan struct{}
	once sync.Once

	mu    sync.Mutex // guards all below
	stats FlowStats
	err   error
}

// WatchFlows counts the flows for which match is true, at once and then at each
// interval (100 ms is cheap). match runs in the watch's goroutine.
func (r *Router) WatchFlows(interval time.Duration, match func(Flow) bool) (*FlowWatch, error) {
	if interval <= 0 {
		return nil, fmt.Errorf("watch flows of %s: interval %v is not positive", r.name, interval)
	}
	c, err := r.openConntrack()
	if err != nil {
		return nil, err
	}
	w := &FlowWatch{conn: c, stop: make(chan struct{}), done: make(chan struct{})}
	go w.run(interval, match)
	r.lab.onClose(func() error { _, _ = w.Stop(); return nil })
	return w, nil
}

func (w *FlowWatch) run(interval time.Duration, match func(Flow) bool) {
	defer close(w.done)
	defer w.conn.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for w.look(match) {
		select {
		case <-w.stop:
			w.look(match)
			return
		case <-tick.C:
		}
	}
}

// look takes one sample; false when that failed.
func (w *FlowWatch) look(match func(Flow) bool) bool {
	flows, err := dumpFlows(w.conn)
	n := 0
	for _, f := range flows {
		if match(f) {
			n++
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = err
		return false
	}
	w.stats.Samples++
	w.stats.Last = n
	w.stats.Peak = max(w.stats.Peak, n)
	return true
}

// Stats tells what was seen so far.
func (w *FlowWatch) Stats() FlowStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// Stop takes a last sample and ends the watch. The error is why it ended before,
// if it did. It may be called more than once.
func (w *FlowWatch) Stop() (FlowStats, error) {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats, w.err
}
