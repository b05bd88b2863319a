package hwtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// tools skips the test where programs are missing; with CI=true it fails it.
func tools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed (hwtest/setup.sh)", name)
		}
		t.Skipf("%s is not installed (hwtest/setup.sh)", name)
	}
}

// cistern is the program under test, by an absolute path.
func cistern(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(bin, "cistern"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("cistern is not built (make build): %v", err)
	}
	return path
}

// libnorm compiles the peer on Debian's libnorm and gives its path.
func libnorm(t *testing.T) string {
	t.Helper()
	tools(t, "g++")
	path := filepath.Join(t.TempDir(), "peer")
	out, err := exec.CommandContext(t.Context(), "g++", "-O2", "-o", path, "peers/libnorm/peer.cpp", "-lnorm").CombinedOutput()
	if err != nil {
		if os.Getenv("CI") != "true" && strings.Contains(string(out), "normApi.h: No such file") {
			t.Skip("libnorm-dev is not installed (hwtest/setup.sh)")
		}
		t.Fatalf("compile the peer: %v\n%s", err, out)
	}
	return path
}

// normLAN is a sender and receivers on one switch that keeps groups from those
// who are no members.
type normLAN struct {
	lab       *lab.Lab
	sw        *lab.Switch
	sender    *lab.Host
	uplink    *lab.Link // the sender's
	receivers []*lab.Host
	links     []*lab.Link
}

// newNormLAN makes a LAN with n receivers, plugged in as cfg says for each.
func newNormLAN(t *testing.T, n int, cfg func(i int) lab.LinkConfig, needs ...lab.Need) *normLAN {
	t.Helper()
	t.TempDir() // the first call says when all go: after the lab has stopped what runs in them
	l := &normLAN{lab: lab.Test(t, needs...)}
	l.sw = l.lab.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24", "fd00::/64"}, Snooping: true, Querier: true})
	l.sender = l.lab.Host("sender")
	l.uplink = l.sender.Join(l.sw, lab.LinkConfig{Offloads: cfg(0).Offloads})
	for i := range n {
		h := l.lab.Host(fmt.Sprintf("receiver%d", i+1))
		l.links = append(l.links, h.Join(l.sw, cfg(i)))
		l.receivers = append(l.receivers, h)
	}
	if err := l.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// lossy is a link that loses a fraction of the packets each way.
func lossy(fraction float64) lab.LinkConfig {
	if fraction == 0 {
		return lab.LinkConfig{}
	}
	loss := lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: fraction}}
	return lab.LinkConfig{ToHost: loss, FromHost: loss}
}

// from is the sender's address of the family of a group.
func (l *normLAN) from(group netip.Addr) netip.Addr {
	for _, a := range l.sender.Addrs() {
		if a.Is4() == group.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// joined waits until n ports have joined a group.
func (l *normLAN) joined(t *testing.T, group netip.Addr, n int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d members of %s", n, group), func() bool {
		members, err := l.sw.Members(group)
		if err != nil {
			t.Fatal(err)
		}
		return members >= n
	})
}

// start starts a program on a host.
func start(t *testing.T, ctx context.Context, h *lab.Host, args ...string) *lab.Process {
	t.Helper()
	p := h.Command(args[0], args[1:]...)
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// ended waits for a program and fails the test, with what it said, if it failed.
func ended(t *testing.T, what string, p *lab.Process) {
	t.Helper()
	if err := p.Wait(); err != nil {
		said, _ := os.ReadFile(p.OutputFile)
		t.Errorf("%s: %v\n%s", what, err, said)
	}
}

// code is a code of k source and r parity symbols.
type code struct{ k, r int }

// exchange is files sent from one program to another.
type exchange struct {
	group    netip.AddrPort
	code     code
	rateMbit int
	unicast  bool
	files    []string
	timeout  time.Duration
	buffer   int // a libnorm sender's, in bytes; 0 means 8 MiB
}

// send is the arguments of a sender that wants the nodes 1001 to 1000+ackers to
// confirm.
func (x exchange) send(program, iface string, ackers int) []string {
	var ids []string
	for i := range ackers {
		ids = append(ids, strconv.Itoa(1001+i))
	}
	if strings.HasSuffix(program, "peer") {
		args := []string{
			program, "send", "group=" + x.group.Addr().String(), "port=" + strconv.Itoa(int(x.group.Port())), "iface=" + iface, "node=1",
			fmt.Sprintf("rate=%d", x.rateMbit*1_000_000), fmt.Sprintf("k=%d", x.code.k), fmt.Sprintf("parity=%d", x.code.r),
			"ackers=" + strings.Join(ids, ","), fmt.Sprintf("timeout=%.0f", x.timeout.Seconds()),
		}
		if x.buffer > 0 {
			args = append(args, fmt.Sprintf("buffer=%d", x.buffer))
		}
		return append(args, x.files...)
	}
	args := []string{
		program, "norm", "send", "--json", "--group", x.group.String(), "--interface", iface, "--rate", fmt.Sprintf("%dMbit", x.rateMbit),
		"--k", strconv.Itoa(x.code.k), "--parity", strconv.Itoa(x.code.r), "--timeout", x.timeout.String(),
	}
	for _, id := range ids {
		args = append(args, "--acker", id)
	}
	return append(args, x.files...)
}

// receive is the arguments of receiver i, which puts files into dir.
func (x exchange) receive(program, iface string, i int, dir string) []string {
	if strings.HasSuffix(program, "peer") {
		unicast := 0
		if x.unicast {
			unicast = 1
		}
		return []string{
			program, "recv", "group=" + x.group.Addr().String(), "port=" + strconv.Itoa(int(x.group.Port())), "iface=" + iface,
			fmt.Sprintf("node=%d", 1001+i), "dir=" + dir, fmt.Sprintf("count=%d", len(x.files)), fmt.Sprintf("unicast=%d", unicast),
			fmt.Sprintf("timeout=%.0f", x.timeout.Seconds()),
		}
	}
	args := []string{
		program, "norm", "recv", "--json", "--group", x.group.String(), "--interface", iface, "--dir", dir, "--node", strconv.Itoa(1001 + i),
		"--count", strconv.Itoa(len(x.files)), "--timeout", x.timeout.String(),
	}
	if x.unicast {
		args = append(args, "--unicast-nack")
	}
	return args
}

// contents makes files of the given sizes.
func contents(t *testing.T, sizes ...int64) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for i, size := range sizes {
		name := filepath.Join(dir, fmt.Sprintf("file%d.bin", size))
		if _, err := actors.WriteContent(name, size, uint64(i)+11); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	return files
}

// identical checks that a directory has just these files.
func identical(t *testing.T, dir string, files []string) {
	t.Helper()
	for _, file := range files {
		want, err := actors.Digest(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := actors.Digest(filepath.Join(dir, filepath.Base(file)))
		if err != nil {
			t.Error(err)
		} else if got != want {
			t.Errorf("%s arrived with SHA-256 %s, want %s: %s", filepath.Base(file), got, want, difference(filepath.Join(dir, filepath.Base(file)), file))
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != len(files) {
		t.Errorf("%d entries in the directory, want %d: %v", len(list), len(files), err)
	}
}

// difference says where a file differs from what it should be.
func difference(got, want string) string {
	a, err := os.ReadFile(got)
	b, werr := os.ReadFile(want)
	if err = errors.Join(err, werr); err != nil {
		return err.Error()
	}
	first, last, n := -1, -1, 0
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			if first < 0 {
				first = i
			}
			last = i
			n++
		}
	}
	return fmt.Sprintf("%d bytes instead of %d, %d differ, from %d to %d", len(a), len(b), n, first, last)
}
