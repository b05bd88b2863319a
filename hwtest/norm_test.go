package hwtest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	timeout := time.Minute
	// First the large one: who hears no packet of a first object that has two comes
	// late to the session, and does not ask for it.
	files := contents(t, 3e6, 1, 1399, 1400, 0, 1401)
	l := newNormLAN(t, 2, func(i int) lab.LinkConfig { return lossy(0.1 * float64(1-i)) })
	capture := filepath.Join(t.TempDir(), "said.pcap")
	const firstPort = 6100
	heard := start(t, t.Context(), l.sender, "dumpcap", "-q", "-P", "-B", "64", "-i", l.uplink.Interface(), "-f", "udp portrange 6100-6199", "-w", capture)
	waitFor(t, "the capture", func() bool { _, err := os.Stat(capture); return err == nil })

	t.Run("transfers", func(t *testing.T) {
		eachPairing(t, l, own, peer, exchange{group: netip.MustParseAddrPort("239.77.1.0:6100"), rateMbit: 50, files: files, timeout: timeout})
		// Nor can it match confirmations of a watermark behind one, so it is not last.
		x := exchange{group: netip.MustParseAddrPort("239.77.2.1:6199"), code: code{64, 16}, rateMbit: 50, files: append(files[:1:1], files[4:]...), timeout: timeout}
		t.Run("peer to cistern, an empty file", func(t *testing.T) { transfer(t, l, 1, x, peer, own) })
	})
	if err := heard.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended(t, "dumpcap", heard)
	wellFormed(t, capture, firstPort)
}

// eachPairing has files sent with each code and way of asking, from cistern to
// libnorm and back, each time to a group and port of its own.
func eachPairing(t *testing.T, l *normLAN, own, peer string, x exchange) {
	for _, c := range []code{{64, 16}, {200, 40}, {20, 10}, {50, 12}} {
		for _, unicast := range []bool{false, true} {
			for _, ways := range [][2]string{{own, peer}, {peer, own}} {
				x.group = netip.AddrPortFrom(x.group.Addr().Next(), x.group.Port()+1)
				x := x
				x.code, x.unicast = c, unicast
				if ways[0] == peer { // libnorm's sender does not survive a request for an empty object
					x.files = slices.DeleteFunc(slices.Clone(x.files), func(name string) bool { return strings.HasSuffix(name, "/file0.bin") })
				}
				name := fmt.Sprintf("%s to %s, %d of %d, unicast %t", filepath.Base(ways[0]), filepath.Base(ways[1]), c.r, c.k, unicast)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					transfer(t, l, 0, x, ways[0], ways[1])
				})
			}
		}
	}
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
	out, err := exec.CommandContext(t.Context(), "tshark", "-n", "-r", capture, "-d", decode, "-Y", "norm||_ws.malformed",
		"-T", "fields", "-E", "occurrence=f", "-e", "frame.number", "-e", "norm.type", "-e", "_ws.malformed").Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	types := map[string]int{}
	var bad []string
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		types[fields[1]]++
		if fields[2] != "" {
			bad = append(bad, fields[0])
		}
		seen++
	}
	if len(bad) > 0 {
		t.Errorf("tshark finds %d packets malformed, the first ones %v", len(bad), bad[:min(len(bad), 4)])
	}
	for _, kind := range []string{"1", "2", "3", "4", "5"} { // INFO, DATA, CMD, NACK, ACK
		if types[kind] == 0 {
			t.Errorf("no NORM message of type %s in the capture: %v", kind, types)
		}
	}
	t.Logf("tshark read %d NORM messages: %v", seen, types)
}
