package steer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// door is the sockets on loopback where what was taken arrives.
type door struct {
	streams []*net.TCPListener
	packets []*packets
}

// packets is a socket for datagrams of one family, and the ways to send some in
// another's name: on, and in answer.
type packets struct {
	*net.UDPConn
	on, answer *sender
}

// openDoor opens the sockets. They stand on loopback, so that nobody reaches them
// but by the rules.
func openDoor(cfg Config) (*door, error) {
	d := &door{}
	for _, host := range []string{"127.0.0.1", "::1"} {
		lc := net.ListenConfig{Control: control(setTransparent)}
		lc.SetMultipathTCP(false) // as towards the clients of cache/proxy
		addr := net.JoinHostPort(host, strconv.Itoa(int(cfg.Port)))
		l, err := lc.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for what is taken: %w", err), d.close())
		}
		d.streams = append(d.streams, l.(*net.TCPListener))
		pc, err := lc.ListenPacket(context.Background(), "udp", addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for what is taken: %w", err), d.close())
		}
		p := &packets{UDPConn: pc.(*net.UDPConn)}
		d.packets = append(d.packets, p)
		is4 := host == "127.0.0.1"
		if p.on, err = openSender(is4, 0); err == nil {
			p.answer, err = openSender(is4, cfg.replyMark())
		}
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

func (d *door) close() error {
	var errs []error
	for _, l := range d.streams {
		errs = append(errs, l.Close())
	}
	for _, p := range d.packets {
		errs = append(errs, p.Close(), p.on.close(), p.answer.close())
	}
	return errors.Join(errs...)
}

// hello is what the service says to itself.
var hello = []byte("\x00cistern\x00")

// probeTime is how long it may take to answer. A look that begins renewEvery after
// the last renewal and takes this long still comes before gateLife is over, so a
// small board that is busy does not let go of its clients; and it adds nothing to
// how long a box that hangs stands in the way, which gateLife alone says.
const probeTime = 3 * time.Second

// probe asks each socket something. Whoever does not answer in time must not be
// given anything.
func (d *door) probe() error {
	deadline := time.Now().Add(probeTime)
	for i := range d.streams {
		for network, addr := range map[string]net.Addr{"tcp": d.streams[i].Addr(), "udp": d.packets[i].LocalAddr()} {
			if err := ask(network, addr.String(), deadline); err != nil {
				return fmt.Errorf("ask %s %s: %w", network, addr, err)
			}
		}
	}
	return nil
}

func ask(network, addr string, deadline time.Time) error {
	c, err := (&net.Dialer{Deadline: deadline}).Dial(network, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.Write(hello); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, len(hello)))
	return err
}

// control makes a net.ListenConfig's or Dialer's Control of a function.
func control(set func(fd int, is4 bool) error) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		is4 := network[len(network)-1] == '4'
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = set(int(fd), is4) }), err)
	}
}

// setTransparent lets a socket have addresses that are not of this host, and get
// the ones that were meant with datagrams.
func setTransparent(fd int, is4 bool) error {
	if is4 {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1), unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1))
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1), unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1))
}

// read gives a datagram, who sent it, and to whom.
func (p *packets) read(buf []byte) (n int, from, to netip.AddrPort, err error) {
	oob := make([]byte, 128)
	n, oobn, _, from, err := p.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return 0, from, to, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, from, to, nil
	}
	for _, m := range messages {
		if ap, ok := sockaddr(m.Data); ok && isOriginal(m.Header) {
			to = ap
		}
	}
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), to, nil
}

func isOriginal(h unix.Cmsghdr) bool {
	return h.Level == unix.SOL_IP && h.Type == unix.IP_ORIGDSTADDR || h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_ORIGDSTADDR
}

// sockaddr reads a struct sockaddr_in or sockaddr_in6.
func sockaddr(b []byte) (ap netip.AddrPort, ok bool) {
	if len(b) < 8 {
		return ap, false
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), true
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port), true
	}
	return ap, false
}

// dialAs connects to addr in the name of a client, with a port of the system's
// choice.
func dialAs(ctx context.Context, client netip.Addr, addr netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)), Timeout: 30 * time.Second,
		Control: control(func(fd int, is4 bool) error {
			// The port is chosen when the other end is known.
			return errors.Join(setTransparent(fd, is4), unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
		}),
	}
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("connect in the name of %v: %w", client, err)
	}
	return c.(*net.TCPConn), nil
}
