package hwtest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestNormWithLibnorm: files go between cistern and NRL's libnorm, both ways,
// with several codes, both ways of asking for repairs and 10 % loss each way,
// and come out the same. tshark finds nothing malformed in what was said.
func TestNormWithLibnorm(t *testing.T) {
	tools(t, "tshark", "dumpcap")
	own, peer := cistern(t), libnorm(t)
	sizes, timeout := []int64{1, 1399, 1400, 1401, 0, 3e6}, time.Minute
	if soak() {
		sizes, timeout = append(sizes, 100e6), 2*time.Minute
	}
	files := contents(t, sizes...)
	l := newNormLAN(t, 2, func(i int) lab.LinkConfig { return lossy(0.1 * float64(1-i)) })
	capture := filepath.Join(t.TempDir(), "said.pcap")
	const firstPort = 6100
	heard := start(t, t.Context(), l.sender, "dumpcap", "-q", "-P", "-B", "64", "-i", l.uplink.Interface(), "-f", "udp portrange 6100-6199", "-w", capture)
	waitFor(t, "the capture", func() bool { _, err := os.Stat(capture); return err == nil })

	t.Run("transfers", func(t *testing.T) {
		port := uint16(firstPort)
		for _, c := range []code{{64, 16}, {200, 40}, {20, 10}, {50, 12}} {
			for _, unicast := range []bool{false, true} {
				for _, ways := range [][2]string{{own, peer}, {peer, own}} {
					sent := files
					if ways[0] == peer { // libnorm's sender does not survive a request for an empty object
						sent = append(files[:4:4], files[5:]...)
					}
					x := exchange{
						group: netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 77, 1, byte(port)}), port),
						code:  c, rateMbit: 50, unicast: unicast, files: sent, timeout: timeout,
					}
					port++
					name := fmt.Sprintf("%s to %s, %d of %d, unicast %t", filepath.Base(ways[0]), filepath.Base(ways[1]), c.r, c.k, unicast)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						transfer(t, l, 0, x, ways[0], ways[1])
					})
				}
			}
		}
		// Nor can it match confirmations of a watermark behind one, so it is not last.
		x := exchange{group: netip.MustParseAddrPort("239.77.2.1:6199"), code: code{64, 16}, rateMbit: 50, files: files[3:6], timeout: timeout}
		t.Run("peer to cistern, an empty file", func(t *testing.T) { transfer(t, l, 1, x, peer, own) })
	})
	if err := heard.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended(t, "dumpcap", heard)
	wellFormed(t, capture, firstPort)
}

// transfer sends files from one program to another, on receiver i, and compares.
func transfer(t *testing.T, l *normLAN, i int, x exchange, from, to string) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "out")
	mkdir(t, dir)
	receiver := start(t, ctx, l.receivers[i], x.receive(to, l.links[i].Interface(), 0, dir)...)
	l.joined(t, x.group.Addr(), 1)
	ended(t, "sender", start(t, ctx, l.sender, x.send(from, l.uplink.Interface(), 1)...))
	ended(t, "receiver", receiver)
	identical(t, dir, x.files)
}

// wellFormed has tshark look at a capture. What it takes for errors in
// fec_id 5, which it reads as if it were 129, does not make a packet malformed.
func wellFormed(t *testing.T, capture string, port int) {
	t.Helper()
	decode := fmt.Sprintf("udp.port==%d-%d,norm", port, port+99)
	look := func(filter string) []string {
		out, err := exec.CommandContext(t.Context(), "tshark", "-n", "-r", capture, "-d", decode, "-Y", filter, "-T", "fields", "-e", "frame.number", "-e", "norm.type").Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return strings.Fields(string(out))
	}
	if bad := look("_ws.malformed"); len(bad) > 0 {
		t.Errorf("tshark finds %d packets malformed, the first ones %v", len(bad)/2, bad[:min(len(bad), 8)])
	}
	types := map[string]int{}
	seen := look("norm")
	for i := 1; i < len(seen); i += 2 {
		types[seen[i]]++
	}
	for _, kind := range []string{"1", "2", "3", "4", "5"} { // INFO, DATA, CMD, NACK, ACK
		if types[kind] == 0 {
			t.Errorf("no NORM message of type %s in the capture: %v", kind, types)
		}
	}
	t.Logf("tshark read %d NORM messages: %v", len(seen)/2, types)
}
