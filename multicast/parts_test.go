package multicast

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/content/contenttest"
)

func TestConfigsTellEveryFault(t *testing.T) {
	for _, c := range []struct {
		err  error
		keys []string
	}{
		{CasterConfig{}.Validate(), nil},
		{CasterConfig{Interfaces: []string{"eth0"}, Mode: ASM, Groups: netip.MustParsePrefix("ff3e::/32")}.Validate(), nil},
		{
			CasterConfig{
				Mode: "all", Groups: netip.MustParsePrefix("10.0.0.0/8"), TTL: 300, Rate: 5, SegmentSize: 9, K: 250, Parity: 30,
				RepairRounds: -1, MaxSessions: 65, Lead: time.Hour,
			}.Validate(),
			[]string{"mode", "groups", "ttl", "rate", "segment_size", "parity", "repair_rounds", "max_sessions", "lead"},
		},
		{DeskConfig{}.Validate(), nil},
		{DeskConfig{Name: strings.Repeat("x", 65), MinSize: -1, MinAgents: -1, Grace: -1}.Validate(), []string{"name", "min_size", "min_agents", "grace"}},
		{CatcherConfig{}.Validate(), nil},
		{CatcherConfig{NoticeWait: -1, Buffer: 1}.Validate(), []string{"notice_wait", "buffer"}},
	} {
		if (c.err == nil) != (c.keys == nil) {
			t.Errorf("%v, want faults in %v", c.err, c.keys)
		}
		for _, key := range c.keys {
			if c.err == nil || !strings.Contains(c.err.Error(), "multicast."+key) {
				t.Errorf("%v does not name %s", c.err, key)
			}
		}
	}
}

func TestPacerKeepsTheRate(t *testing.T) {
	for _, rate := range []int64{1e6, 100e6, 2e9} {
		const frame = 1500
		now := time.Unix(0, 0)
		p := newPacer(now, rate, frame)
		end := now.Add(time.Second)
		sent, burst := 0, 0
		for now.Before(end) {
			n := 0
			for p.ready(now) {
				p.spend(frame)
				n++
			}
			sent += n
			burst = max(burst, n)
			now = p.next(now)
		}
		if got, want := float64(sent*frame*8), float64(rate); got > want*1.01 || got < want*0.9 {
			t.Errorf("%.0f bits went in a second, want %.0f", got, want)
		}
		if most := burstPackets; burst > most {
			t.Errorf("a burst of %d packets at %d bit/s, want at most %d", burst, rate, most)
		}
		// Woken late now and then, by less than the credit, it catches up.
		sent = 0
		start, each := now, max(20, int(rate/1e7))
		for i := 1; now.Sub(start) < 10*time.Second; i++ {
			for p.ready(now) {
				p.spend(frame)
				sent++
			}
			if now = p.next(now); i%each == 0 {
				now = now.Add(4 * time.Millisecond)
			}
		}
		if got, want := float64(sent*frame*8)/now.Sub(start).Seconds(), float64(rate); got > want*1.02 || got < want*0.95 {
			t.Errorf("%.0f bits a second went with late wake-ups, want %.0f", got, want)
		}
		// After a long silence no more than one burst has gathered.
		now = now.Add(time.Hour)
		n := 0
		for p.ready(now) {
			p.spend(frame)
			n++
		}
		if most := burstPackets; n > most {
			t.Errorf("%d packets at once after a silence, want at most %d", n, most)
		}
	}
}

func TestExtentsCoverTheObject(t *testing.T) {
	for _, size := range []int64{1, content.BlockSize, extentSize, extentSize + 1, 200e6, 8<<30 + 7, 3e12} {
		each := extentLength(size)
		n := extents(size, each)
		if n > maxExtents || each%content.BlockSize != 0 {
			t.Errorf("%d bytes make %d extents of %d", size, n, each)
		}
		var end int64
		for i := range uint32(n) {
			r := extent(i, size, each)
			if r.Off != end || r.Len() == 0 {
				t.Fatalf("extent %d of %d bytes is %s", i, size, r)
			}
			end = r.End
		}
		if end != size || extent(uint32(n), size, each).Len() != 0 {
			t.Errorf("extents of %d bytes end at %d", size, end)
		}
	}
}

func TestTrayGathersAndReadsBack(t *testing.T) {
	data := noise(9, (gatherWindows+2)*gatherSize)
	sink := contenttest.NewSink(int64(len(data)), nil)
	sink.Have(data[5000:6000], 5000)
	const base = 1000
	tr := newTray(sink, content.Range{Off: base, End: int64(len(data))}, newGatherPool())
	write := func(off, n int) {
		t.Helper()
		if _, err := tr.WriteAt(data[off:off+n], int64(off-base)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(off, n, zeroFrom int) {
		t.Helper()
		got := bytes.Repeat([]byte{0xee}, n)
		if _, err := tr.ReadAt(got, int64(off-base)); err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(data[off : off+n])
		clear(want[zeroFrom-off:])
		if !bytes.Equal(got, want) {
			t.Errorf("read %d bytes at %d: other bytes than were written", n, off)
		}
	}
	write(base, 1400)
	write(base+1400, 1400)
	check(base, 4000, base+2800) // in the buffer, and nothing beyond
	if sink.Accepted() != 1000 {
		t.Errorf("%d bytes were handed on, want them gathered", sink.Accepted()-1000)
	}
	for i := range gatherWindows {
		if sink.Accepted() != 1000 {
			t.Errorf("%d bytes were handed on with %d windows open", sink.Accepted()-1000, i+1)
		}
		write(gatherSize*(i+1)-700, 1400) // half of it in the window before
	}
	if sink.Accepted() != 1000+2800+700 { // the first one went out
		t.Errorf("%d bytes were handed on, want those of one window", sink.Accepted()-1000)
	}
	write(gatherSize+700, gatherSize-1400) // one is full
	if sink.Accepted() != 1000+2800+700+gatherSize {
		t.Errorf("%d bytes were handed on, want those of two windows", sink.Accepted()-1000)
	}
	check(base, 2800, base+2800)
	write(base+2800, 9000) // behind the buffer, over what was here
	check(base, 2800+9000, base+2800+9000)
	if _, err := tr.WriteAt(make([]byte, 2), int64(len(data)-base-1)); err == nil {
		t.Error("a write beyond the extent was taken")
	}
	if _, err := tr.WriteAt(make([]byte, 2), -1); err == nil {
		t.Error("a write before the extent was taken")
	}
	if err := tr.flush(); err != nil {
		t.Fatal(err)
	}
	if want := int64(2800 + 9000 + gatherWindows*1400 + gatherSize - 1400); sink.Accepted() != want {
		t.Errorf("%d bytes were accepted, want %d", sink.Accepted(), want)
	}
	if sink.Again() != 0 || len(sink.Faults()) > 0 {
		t.Errorf("%d bytes were written again, faults %v", sink.Again(), sink.Faults())
	}
	tr.closed = true
	if _, err := tr.WriteAt(data[:1], 0); err == nil {
		t.Error("a closed tray took bytes")
	}
}

func TestAuth(t *testing.T) {
	b := stillBox(t, openStore(t))
	a, err := b.roster.Enrol("one", "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.roster.Enrol("two", "")
	if err != nil {
		t.Fatal(err)
	}
	box, agent := boxAuth{b.key, b.roster}, newAgentAuth(b.key.Public(), a.Secret)
	msg := []byte("a message")
	field := make([]byte, box.Overhead())
	box.Seal(field, msg)
	if err := agent.Open(boxNode, field, msg); err != nil {
		t.Errorf("the box's signature: %v", err)
	}
	if agent.Open(a.Node, field, msg) == nil || agent.Open(boxNode, field, []byte("another")) == nil || agent.Open(boxNode, field[:32], msg) == nil {
		t.Error("a forged message was believed")
	}
	clear(field)
	agent.Seal(field, msg)
	if err := box.Open(a.Node, field, msg); err != nil {
		t.Errorf("the agent's MAC: %v", err)
	}
	if box.Open(other.Node, field, msg) == nil || box.Open(77, field, msg) == nil || box.Open(a.Node, field, []byte("another")) == nil {
		t.Error("forged feedback was believed")
	}
	if err := b.roster.Revoke(a.Node); err != nil {
		t.Fatal(err)
	}
	if box.Open(a.Node, field, msg) == nil {
		t.Error("feedback of a revoked agent was believed")
	}
}

func TestTallyBoundsWhatAgentsSay(t *testing.T) {
	var list []ReceiverStats
	id := content.ID{Root: content.Hash{1}, Size: 100}
	for i, c := range []struct {
		r     Report
		fresh int64
	}{
		{Report{ID: id, State: stateJoined}, 0},
		{Report{ID: id, State: stateLeft, Received: 60, Missing: 1 << 40, Loss: 7}, 60},
		{Report{ID: id, State: stateLeft, Received: 1 << 40}, 40},
		{Report{ID: id, State: stateLeft, Received: -5}, 0},
	} {
		if fresh := tally(&list, Agent{Node: 5, Name: "x"}, c.r, time.Now()); fresh != c.fresh {
			t.Errorf("report %d counted %d bytes, want %d", i, fresh, c.fresh)
		}
	}
	if len(list) != 1 || list[0].Received != 100 || list[0].Missing != 0 || list[0].Loss != 0 {
		t.Errorf("list %+v", list)
	}
}

func TestGroupsAreSpread(t *testing.T) {
	b := stillBox(t, openStore(t))
	for i := range 64 {
		g, ok := b.caster.pick(content.ID{Root: content.Hash{0, 0, 7, byte(i / 2)}, Size: 1})
		if !ok || b.caster.groups[g] || !b.caster.cfg.Groups.Contains(g) || g == b.caster.noticeGroup().Addr() {
			t.Fatalf("session %d got group %s, %t", i, g, ok)
		}
		b.caster.groups[g] = true
	}
}
