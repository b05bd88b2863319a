// Command cistern-init is PID 1 of the appliance. As /sbin/modprobe it loads the
// kernel modules that the kernel asks for, as cistern-ssh it answers SSH. What it does is in image/appliance.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cistern-edge/cistern/image/appliance"
)

// logBytes is how much of the log is kept in memory.
const logBytes = 1 << 20

func main() {
	if filepath.Base(os.Args[0]) == "modprobe" {
		if err := appliance.Modprobe(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "modprobe:", err)
			os.Exit(1)
		}
		return
	}
	if filepath.Base(os.Args[0]) == appliance.ShellName {
		if err := appliance.Shell(slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, "ssh:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "cistern-init is the first program of the appliance and does nothing elsewhere")
		os.Exit(2)
	}
	os.Exit(run())
}

// run never returns on a machine that can restart. If this program ends, the
// kernel panics and restarts the machine, and the boot loader has counted.
func run() int {
	if err := appliance.Mounts(); err != nil {
		fmt.Fprintln(os.Stderr, "cistern-init:", err)
		return 1
	}
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		console = os.Stderr
	}
	ring := appliance.NewRing(logBytes, console)
	log := slog.New(slog.NewTextHandler(ring, nil))
	box, err := appliance.New(appliance.Config{Daemon: "/bin/cisternd"}, log, ring)
	if err != nil {
		log.Error("failed to start", "err", err)
		return 1
	}
	reason, err := box.Run(context.Background())
	if err != nil {
		log.Error("failed to run", "err", err)
		return 1
	}
	end := appliance.Reboot
	if reason == appliance.Off {
		end = appliance.PowerOff
	}
	if err := end(); err != nil {
		log.Error("failed to end", "reason", reason, "err", err)
	}
	return 1
}
