package appliance

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/image"
)

// start is what a start does to what is noted: the Box is a new one each time.
func (b *bench) start(boot Boot, release image.Release) []Slot {
	next := &Box{log: b.log, ring: b.ring, boot: boot, state: b.state, release: release, setEnv: b.setEnv}
	next.settle()
	return next.slots()
}

// TestSlots follows an update that fails, one that is refused, and one that
// stays.
func TestSlots(t *testing.T) {
	b := newBench(t, Boot{Slot: image.SlotA})
	one, two := image.Release{Version: "1.0", Serial: 100}, image.Release{Version: "1.1", Serial: 101}
	check := func(when string, got []Slot, a, other Slot) {
		t.Helper()
		a.Slot, other.Slot = image.SlotA, image.SlotB
		if len(got) != 2 || got[0] != a || !strings.HasPrefix(got[1].Reason, other.Reason) {
			t.Errorf("%s: %+v", when, got)
			return
		}
		if got[1].Reason = other.Reason; got[1] != other {
			t.Errorf("%s: %+v", when, got)
		}
	}
	running := Slot{Version: "1.0", Serial: 100, State: SlotRunning, Starts: 1}
	check("first start", b.start(b.boot, one), running, Slot{State: SlotUnknown})

	b.outcome(func(o *Outcome) { *o = Outcome{Version: "1.1", Serial: 101, Slot: "b", State: "trial"} })
	b.noteUpdate(image.SlotB, "1.1", 101)
	check("installed", b.slots(), running, Slot{Version: "1.1", Serial: 101, State: SlotNext})
	tried := b.start(Boot{Slot: image.SlotB, Trial: image.SlotB, Left: "2"}, two)
	check("on trial", tried, Slot{Version: "1.0", Serial: 100, State: SlotPrevious, Starts: 1}, Slot{Version: "1.1", Serial: 101, State: SlotTrial, Starts: 1})

	running.Starts = 2
	failed := Slot{Version: "1.1", Serial: 101, State: SlotFailed, Starts: 1, Reason: "1.1 was started 3 times"}
	check("fell back", b.start(Boot{Slot: image.SlotA, Trial: image.SlotB, Left: "none"}, one), running, failed)
	b.outcome(func(o *Outcome) { *o = Outcome{Version: "0.9", Slot: "b", State: "refused", Reason: "older"} })
	check("another was refused since", b.slots(), running, failed)

	b.noteUpdate(image.SlotB, "1.2", 102)
	check("a third, not started", b.slots(), running, Slot{Version: "1.2", Serial: 102, State: SlotPrevious})
	b.noteUpdate(image.SlotB, "", 0)
	check("half written", b.slots(), running, Slot{State: SlotUnknown})
	for _, bad := range []string{"null", "{", `{"a":7}`} {
		if err := os.WriteFile(filepath.Join(b.state, slotsFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.start(b.boot, one); got[0].State != SlotRunning || got[0].Starts != 1 {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func TestUnit(t *testing.T) {
	r := NewRing(1<<16, nil)
	u := r.Unit("cisternd")
	for _, part := range []string{"one\r\nt", "wo", "\n\n  \n", strings.Repeat("x", longestLine+1), "\nlast"} {
		if n, err := u.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	want := "one unit=cisternd\ntwo unit=cisternd\n" + strings.Repeat("x", longestLine) + " unit=cisternd\nx unit=cisternd\n"
	if got := r.Bytes(); !bytes.Equal(got, []byte(want)) {
		t.Errorf("%q", got)
	}
}
