package appliance

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// consoles are where somebody may sit: the first serial line and the machine's
// own screen and keyboard. Who sits there has the machine in his hands, and needs
// no password.
var consoles = [...]string{"/dev/ttyS0", "/dev/ttyAMA0", "/dev/tty1"}

// console takes commands from them until the machine ends: a read of a terminal
// cannot be called off, so nobody waits for it.
func (b *Box) console(ctx context.Context) {
	for _, name := range consoles {
		tty, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue // a machine without one
		}
		go func() {
			lines := bufio.NewScanner(tty)
			var c conversation
			for lines.Scan() {
				c.hear(ctx, b, lines.Text(), tty)
			}
		}()
	}
}

const consoleHelp = `
  disks          the disks of this machine and what is on them
  install DISK   copy this system to a disk, which erases it
  reset          factory reset: erase what the box has stored and been told
  restart        start anew
`

// keeper is what a conversation commands.
type keeper interface {
	Disks() []Disk
	Install(ctx context.Context, disk string) error
	Reset(ctx context.Context) error
	restart(reason string)
}

// conversation is the talk with one console: what erases something is asked for
// twice.
type conversation struct {
	// mu makes it one line at a time.
	mu      sync.Mutex
	pending string // what a "yes" would do
}

// hear does what a line says and answers.
func (c *conversation) hear(ctx context.Context, k keeper, line string, to io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	command, disk, _ := strings.Cut(strings.TrimSpace(line), " ")
	was := c.pending
	c.pending = ""
	var err error
	switch {
	case command == "":
	case command == "disks":
		for _, d := range k.Disks() {
			fmt.Fprintln(to, " ", d)
		}
	case command == "install":
		err = c.ask(k, disk, to)
	case command == "reset":
		c.pending = "reset"
		fmt.Fprintln(to, "  All that this box has stored and been told will be erased. Type yes to do it.")
	case command == "restart":
		k.restart("somebody at the console asked for it")
	case command == "yes" && was == "reset":
		err = k.Reset(ctx)
	case command == "yes" && was != "":
		fmt.Fprintln(to, "  Installing; this takes some minutes.")
		if err = k.Install(ctx, was); err == nil {
			fmt.Fprintf(to, "  Installed on %s. Take the stick out, then type restart.\n", was)
		}
	default:
		fmt.Fprint(to, consoleHelp)
	}
	if err != nil {
		fmt.Fprintf(to, "  That failed: %v.\n", err)
	}
}

// ask says what an installation erases.
func (c *conversation) ask(k keeper, name string, to io.Writer) error {
	for _, d := range k.Disks() {
		switch {
		case d.Name != name:
		case d.Own:
			return ErrOwnDisk
		default:
			c.pending = name
			fmt.Fprintf(to, "  All that is on this disk will be erased:\n  %v\n  Type yes to do it.\n", d)
			return nil
		}
	}
	return fmt.Errorf("%w: %q", ErrNoDisk, name)
}

// String is a disk in words.
func (d Disk) String() string {
	text := fmt.Sprintf("%s: %s, %d MB, holds ", d.Name, d.Model, d.Bytes/1e6)
	if d.Model == "" {
		text = fmt.Sprintf("%s: %d MB, holds ", d.Name, d.Bytes/1e6)
	}
	if len(d.Holds) == 0 {
		text += "nothing that is known"
	}
	text += strings.Join(d.Holds, ", ")
	if d.Own {
		text += " (this system was started from it)"
	}
	return text
}
