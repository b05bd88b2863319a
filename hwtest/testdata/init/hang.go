// The init of a broken release: it arms the watchdog and hangs.
package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/image/appliance"
)

func main() {
	if err := appliance.Mounts(); err != nil {
		panic(err)
	}
	if err := appliance.Modprobe([]string{"i6300esb"}); err != nil {
		panic(err)
	}
	dog, err := os.OpenFile("/dev/watchdog", os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	// Shorter than the system's own time, for who waits for three of them.
	if err := unix.IoctlSetPointerInt(int(dog.Fd()), unix.WDIOC_SETTIMEOUT, 10); err != nil {
		panic(err)
	}
	for {
		time.Sleep(time.Hour)
		_ = dog.Fd() // it stays open, and nobody feeds it
	}
}
