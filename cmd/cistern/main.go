// Command cistern is how people and scripts talk to a box.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/cistern-edge/cistern/admin/cli"
)

// version is set by the linker in releases.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version})
	stop()
	os.Exit(code)
}
