package appliance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// screen shows where the box is and how it is on the machine's own screen.
func (b *Box) screen(ctx context.Context) {
	var shown []byte
	for {
		text := b.State().screen()
		if tty, err := os.OpenFile("/dev/tty0", os.O_WRONLY, 0); err == nil {
			if !bytes.Equal(text, shown) {
				shown = text
				_, _ = tty.Write(text) // a machine without a screen
			}
			_ = tty.Close()
		}
		if pause(ctx, 2*time.Second) {
			return
		}
	}
}

// screen is what is shown: cleared first.
func (s State) screen() []byte {
	var t strings.Builder
	t.WriteString("\033[2J\033[H\n  Cistern " + s.Release.Version + "\n\n")
	switch {
	case len(s.Address) == 0:
		t.WriteString("  No address yet.\n")
	default:
		for _, a := range s.Address {
			if strings.Contains(a, ":") {
				a = "[" + a + "]"
			}
			fmt.Fprintf(&t, "  Panel  http://%s/\n  Proxy  http://%s:3142\n", a, a)
		}
	}
	state := "It works."
	if !s.Healthy {
		state = "Waiting for " + s.Waiting + "."
	}
	fmt.Fprintf(&t, "\n  %s System in slot %s, start %d.\n", state, strings.ToUpper(string(s.Slot)), s.Boots)
	if len(s.Took) > 0 {
		fmt.Fprintf(&t, "  Taken from the partition CONFIG: %s.\n", strings.Join(s.Took, ", "))
	}
	if s.HostKey != "" {
		t.WriteString("  SSH    ssh cistern@ADDRESS, host key " + s.HostKey + "\n")
	}
	if s.OnTrial {
		t.WriteString("  This is a new system on trial: it has still to show that it works.\n")
	}
	if s.Last != nil && s.Last.Reason != "" {
		fmt.Fprintf(&t, "  Last update (%s) %s: %s.\n", s.Last.Version, s.Last.State, s.Last.Reason)
	}
	return []byte(t.String())
}
