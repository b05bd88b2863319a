package qualify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/admin/client"
)

// The groups of the test (organization-local scope, RFC 2365 §6.2). Nobody joins
// the stray one: where it arrives, the switch does not snoop.
var (
	testGroup  = netip.MustParseAddrPort("239.192.77.77:6013")
	strayGroup = netip.MustParseAddrPort("239.192.77.78:6013")
)

// receiveBuffer is asked for, in bytes; the kernel may give less.
const receiveBuffer = 8 << 20

// hostRate is what is sent within this machine, in bits each second, where the
// card does not say how fast it is.
const hostRate = 1_000_000_000

// SendConfig says how test packets are sent.
type SendConfig struct {
	// Interface is the network card.
	Interface string
	// Rate in bits of payload each second.
	Rate int64
	// For is how long.
	For time.Duration
	// TTL is 1 for the network of the card and 0 for this machine alone.
	TTL int
}

// Send sends numbered packets to the group that a qualification with
// [Config.Wire] on another machine listens to, and says how many.
func Send(ctx context.Context, cfg SendConfig) (sent uint64, err error) {
	conn, err := sender(cfg)
	if err != nil {
		return 0, fmt.Errorf("send test packets: %w", err)
	}
	defer conn.Close()
	p := packet{run: rand.Uint64()}
	b := make([]byte, packetBytes)
	start, end := time.Now(), time.Now().Add(cfg.For)
	for time.Now().Before(end) && p.num < maxPackets-1 && ctx.Err() == nil {
		due := uint64(time.Since(start).Seconds() * float64(cfg.Rate) / (8 * packetBytes))
		for ; p.num < min(due, maxPackets-1); p.num++ {
			p.put(b)
			if _, err := conn.WriteToUDPAddrPort(b, testGroup); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return p.num, fmt.Errorf("send test packets: %w", err)
			}
			if p.num%256 == 0 && cfg.TTL > 0 {
				_, _ = conn.WriteToUDPAddrPort(b[:headBytes], strayGroup) // one of many
			}
		}
		pause(ctx, time.Millisecond)
	}
	// How many there were, some times over: one may be lost.
	for range 5 {
		packet{run: p.run, total: p.num}.put(b)
		if _, err := conn.WriteToUDPAddrPort(b[:headBytes], testGroup); err != nil {
			return p.num, fmt.Errorf("send test packets: %w", err)
		}
		pause(ctx, 20*time.Millisecond)
	}
	return p.num, ctx.Err()
}

// options sets the options of a socket before it is bound.
func options(set func(fd int) error) net.ListenConfig {
	return net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = set(int(fd)) }), err)
	}}
}

func sender(cfg SendConfig) (*net.UDPConn, error) {
	i, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, err
	}
	lc := options(func(fd int) error {
		return errors.Join(
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(i.Index)}),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, cfg.TTL),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1))
	})
	conn, err := lc.ListenPacket(context.Background(), "udp4", ":0")
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// member gives a socket that gets the test group from one card alone.
func member(card string) (*net.UDPConn, error) {
	i, err := net.InterfaceByName(card)
	if err != nil {
		return nil, err
	}
	group := testGroup.Addr().As4()
	lc := options(func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as there is
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0),
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group, Ifindex: int32(i.Index)}))
	})
	conn, err := lc.ListenPacket(context.Background(), "udp4", testGroup.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// multicast receives on a card, from another machine or from this one.
func (q *Qualifier) multicast(ctx context.Context, n *client.NIC) {
	result, err := q.receive(ctx, n)
	if err != nil && ctx.Err() == nil {
		result.Err = noRight(err)
	}
	n.Multicast = result
}

func (q *Qualifier) receive(ctx context.Context, n *client.NIC) (r client.MulticastTest, err error) {
	conn, err := member(n.Name)
	if err != nil {
		return r, fmt.Errorf("join a group on %s: %w", n.Name, err)
	}
	defer conn.Close()
	if q.cfg.Wire > 0 {
		return q.receiveWire(ctx, n.Name, conn)
	}
	sent := make(chan error, 1)
	go func() {
		speed := n.BitRate
		if speed == 0 {
			speed = hostRate
		}
		_, err := Send(ctx, SendConfig{Interface: n.Name, Rate: speed / 10 * 9, For: q.budget.multicast})
		sent <- err
	}()
	t, took, r := gather(ctx, conn, 2*time.Second, q.budget.multicast+5*time.Second)
	err = <-sent
	r.Path, r.BitRate = "host", bitRate(t, took)
	if t == 0 && err == nil {
		err = errors.New("no packet came back")
	}
	return r, err
}

// receiveWire waits for another machine. Who may not listen to the card does not
// learn whether the switch snoops.
func (q *Qualifier) receiveWire(ctx context.Context, card string, conn *net.UDPConn) (client.MulticastTest, error) {
	snooping := func() string { return "" }
	if strays, err := countStrays(card); err == nil {
		snooping = func() string {
			if strays() > 0 {
				return "no"
			}
			return "yes"
		}
	}
	t, took, r := gather(ctx, conn, q.cfg.Wire, 10*time.Minute)
	snoops := snooping()
	if t == 0 {
		return client.MulticastTest{}, fmt.Errorf("no packet came in %v: is \"cistern hwtest --send\" running on another machine?", q.cfg.Wire)
	}
	r.Path, r.BitRate, r.Snooping = "wire", bitRate(t, took), snoops
	return r, nil
}

func bitRate(packets uint64, took time.Duration) int64 {
	return int64(float64(packets) * packetBytes * 8 / max(took.Seconds(), 0.001))
}

// gather counts packets until the sender says that these were all, or nothing
// came for a second. It waits for the first as long as wait.
func gather(ctx context.Context, conn *net.UDPConn, wait, limit time.Duration) (packets uint64, took time.Duration, r client.MulticastTest) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	var t tally
	b := make([]byte, 2048)
	deadline := time.Now().Add(wait)
	var first, last time.Time
	for count := 0; ctx.Err() == nil; count++ {
		if count%64 == 0 || first.IsZero() {
			_ = conn.SetReadDeadline(deadline) // a closed socket shows at the read
		}
		n, err := conn.Read(b)
		if err != nil {
			break
		}
		p, ok := parsePacket(b[:n])
		if !ok {
			continue
		}
		if t.add(p); t.total > 0 && p.run == t.run {
			break
		}
		if count%64 == 0 || first.IsZero() {
			last = time.Now()
			deadline = last.Add(time.Second)
		}
		if first.IsZero() {
			first = last
		}
		if last.Sub(first) > limit {
			break
		}
	}
	if !first.IsZero() {
		took = time.Since(first)
	}
	return t.unique, took, t.result()
}
