//go:build soak

package hwtest

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// TestImageNetwork looks at the frames that the box sends on a wire of the test's
// own: its name (RFC 6762), with its address, comes out of the port where
// network.toml puts it.
func TestImageNetwork(t *testing.T) {
	for _, row := range []struct {
		name, settings string
		address        []byte // in the answer
		tag            []byte // behind the frame's two addresses; empty: none
		reachable      bool   // by the other port
	}{
		{"bridge", "bridge = true\n", net.IPv4(10, 0, 2, 15).To4(), nil, true},
		{"vlan", "vlan = 20\naddress = \"192.0.2.10/24\"\n", net.IPv4(192, 0, 2, 10).To4(), []byte{0x81, 0, 0, 20}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newMachine(t, pc{}, newFoundry(t).base(t), diskSize)
			m.setting(t, "network.toml", row.settings)
			wire, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer wire.Close()
			// The test's wire is the card in the lower slot, so the first.
			m.more = []string{
				"-netdev", "socket,id=w,udp=" + wire.LocalAddr().String() + ",localaddr=" + freePort(t),
				"-device", "virtio-net-pci,netdev=w,romfile=,addr=0xf,mac=52:54:00:00:00:02",
			}
			m.powerOn(t)
			if row.reachable {
				m.awaitStart(t)
			}
			heard := 0
			if err := wire.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
				t.Fatal(err)
			}
			for frame := make([]byte, 65536); ; heard++ {
				n, _, err := wire.ReadFrom(frame)
				if err != nil {
					t.Fatalf("the box did not say its name; %d frames came: %v", heard, err)
				}
				f := frame[:n]
				if n < 18 || !bytes.Equal(f[:6], []byte{1, 0, 0x5e, 0, 0, 0xfb}) || !bytes.Contains(f, []byte("\x07cistern")) || !bytes.Contains(f, row.address) {
					continue
				}
				if row.tag != nil && !bytes.Equal(f[12:16], row.tag) || row.tag == nil && f[12] != 8 {
					t.Errorf("the frame has the type % x", f[12:16])
				}
				t.Logf("figure: image, cistern.local on the wire (%s): heard (ok)", row.name)
				return
			}
		})
	}
}
