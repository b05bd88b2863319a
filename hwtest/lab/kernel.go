//go:build linux

package lab

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lossTable holds the rules that lose what arrives at one interface. Family
// netdev: before the host's own tables, before the bridge, all protocols.
func lossTable(e end) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "loss-" + e.name}
}

// ends tells which end sends and which receives in direction d.
func (l *Link) ends(d Direction) (from, to end) {
	if d == ToHost {
		return l.far, l.near
	}
	return l.near, l.far
}

// shapeKernel makes a path without a wire: a token bucket where the sender
// queues, nftables rules where the receiver takes in.
func (l *Link) shapeKernel(d Direction, p Path) error {
	from, to := l.ends(d)
	if err := limitRate(from, p, l.cfg.MTU); err != nil {
		return err
	}
	return l.setLoss(d, to, p.Loss)
}

func limitRate(e end, p Path, mtu int) error {
	attrs := netlink.QdiscAttrs{
		LinkIndex: e.index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0),
	}
	if p.Rate == 0 {
		err := e.ns.nl.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("lift rate of %s: %w", e.name, err)
		}
		return nil
	}
	bytesPerSecond := float64(p.Rate) / 8
	// The bucket holds what flows in a timer tick, and two frames at least.
	burst := max(bytesPerSecond*0.004, float64(2*(mtu+18)))
	limit := min(bytesPerSecond*p.queue().Seconds()+burst, math.MaxUint32)
	ticks := burst / bytesPerSecond * float64(time.Second/time.Microsecond) * netlink.TickInUsec()
	tbf := &netlink.Tbf{
		QdiscAttrs: attrs,
		Rate:       uint64(bytesPerSecond),
		Limit:      uint32(limit),
		Buffer:     uint32(ticks),
	}
	if err := e.ns.nl.QdiscReplace(tbf); err != nil {
		return fmt.Errorf("limit rate of %s: %w", e.name, err)
	}
	return nil
}

func (l *Link) setLoss(d Direction, e end, loss Loss) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, err := nftables.New(nftables.WithNetNSFd(e.ns.fd))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := lossTable(e)
	if l.lossy[d] {
		c.DelTable(table)
	}
	if loss.Kind != NoLoss {
		addLoss(c, c.AddTable(table), e, loss)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set loss of %s: %w", e.name, err)
	}
	l.lossy[d] = loss.Kind != NoLoss
	return nil
}

func addLoss(c *nftables.Conn, table *nftables.Table, e end, loss Loss) {
	chain := c.AddChain(&nftables.Chain{
		Name: "in", Table: table, Device: e.name, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
	})
	c.AddObj(&nftables.CounterObj{Table: table, Name: "lost"})
	rule := func(exprs ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	// What keeps the link itself working is not lost: see isControl.
	rule(load(expr.MetaKeyPROTOCOL), equal(binaryutil.BigEndian.PutUint16(unix.ETH_P_ARP)), accept)
	rule(load(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_IGMP}), accept)
	rule(load(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_ICMPV6}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{130}}, accept)
	rule(append(draw(loss),
		&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: "lost"},
		&expr.Verdict{Kind: expr.VerdictDrop})...)
}

// draw matches the frames to lose.
func draw(loss Loss) []expr.Any {
	const parts = 1_000_000
	kind, modulus := uint32(unix.NFT_NG_RANDOM), uint32(parts)
	below := uint32(math.Round(loss.Fraction * parts))
	if loss.Kind == Burst {
		kind, below = unix.NFT_NG_INCREMENTAL, uint32(loss.burst())
		modulus = parts
		if loss.Fraction > 0 {
			modulus = uint32(math.Round(loss.burst() / loss.Fraction))
		} else {
			below = 0
		}
	}
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: modulus, Type: kind},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(below)},
	}
}

// load puts a meta value into register 1.
func load(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: 1} }

// equal compares register 1.
func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}
}
