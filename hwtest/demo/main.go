// Command demo shows the box at work on one machine: `demo run` with an origin
// of its own on loopback, `demo lan` on a whole LAN of network namespaces, with
// and without the box.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type program struct {
	Run runCommand `cmd:"" help:"Run the box on loopback with an origin of its own."`
	LAN lanCommand `cmd:"" name:"lan" help:"Release day on a LAN of network namespaces, without and with the box (root)."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var p program
	k := kong.Parse(&p, kong.Name("demo"), kong.BindTo(ctx, (*context.Context)(nil)))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := k.Run(log); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
