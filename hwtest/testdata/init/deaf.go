// The init of a broken release: the driver of the network card is missing.
package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cistern-edge/cistern/image/appliance"
)

func main() {
	if filepath.Base(os.Args[0]) == "modprobe" {
		_ = appliance.Modprobe(os.Args[1:]) // what fails is not found, here as anywhere
		return
	}
	if err := appliance.Mounts(); err != nil {
		panic(err)
	}
	drivers, err := filepath.Glob("/usr/lib/modules/*/kernel/drivers/net/virtio_net.ko*")
	if err != nil || len(drivers) != 1 {
		panic(drivers)
	}
	if err := os.WriteFile(drivers[0], []byte("no driver"), 0o600); err != nil {
		panic(err)
	}
	ring := appliance.NewRing(1<<20, os.Stderr)
	box, err := appliance.New(appliance.Config{Daemon: "/bin/cisternd", Patience: 40 * time.Second}, slog.New(slog.NewTextHandler(ring, nil)), ring)
	if err != nil {
		panic(err)
	}
	if _, err := box.Run(context.Background()); err != nil {
		panic(err)
	}
	panic(appliance.Reboot())
}
