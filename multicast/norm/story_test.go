package norm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the traces of the stories anew")

// TestStories runs testdata/stories. A story is commands, one a line, then a
// line of dashes, then the trace that they produce: what was sent, and the
// events, with the time since the beginning.
//
//	lan RECEIVERS key=value…   k, parity, segment, auto, rounds, nackrounds, interleave, anticipate, here, congestion, unicast, probes
//	join NODE TIME             the receiver is deaf before
//	add SIZE [INFO]            queues an object
//	lose NODE KIND POSITION    loses the next such packet on its way to NODE
//	watermark OBJECT NODE…
//	ask TYPE ID NODE…          requests an acknowledgement
//	drop OBJECT
//	close
//	run TIME
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			commands, want, ok := strings.Cut(string(raw), "\n----\n")
			if !ok && !*update {
				t.Fatal("no line of dashes")
			}
			commands = strings.TrimRight(commands, "\n")
			s := story{t: t}
			for line := range strings.Lines(commands) {
				if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
					s.do(f[0], f[1:])
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(commands+"\n----\n"+s.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, s.out.String(), want)
		})
	}
}

// compare shows the first line that differs.
func compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Fatalf("line %d of the trace:\n got %s\nwant %s\nwhole trace:\n%s", i+1, a, b, got)
		}
	}
}

// story is a LAN that a story's commands act upon.
type story struct {
	t     *testing.T
	l     *lan
	start time.Time
	out   strings.Builder
	lose  []string // "host kind position"
	heard []int    // events already printed, by host; the sender's are last
}

func (s *story) number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *story) span(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *story) do(command string, args []string) {
	switch command {
	case "lan":
		s.build(s.number(args[0]), args[1:])
	case "join":
		s.l.hosts[s.number(args[0])-1001].from = s.start.Add(s.span(args[1]))
	case "add":
		o := Object{Content: randomBytes(9, s.number(args[0])), Size: int64(s.number(args[0]))}
		if len(args) > 1 {
			o.Info = []byte(args[1])
		}
		if _, err := s.l.sender.Add(o); err != nil {
			s.t.Fatal(err)
		}
	case "lose":
		s.lose = append(s.lose, strings.Join(args, " "))
	case "watermark":
		var nodes []NodeID
		for _, n := range args[1:] {
			nodes = append(nodes, NodeID(s.number(n)))
		}
		if err := s.l.sender.Watermark(ObjectID(s.number(args[0])), nodes); err != nil {
			s.t.Fatal(err)
		}
	case "ask":
		var nodes []NodeID
		for _, n := range args[2:] {
			nodes = append(nodes, NodeID(s.number(n)))
		}
		if err := s.l.sender.RequestAck(uint8(s.number(args[0])), uint8(s.number(args[1])), nodes); err != nil {
			s.t.Fatal(err)
		}
	case "drop":
		s.l.sender.Drop(ObjectID(s.number(args[0])))
	case "close":
		s.l.sender.Close()
	case "run":
		for end := s.l.now.Add(s.span(args[0])); s.l.now.Before(end) && s.l.step(); {
			if s.l.sender.cfg.Congestion {
				s.l.rate = float64(s.l.sender.Rate())
			}
			s.printEvents()
		}
	default:
		s.t.Fatalf("unknown command %q", command)
	}
}

func (s *story) build(n int, options []string) {
	s.l = newLAN(s.t, 1, n, func(sc *SenderConfig, rc *ReceiverConfig) {
		sc.Instance, sc.SegmentSize, sc.K, sc.Parity, sc.NoRateFeedback, sc.Robust = 7, 100, 4, 2, true, 3
		for _, o := range options {
			key, v, _ := strings.Cut(o, "=")
			value := 0
			if v != "" {
				value = s.number(v)
			}
			switch key {
			case "k":
				sc.K = value
			case "parity":
				sc.Parity = value
			case "segment":
				sc.SegmentSize = value
			case "auto":
				sc.AutoParity = value
			case "rounds":
				sc.RepairRounds = value
			case "nackrounds":
				rc.NackRounds = value
			case "interleave":
				sc.Interleave = value
			case "anticipate":
				sc.Anticipate = true
			case "here":
				rc.Sync = SyncHere
			case "congestion":
				sc.NoRateFeedback, sc.Congestion = false, true
			case "unicast":
				rc.Unicast = true
			case "probes":
				sc.NoRateFeedback = false
			default:
				s.t.Fatalf("unknown option %q", key)
			}
		}
	})
	s.start = s.l.now
	s.heard = make([]int, n+1)
	s.l.rate = 1e5
	s.l.lose = func(to int, pkt []byte) bool {
		if m, err := Parse(pkt); err == nil {
			for i, rule := range s.lose {
				if rule == fmt.Sprintf("%d %s", 1001+to, name(m)) {
					s.lose = append(s.lose[:i:i], s.lose[i+1:]...)
					s.line("      %d loses %s", 1001+to, name(m))
					return true
				}
			}
		}
		return false
	}
	s.l.log = func(from int, pkt []byte, unicast bool) {
		m, err := Parse(pkt)
		if err != nil {
			s.t.Fatal(err)
		}
		who := "sender"
		if from >= 0 {
			who = strconv.Itoa(1001 + from)
		}
		if unicast {
			who += " (unicast)"
		}
		s.line("%s: %s%s", who, name(m), detail(m))
	}
}

func (s *story) line(format string, args ...any) {
	fmt.Fprintf(&s.out, "%7.1f ms  %s\n", float64(s.l.now.Sub(s.start).Microseconds())/1000, fmt.Sprintf(format, args...))
}

func (s *story) printEvents() {
	for i, h := range s.l.hosts {
		for _, e := range h.events[s.heard[i]:] {
			text := [...]string{"", "started", "refused", "got INFO of", "completed", "abandoned", "found the sender", "lost the sender"}[e.Kind]
			if e.Kind < SenderFound {
				text += fmt.Sprintf(" object %d", e.Key.Object)
			}
			if e.Err != nil {
				text += fmt.Sprintf(": %v", e.Err)
			}
			if e.Missing != nil {
				text += fmt.Sprintf("; missing %v", e.Missing)
			}
			s.line("      %d %s", 1001+i, text)
		}
		s.heard[i] = len(h.events)
	}
	last := len(s.l.hosts)
	for _, e := range s.l.events[s.heard[last]:] {
		s.line("      sender: %s", [...]string{
			"", fmt.Sprintf("object %d sent", e.Object), "object failed", fmt.Sprintf("repairs of object %d spent", e.Object),
			fmt.Sprintf("%d confirmed object %d", e.Node, e.Object), fmt.Sprintf("%d failed to confirm object %d", e.Node, e.Object), "flushed",
			fmt.Sprintf("%d replied to request %d:%d", e.Node, e.AckType, e.AckID), fmt.Sprintf("%d is silent on request %d:%d", e.Node, e.AckType, e.AckID), "closed",
		}[e.Kind])
	}
	s.heard[last] = len(s.l.events)
}

// name says what a message is and what it is about.
func name(m Message) string {
	switch m := m.(type) {
	case *Info:
		return fmt.Sprintf("INFO %d", m.Object)
	case *Data:
		return fmt.Sprintf("DATA %v", m.Position)
	case *Flush:
		return fmt.Sprintf("FLUSH %v", m.Position)
	case *Squelch:
		return fmt.Sprintf("SQUELCH %v", m.Position)
	case *AckReq:
		return fmt.Sprintf("ACKREQ %d:%d", m.AckType, m.AckID)
	case *Ack:
		if m.AckType >= firstAppAck {
			return fmt.Sprintf("ACK %d:%d", m.AckType, m.AckID)
		}
		return fmt.Sprintf("ACK %d", m.AckType)
	}
	return strings.ToUpper(strings.TrimPrefix(fmt.Sprintf("%T", m), "*norm."))
}

// detail says the rest.
func detail(m Message) string {
	var out strings.Builder
	switch m := m.(type) {
	case *Data:
		if m.Flags&FlagRepair != 0 {
			out.WriteString(" repair")
		}
	case *CC:
		if rate, ok := m.Ext.Rate(); ok {
			fmt.Fprintf(&out, " rate %.0f", unquantizeRate(rate))
		}
		for i := range m.Items.All() {
			fmt.Fprintf(&out, " %d flags %02x", i.Node, i.Flags)
		}
	case *Ack:
		if cc, ok := m.Ext.CC(); ok && m.AckType == AckCC {
			fmt.Fprintf(&out, " flags %02x rate %.0f", cc.Flags, unquantizeRate(cc.Rate))
		}
	case *Flush:
		for n := range m.Nodes.All() {
			fmt.Fprintf(&out, " to %d", n)
		}
	case *AckReq:
		for n := range m.Nodes.All() {
			fmt.Fprintf(&out, " to %d", n)
		}
	case *Squelch:
		fmt.Fprintf(&out, " %x", m.Invalid)
	case *Nack:
		out.WriteString(asks(m.Requests))
	case *RepairAdv:
		out.WriteString(asks(m.Requests))
	}
	return out.String()
}

func asks(r Requests) string {
	var out strings.Builder
	for q := range r.All() {
		level := map[uint8]string{LevelSegment: "symbol", LevelBlock: "block", LevelObject: "object", LevelInfo: "info"}[q.Level]
		fmt.Fprintf(&out, " %s %v", level, q.First)
		if q.Last != q.First {
			fmt.Fprintf(&out, "-%v", q.Last)
		}
	}
	return out.String()
}
