package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/cistern-edge/cistern/hwtest/actors"
)

// runCommand is `make run DEMO=1`.
type runCommand struct {
	Data   string `default:"var" help:"Data directory of the box."`
	Bin    string `default:"bin" help:"Where cisternd is."`
	Origin string `default:"127.0.0.1:8090" help:"Address of the origin; the only private destination that is opened."`
}

// Run serves a directory of the demo's own and runs cisternd until either ends.
func (c *runCommand) Run(ctx context.Context) error {
	files := filepath.Join(c.Data, "demo-origin")
	if _, err := actors.WriteContent(filepath.Join(files, "demo.iso"), 64e6, 1); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Origin)
	if err != nil {
		return fmt.Errorf("start the demo's origin: %w", err)
	}
	origin := actors.NewOrigin(files)
	origin.Start(l)
	defer origin.Close()

	config := filepath.Join(c.Data, "demo.toml")
	text := fmt.Sprintf("version = 1\n[proxy]\nallow_destinations = [%q]\n[store]\ndir = %q\n", c.Origin, c.Data)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the demo's configuration: %w", err)
	}
	fmt.Printf("An origin of the demo's own serves a file of 64 MB. Twice, and it is asked once:\n"+
		"  curl -x http://127.0.0.1:3142 -o /dev/null http://%s/demo.iso\n", c.Origin)
	box := exec.CommandContext(ctx, filepath.Join(c.Bin, "cisternd"), "--config", config, "--data", c.Data)
	box.Stdout, box.Stderr = os.Stdout, os.Stderr
	box.Cancel = func() error { return box.Process.Signal(syscall.SIGTERM) }
	err = box.Run()
	fmt.Printf("The origin answered %d requests and sent %d body bytes.\n", origin.Requests(), origin.Body())
	if ctx.Err() != nil {
		return nil
	}
	return err
}
