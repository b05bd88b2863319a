package qualify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/admin/client"
)

// tap hears all multicast of a card, joined or not. It needs CAP_NET_RAW.
func tap(card string) (fd int, err error) {
	i, err := net.InterfaceByName(card)
	if err != nil {
		return -1, err
	}
	network := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IP))
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(network))
	if err != nil {
		return -1, fmt.Errorf("listen to the card: %w", err)
	}
	wait := unix.NsecToTimeval(int64(200 * time.Millisecond))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: i.Index}),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_ALLMULTI}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
	)
	if err != nil {
		return -1, errors.Join(fmt.Errorf("listen to the card: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// countStrays counts packets of the stray group from now on, until it is asked
// how many.
func countStrays(card string) (func() int, error) {
	fd, err := tap(card)
	if err != nil {
		return nil, err
	}
	want := strayGroup.Addr().As4()
	end, done := make(chan struct{}), make(chan int)
	go func() {
		count := 0
		each(fd, func() bool {
			select {
			case <-end:
				return false
			default:
				return true
			}
		}, func(ip []byte) {
			if len(ip) >= 20 && [4]byte(ip[16:20]) == want {
				count++
			}
		})
		done <- count
	}()
	return func() int {
		close(end)
		defer unix.Close(fd)
		return <-done
	}, nil
}

// each hands over the packets that come, not those that this machine sends, as
// long as on says so.
func each(fd int, on func() bool, take func(ip []byte)) {
	b := make([]byte, 2048)
	for on() {
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
			continue
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		take(b[:n])
	}
}

// querier listens for queries. One that is there answers the leave of a group
// with a question for those who are left (RFC 3376 §6.4.2), so that
// nobody has to wait for its next round, two minutes later.
func (q *Qualifier) querier(ctx context.Context, n *client.NIC) {
	fd, err := tap(n.Name)
	if err != nil {
		n.Querier.Err = noRight(err)
		return
	}
	defer unix.Close(fd)
	if conn, err := member(n.Name); err == nil {
		pause(ctx, 200*time.Millisecond) // its report has gone out
		_ = conn.Close()
	}
	until := time.Now().Add(q.budget.queriers)
	n.Querier.State = "absent"
	each(fd, func() bool { return n.Querier.State == "absent" && time.Now().Before(until) && ctx.Err() == nil }, func(ip []byte) {
		if from, version, ok := parseQuery(ip); ok {
			n.Querier = client.Querier{State: "present", Address: netip.AddrFrom4(from).String(), Version: version}
		}
	})
	// In a short time only a querier that answered is sure.
	if n.Querier.State == "absent" && q.cfg.Quick {
		n.Querier.State, n.Querier.Err = "", "no query in "+q.budget.queriers.String()+"; the whole test listens longer than a querier rests"
	}
}
