package hwtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// caster is a program that sends one file to many receivers: the one under test
// or one that it is measured beside.
type caster struct {
	name string
	code code
	// group and port that receivers join; a group of 0 is joined by nobody
	// before the sender calls.
	group netip.AddrPort
	// send and receive give the commands; dir is where the receiver's file goes.
	send    func(c cast) []string
	receive func(c cast, i int, dir string) []string
	// serves says that its receivers do not end by themselves.
	serves bool
}

// own says that it is the program under test.
func (s *caster) own() bool { return strings.HasPrefix(s.name, "cistern ") }

// cast is one transfer to measure.
type cast struct {
	*caster
	lan        *normLAN
	file       string
	mbit       int
	interleave int
	receivers  int
	timeout    time.Duration
}

// outcome is what a cast took.
type outcome struct {
	Program   string  `json:"program"`
	Row       string  `json:"row"`
	Mbit      int     `json:"mbit"`
	Whole     int     `json:"whole"` // receivers that have the file
	Receivers int     `json:"receivers"`
	Wire      float64 `json:"wire"`    // sender's bytes with Ethernet headers, in files
	Seconds   float64 `json:"seconds"` // from the sender's start to its end
	Sender    float64 `json:"sender_cpu_s_per_gb"`
	Receiver  float64 `json:"receiver_cpu_s_per_gb"`
	Tail      float64 `json:"tail_s"` // after the first pass; only cistern says it
	GRTT      float64 `json:"grtt_s"` // at the end; likewise
}

func (c cast) exchange() exchange {
	return exchange{group: c.group, code: c.code, rateMbit: c.mbit, files: []string{c.file}, timeout: c.timeout}
}

// cisternOn is the program under test on a group; in the ranges of RFC 4607 its
// receivers name the sender's address.
func cisternOn(t *testing.T, name, group string, k code) *caster {
	program := cistern(t)
	s := &caster{name: "cistern " + name, code: k, group: netip.MustParseAddrPort(group)}
	s.send = func(c cast) []string {
		return append(c.exchange().send(program, c.lan.uplink.Interface(), c.receivers), "--interleave", strconv.Itoa(max(1, c.interleave)))
	}
	s.receive = func(c cast, i int, dir string) []string {
		args := c.exchange().receive(program, c.lan.links[i].Interface(), i, dir)
		if strings.HasPrefix(name, "ssm") {
			args = append(args, "--source", c.lan.from(s.group.Addr()).String())
		}
		return args
	}
	return s
}

// foreign are the programs that cistern is measured beside.
func foreign(t *testing.T) []*caster {
	tools(t, "uftp", "uftpd", "udp-sender", "udp-receiver")
	peer := libnorm(t)
	norm := &caster{name: "libnorm", code: code{200, 40}, group: netip.MustParseAddrPort("239.77.4.1:6300")}
	norm.send = func(c cast) []string { return c.exchange().send(peer, c.lan.uplink.Interface(), c.receivers) }
	norm.receive = func(c cast, i int, dir string) []string {
		return c.exchange().receive(peer, c.lan.links[i].Interface(), i, dir)
	}
	uftp := &caster{
		name: "uftp", group: netip.MustParseAddrPort("239.77.5.1:1044"), serves: true,
		send: func(c cast) []string {
			return []string{
				"uftp", "-x", "0", "-I", c.lan.uplink.Interface(), "-M", "239.77.5.1", "-P", "239.77.5.2", "-R", strconv.Itoa(c.mbit * 1000),
				"-b", "1400", "-B", "4194304", "-t", "1", c.file,
			}
		},
		receive: func(c cast, i int, dir string) []string {
			return []string{"uftpd", "-d", "-x", "0", "-I", c.lan.links[i].Interface(), "-M", "239.77.5.1", "-B", "8388608", "-D", dir}
		},
	}
	udpcast := &caster{
		name: "udpcast",
		send: func(c cast) []string {
			return []string{
				"udp-sender", "--nokbd", "--no-progress", "--full-duplex", "--broadcast", "--interface", c.lan.uplink.Interface(), "--portbase", "9000",
				"--min-receivers", strconv.Itoa(c.receivers), "--max-bitrate", fmt.Sprintf("%dm", c.mbit), "--blocksize", "1400", "--file", c.file,
			}
		},
		receive: func(c cast, i int, dir string) []string {
			return []string{
				"udp-receiver", "--nokbd", "--no-progress", "--interface", c.lan.links[i].Interface(), "--portbase", "9000",
				"--file", filepath.Join(dir, filepath.Base(c.file)),
			}
		},
	}
	return []*caster{norm, uftp, udpcast}
}

// timed has the shell tell what CPU time a command took, also one that it is
// told to end. It dies with the shell, and so with the test.
func timed(args []string) []string {
	const script = `setpriv --pdeathsig KILL -- "$@" & p=$!; trap 'kill $p' TERM; wait $p; code=$?; wait $p 2>/dev/null; times >&2; exit $code`
	return append([]string{"bash", "-c", script, "timed"}, args...)
}

var childTimes = regexp.MustCompile(`(?m)^(\d+)m([\d.]+)s (\d+)m([\d.]+)s$`)

// cpu reads what timed said: user and system time of the command in seconds.
func cpu(p *lab.Process) (seconds float64) {
	said, err := os.ReadFile(p.OutputFile)
	all := childTimes.FindAllSubmatch(said, -1)
	if err != nil || len(all) < 2 {
		return 0 // it was killed
	}
	for i, text := range all[len(all)-1][1:] {
		n, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return 0
		}
		seconds += n * []float64{60, 1, 60, 1}[i]
	}
	return seconds
}

// run carries the cast out. Received files go to memory.
func (c cast) run(t *testing.T, row string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), c.timeout+10*time.Second)
	defer cancel()
	root, err := os.MkdirTemp("/dev/shm", "cistern-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	var receivers []*lab.Process
	var dirs []string
	for i := range c.receivers {
		dir := filepath.Join(root, strconv.Itoa(i))
		mkdir(t, dir)
		dirs = append(dirs, dir)
		receivers = append(receivers, start(t, ctx, c.lan.receivers[i], timed(c.receive(c, i, dir))...))
	}
	if c.group.IsValid() {
		c.lan.joined(t, c.group.Addr(), c.receivers)
	}
	before := c.lan.sentBytes(t)
	began := time.Now()
	sender := start(t, ctx, c.lan.sender, timed(c.send(c))...)
	failed := sender.Wait()
	out := outcome{Program: c.name, Row: row, Mbit: c.mbit, Receivers: c.receivers, Seconds: time.Since(began).Seconds()}
	size := float64(fileSize(t, c.file))
	out.Wire = float64(c.lan.sentBytes(t)-before) / size
	out.Tail, out.GRTT = tail(sender)
	for _, p := range receivers {
		c.finish(p)
		out.Receiver += cpu(p) / float64(c.receivers) / size * 1e9
	}
	out.Sender = cpu(sender) / size * 1e9
	want := digest(t, c.file)
	for _, dir := range dirs {
		if got, err := actors.Digest(filepath.Join(dir, filepath.Base(c.file))); err == nil && got == want {
			out.Whole++
		}
	}
	t.Logf("figure: table: %-34s %-16s %3d Mbit/s: %2d of %2d whole, wire %.4f, %.2f s (tail %.2f, GRTT %.3f), CPU-s/GB %.1f and %.1f, sender: %v",
		row, c.name, c.mbit, out.Whole, c.receivers, out.Wire, out.Seconds, out.Tail, out.GRTT, out.Sender, out.Receiver, failed)
	return out
}

// finish waits for a receiver, or ends what does not end by itself.
func (c cast) finish(p *lab.Process) {
	if !c.serves {
		select {
		case <-p.Done():
			return
		case <-time.After(5 * time.Second): // it is not whole, and counted so
		}
	}
	_ = p.Stop() // one that has to be killed took no CPU time to count
}

// sentBytes is what the sender has put on its link, whole frames.
func (l *normLAN) sentBytes(t *testing.T) uint64 {
	t.Helper()
	n, err := l.uplink.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return n.FromHost.Bytes
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func digest(t *testing.T, name string) string {
	t.Helper()
	sum, err := actors.Digest(name)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// tail is what cistern says of the time after the first pass, and of the GRTT.
func tail(p *lab.Process) (tail, grtt float64) {
	said, err := os.ReadFile(p.OutputFile)
	if err != nil {
		return 0, 0
	}
	var st struct{ Tail, GRTT float64 }
	if i := bytes.IndexByte(said, '{'); i >= 0 {
		_ = json.NewDecoder(bytes.NewReader(said[i:])).Decode(&st) // others say no JSON
	}
	return st.Tail, st.GRTT
}

// record appends outcomes, a line of JSON each, to the file that
// CISTERN_FIGURES names.
func record(t *testing.T, all ...outcome) {
	t.Helper()
	name := os.Getenv("CISTERN_FIGURES")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, o := range all {
		if err := json.NewEncoder(f).Encode(o); err != nil {
			t.Fatal(err)
		}
	}
}
