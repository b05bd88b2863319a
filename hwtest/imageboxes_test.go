//go:build soak

package hwtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// villageConfig is the configuration of a box that is the router of a LAN and
// casts on it. The origin's address is not one of that LAN: flows within it are
// never taken.
const villageConfig = `version = 1
[proxy]
listen = ":3142"
allow_destinations = ["10.9.0.0/16"]
[admin]
listen = ":80"
[peering]
enabled = true
lan = ["10.9.0.0/24"]
[steer]
mode = "intercept"
interfaces = ["eth0"]
web = true
[multicast]
interfaces = ["eth0"]
rate = "50Mbit"
min_size = "64KB"
min_agents = 1
`

// village is a switch that keeps groups from those who are no members, an origin
// behind it and emulated boxes on it.
type village struct {
	lab *lab.Lab
	lan *lab.Switch
	w   *world
}

func newVillage(t *testing.T) *village {
	t.Helper()
	t.TempDir() // the first call says when all go: after the lab has stopped what runs in them
	v := &village{lab: lab.Test(t)}
	v.lan = v.lab.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.9.0.0/16"}, Snooping: true, Querier: true})
	origin := v.lab.Host("origin")
	origin.Join(v.lan, lab.LinkConfig{Addrs: []string{"10.9.7.80/16"}})
	if err := v.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	listener, err := origin.Listen("tcp", "10.9.7.80:80")
	if err != nil {
		t.Fatal(err)
	}
	v.w = &world{base: "http://10.9.7.80"}
	v.w.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: v.w, ReadHeaderTimeout: time.Minute}}
	v.w.server.Start()
	t.Cleanup(v.w.server.Close)
	return v
}

// box makes an emulated box whose first card is on the switch and whose second
// leads to this machine.
func (v *village) box(t *testing.T, from, address string) (*machine, *plug) {
	t.Helper()
	m := newMachine(t, pc{}, from, diskSize)
	m.setting(t, "network.toml", fmt.Sprintf("address = %q\n", address+"/16"))
	m.setting(t, "cistern.toml", villageConfig)
	p := newPlug(t, v, "plug"+address)
	m.more = p.arguments(t)
	t.Cleanup(func() {
		if t.Failed() {
			text, err := os.ReadFile(m.log())
			t.Logf("the box %s said: %s, %v", address, text[max(0, len(text)-6000):], err)
		}
	})
	return m, p
}

// plug joins a card of an emulated machine to the switch: it carries frames
// between the emulator's socket and a port.
type plug struct {
	wire      net.PacketConn
	port      *os.File
	multicast atomic.Int64 // bytes of IPv4 groups' frames that the machine was given
	unicast   atomic.Int64 // of the others
}

// plugAddress is what this machine's own end of a port has. It is none of the
// LAN's: this machine would answer for it in the place of the box behind the port.
const plugAddress = "192.0.2.1/32"

// The kernel's name for it is not in x/sys: what this socket sends does not come
// back to it (linux/if_packet.h).
const packetIgnoreOutgoing = 23

func newPlug(t *testing.T, v *village, name string) *plug {
	t.Helper()
	h := v.lab.Host(name)
	link := h.Join(v.lan, lab.LinkConfig{Addrs: []string{plugAddress}})
	if err := v.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &plug{}
	err := h.Do(func() error {
		nic, err := net.InterfaceByName(link.Interface())
		if err != nil {
			return err
		}
		const every = 0x0300 // ETH_P_ALL in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, every)
		if err != nil {
			return err
		}
		p.port = os.NewFile(uintptr(fd), name)
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, packetIgnoreOutgoing, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every, Ifindex: nic.Index}),
			unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(nic.Index), Type: unix.PACKET_MR_PROMISC}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.wire, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(p.wire.Close(), p.port.Close()) })
	return p
}

// arguments plug the machine in, with the card in the lower slot, so the first.
func (p *plug) arguments(t *testing.T) []string {
	t.Helper()
	local := freePort(t)
	to, err := net.ResolveUDPAddr("udp4", local)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for frame := make([]byte, 65536); ; {
			n, err := p.port.Read(frame)
			if err != nil {
				return // it was closed
			}
			if frame[0] == 1 && frame[2] == 0x5e {
				p.multicast.Add(int64(n))
			} else {
				p.unicast.Add(int64(n))
			}
			_, _ = p.wire.WriteTo(frame[:n], to) // lost, as frames are
		}
	}()
	go func() {
		for frame := make([]byte, 65536); ; {
			n, _, err := p.wire.ReadFrom(frame)
			if err != nil {
				return
			}
			_, _ = p.port.Write(frame[:n])
		}
	}()
	return []string{
		"-netdev", "socket,id=w,udp=" + p.wire.LocalAddr().String() + ",localaddr=" + local,
		"-device", fmt.Sprintf("virtio-net-pci,netdev=w,romfile=,addr=0xf,mac=52:54:00:00:%02x:%02x", to.Port>>8, to.Port&0xff),
	}
}

// TestImageIntercept: the box is the default gateway of another machine, which
// knows of no proxy. What that asks a web server for comes from the box's cache,
// and the server hears the box alone.
func TestImageIntercept(t *testing.T) {
	v := newVillage(t)
	m, _ := v.box(t, newFoundry(t).base(t), "10.9.0.1")
	third := v.lab.Host("third")
	third.Join(v.lan, lab.LinkConfig{Addrs: []string{"10.9.0.9/24"}})
	third.Route("0.0.0.0/0", "10.9.0.1")
	if err := v.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.powerOn(t)
	m.awaitStart(t)
	status := ""
	get := func() (err error) {
		status, err = page(t.Context(), third.HTTPClient(), v.w.base+"/seen")
		return err
	}
	for i := range 3 { // until steering begins, and while a busy emulator lets go of it, nobody forwards
		waitLong(t, fmt.Sprintf("answer %d", i+1), func() bool { return get() == nil })
	}
	t.Logf("figure: image, the third intercepted request of a third machine: %q (told)", status)
	n, by := v.w.asked.Load(), v.w.by.Load()
	if n != 1 || by != "10.9.0.1" {
		t.Errorf("the origin was asked %d times, by %v", n, by)
	}
	t.Logf("figure: image, requests to the origin for three of a third machine through the box as its router: %d, by %v (bound 1, by the box): %s", n, by, verdict(n == 1 && by == "10.9.0.1"))
}

// page gets what the world has at an address, and gives its Cache-Status.
func page(ctx context.Context, c *http.Client, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != string(worldBody(req.URL.Path)) {
		err = fmt.Errorf("%s, %d bytes: %w", resp.Status, len(body), errWrongBytes)
	}
	return resp.Header.Get("Cache-Status"), err
}

// TestImageMulticast: one box casts, and what an agent on another box is asked
// for came to it by NORM.
func TestImageMulticast(t *testing.T) {
	v := newVillage(t)
	f := newFoundry(t)
	m, _ := v.box(t, f.base(t), "10.9.0.1")
	agent, plug := v.box(t, f.agent(t), "10.9.0.2")
	for _, one := range []*machine{m, agent} { // two are on at once
		one.more = append(one.more, "-smp", "1")
	}
	m.powerOn(t)
	m.awaitStart(t)
	agent.powerOn(t)
	waitLong(t, "the agent on the other box", func() bool {
		agents, err := m.box.Agents(t.Context())
		return err == nil && len(agents) == 1
	})
	waitLong(t, "the agent's proxy", func() bool { return agent.fetch(t.Context(), v.w, "/first") == nil })
	const files = 8 // of 1 MiB
	plug.multicast.Store(0)
	plug.unicast.Store(0)
	for i := range files {
		if err := agent.fetch(t.Context(), v.w, fmt.Sprintf("/cast/%d", i)); err != nil {
			t.Errorf("file %d by the agent: %v", i, err)
		}
	}
	byGroup, byHTTP := plug.multicast.Load(), plug.unicast.Load()
	t.Logf("figure: image, frames of groups to the second box for %d MiB of files: %.2f MB (measured)", files, float64(byGroup)/1e6)
	figureAtLeast(t, "image, share of the files that came to the second box by NORM", float64(byGroup)/float64(byGroup+byHTTP), 0.9, "of all bytes")
	casts, err := m.box.Casts(t.Context())
	if err != nil || len(casts) == 0 {
		t.Errorf("the box tells of no cast: %v", err)
	}
	for _, c := range casts {
		if c.State != "ended" || c.Err != "" {
			t.Logf("cast %+v", c)
		}
	}
}

// agent is an image of release 1.0 in which an agent runs instead of the daemon.
func (f *foundry) agent(t *testing.T) string {
	t.Helper()
	return f.with(t, "cistern-agent", func(own *foundry) {
		own.daemon = filepath.Join(own.dir, "agentbox")
		compile(t, own.arch, own.daemon, "./testdata/agentbox")
	})
}

// waitLong is waitFor for what an emulator does.
func waitLong(t *testing.T, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(7 * time.Minute); !come(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}
