package appliance

import (
	"context"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// biteAfter is how long the hardware waits for a sign of life before it resets
// the machine, in seconds.
const biteAfter = 30

// watchdog resets the machine when this program hangs. Hardware first; the
// kernel's own timer where there is none.
type watchdog struct {
	dev *os.File // nil: there is none
	log *slog.Logger
}

// comesWithin is how long the driver of a hardware watchdog may take to load.
const comesWithin = 10 * time.Second

func openWatchdog(ctx context.Context, m *modules, log *slog.Logger) watchdog {
	w := watchdog{log: log}
	var err error
	for deadline := time.Now().Add(comesWithin); ; {
		if w.dev, err = os.OpenFile("/dev/watchdog", os.O_WRONLY, 0); err == nil {
			break
		}
		if time.Now().After(deadline) || pause(ctx, 100*time.Millisecond) {
			break
		}
	}
	if w.dev == nil {
		if err := m.load("softdog"); err != nil {
			log.Warn("failed to load the kernel's watchdog", "err", err)
		}
		if w.dev, err = os.OpenFile("/dev/watchdog", os.O_WRONLY, 0); err != nil {
			log.Warn("found no watchdog", "err", err)
			return w
		}
	}
	if err := unix.IoctlSetPointerInt(int(w.dev.Fd()), unix.WDIOC_SETTIMEOUT, biteAfter); err != nil {
		log.Warn("failed to set the watchdog", "err", err)
	}
	return w
}

// run feeds it while the system is alive, until ctx is done, and does not stop
// it: what comes after, a reboot, may hang too.
func (w watchdog) run(ctx context.Context, alive func() bool) {
	for w.dev != nil {
		if !alive() {
			w.log.Error("left the watchdog to bite: the system hangs")
			return
		}
		if _, err := w.dev.Write([]byte{0}); err != nil {
			w.log.Error("failed to feed the watchdog", "err", err)
		}
		if pause(ctx, biteAfter*time.Second/6) {
			return
		}
	}
}
