//go:build linux

package lab_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// groupLAN is a sender, a member and a non-member of a group on one switch.
type groupLAN struct {
	sw                        *lab.Switch
	sender, member, bystander *lab.Host
	toMember, toBystander     *lab.Link
	socket                    net.PacketConn // the member's
	group                     netip.AddrPort
}

func newGroupLAN(t *testing.T, group string, sw lab.SwitchConfig, member lab.LinkConfig, needs ...lab.Need) *groupLAN {
	t.Helper()
	l := lab.Test(t, needs...)
	sw.Prefixes = []string{"10.0.0.0/24", "fd00::/64"}
	g := &groupLAN{
		sw: l.Switch("lan", sw), group: netip.MustParseAddrPort(group),
		sender: l.Host("sender"), member: l.Host("member"), bystander: l.Host("bystander"),
	}
	g.sender.Join(g.sw, lab.LinkConfig{})
	g.toMember = g.member.Join(g.sw, member)
	g.toBystander = g.bystander.Join(g.sw, lab.LinkConfig{})
	up(t, l)
	err := g.member.Do(func() error {
		eth0, err := net.InterfaceByName(g.toMember.Interface())
		if err != nil {
			return err
		}
		g.socket, err = net.ListenMulticastUDP("udp", eth0, net.UDPAddrFromAddrPort(g.group))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.socket.Close() })
	for sw.Snooping { // the test's own deadline bounds it
		n, err := g.sw.Members(g.group.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return g
}

// cast sends n datagrams to the group and tells how many reached the member's
// socket and how many packets reached each host's network layer.
func (g *groupLAN) cast(t *testing.T, n int) (socket, member, bystander int) {
	t.Helper()
	to := lab.Filter{Dst: netip.PrefixFrom(g.group.Addr(), g.group.Addr().BitLen()), Protocol: unix.IPPROTO_UDP}
	atMember, err := g.member.CountIP(lab.Prerouting, to)
	if err != nil {
		t.Fatal(err)
	}
	atBystander, err := g.bystander.CountIP(lab.Prerouting, to)
	if err != nil {
		t.Fatal(err)
	}
	var out net.Conn
	err = g.sender.Do(func() (err error) {
		target := net.UDPAddrFromAddrPort(g.group)
		if g.group.Addr().Is6() {
			target.Zone = "eth0"
		}
		out, err = net.DialUDP("udp", nil, target)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	arrived := make(chan []int, 1)
	sent := make(chan struct{})
	go func() { arrived <- receive(g.socket, n, sent) }()
	for i := range n {
		if _, err := out.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if i%40 == 39 {
			time.Sleep(time.Millisecond)
		}
	}
	close(sent)
	socket = len(<-arrived)
	time.Sleep(20 * time.Millisecond) // the other ports may be a little later
	return socket, packets(t, atMember), packets(t, atBystander)
}

func packets(t *testing.T, c *lab.IPCounter) int {
	t.Helper()
	n, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	return int(n.Packets)
}

func TestSnoopingKeepsGroupsFromNonMembers(t *testing.T) {
	const n = 1000
	for name, tc := range map[string]struct {
		group     string
		sw        lab.SwitchConfig
		bystander int
	}{
		"no snooping":              {"239.77.0.1:6003", lab.SwitchConfig{}, n},
		"snooping, no querier":     {"239.77.0.1:6003", lab.SwitchConfig{Snooping: true}, n},
		"snooping, querier":        {"239.77.0.1:6003", lab.SwitchConfig{Snooping: true, Querier: true}, 0},
		"snooping, querier, IPv6":  {"[ff02::4d:1]:6003", lab.SwitchConfig{Snooping: true, Querier: true}, 0},
		"no snooping, IPv6":        {"[ff02::4d:1]:6003", lab.SwitchConfig{}, n},
		"snooping, querier, ff05:": {"[ff05::4d:1]:6003", lab.SwitchConfig{Snooping: true, Querier: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGroupLAN(t, tc.group, tc.sw, lab.LinkConfig{})
			socket, member, bystander := g.cast(t, n)
			// The socket may overflow on a busy machine; the network layer does not.
			if socket == 0 || member != n || bystander != tc.bystander {
				t.Errorf("member's socket %d, member %d, non-member %d; want some, %d, %d",
					socket, member, bystander, n, tc.bystander)
			}
		})
	}
}

func TestQuerierIsStoppedAndStarted(t *testing.T) {
	g := newGroupLAN(t, "239.77.0.1:6003", lab.SwitchConfig{Snooping: true}, lab.LinkConfig{})
	if _, _, bystander := g.cast(t, 50); bystander != 50 {
		t.Errorf("without a querier the non-member got %d of 50", bystander)
	}
	if err := g.sw.SetQuerier(true); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // its first query has been answered
	if _, member, bystander := g.cast(t, 50); member != 50 || bystander != 0 {
		t.Errorf("with a querier: member %d, non-member %d", member, bystander)
	}
	if err := g.sw.SetQuerier(false); err != nil {
		t.Fatal(err)
	}
	if _, _, bystander := g.cast(t, 50); bystander != 50 {
		t.Errorf("after the querier stopped the non-member got %d of 50", bystander)
	}
}

func TestWiFiLosesMulticastAndNotUnicast(t *testing.T) {
	const n = 1000
	loss := lab.Loss{Kind: lab.Random, Fraction: 0.2, Seed: 5}
	air := lab.WiFi(100*lab.Mbit, 6*lab.Mbit, loss)
	air.Queue = time.Second // the test sends faster than the basic rate
	g := newGroupLAN(t, "239.77.0.1:6003", lab.SwitchConfig{}, lab.LinkConfig{ToHost: air}, lab.Wires)
	want := n
	for _, lost := range loss.Pattern(n) {
		if lost {
			want--
		}
	}
	if _, member, bystander := g.cast(t, n); member != want || bystander != n {
		t.Errorf("member on Wi-Fi got %d, on the cable %d; want %d, %d", member, bystander, want, n)
	}
	if got := datagrams(t, g.sender, g.member, 500, 500, 100); len(got) != 500 {
		t.Errorf("%d of 500 unicast datagrams arrived", len(got))
	}
	if c := counters(t, g.toMember).ToHost; int(c.Lost) != n-want || c.Overflow != 0 {
		t.Errorf("counters %+v, want %d lost", c, n-want)
	}
}
