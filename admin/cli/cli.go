// Package cli is the commands of cistern: what people and scripts say to a box.
//
// Each command asks the box's API (admin/client) and prints what it answered,
// for people or, with --json, as the API said it. It keeps no state and refuses
// to guess: an object that several are called by is an error. Start reading at
// [Run].
package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/cistern-edge/cistern/admin/client"
)

// Env is what the commands get from the process.
type Env struct {
	// Stdin is asked before something is lost; nil answers no.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Getenv is os.Getenv.
	Getenv func(string) string
	// Version of the program.
	Version string
}

// Exit codes of Run.
const (
	Done    = 0 // did what was asked
	Failed  = 1 // could not
	Misused = 2 // was asked for something that there is not
)

// grammar is the command line.
type grammar struct {
	Box     string           `help:"Address of the box's API." default:"http://127.0.0.1:8080" placeholder:"URL"`
	Token   string           `help:"Admin token; else CISTERN_TOKEN, else the file admin.token in --data." placeholder:"TOKEN"`
	Data    string           `help:"The box's data directory, where its token is found." default:"./var" placeholder:"DIR"`
	JSON    bool             `help:"Answer in JSON." name:"json"`
	Version kong.VersionFlag `help:"Print the version."`

	Status   statusCmd   `cmd:"" help:"Show the box at a glance: objects, swarms, casts, bytes saved."`
	Add      addCmd      `cmd:"" help:"Bring in a URL, a magnet link, a .torrent file or an infohash."`
	Get      getCmd      `cmd:"" help:"Download an object or a URL from the box, proved on the way."`
	Pin      pinCmd      `cmd:"" help:"Keep objects whatever room is needed."`
	Unpin    unpinCmd    `cmd:"" help:"Let go of pinned objects."`
	Evict    evictCmd    `cmd:"" help:"Remove objects, by name or by pattern."`
	Purge    purgeCmd    `cmd:"" help:"Take something down for good: it leaves the store and may not come back."`
	Scrub    scrubCmd    `cmd:"" help:"Check every body in the store now, in the background."`
	Cast     castCmd     `cmd:"" help:"Send objects to the agents by multicast, now."`
	Explain  explainCmd  `cmd:"" help:"Say what the box would do with a URL or does with an object, and why."`
	Snippets snippetsCmd `cmd:"" help:"Print DHCP option 252 lines for dnsmasq, Kea, ISC and OpenWrt."`
	Agents   agentsCmd   `cmd:"" help:"List the enrolled agents, or revoke one."`
	Update   updateCmd   `cmd:"" help:"Update an appliance, or tell what became of the last update."`
	System   systemCmd   `cmd:"" help:"Look after an appliance: its state, log, disks, installation, factory reset, restart, power, update channel."`
	Hwtest   hwtestCmd   `cmd:"" help:"Measure what a machine can do as a box, and say it in words."`
	Norm     normCmd     `cmd:"" help:"Send and receive files by reliable multicast (RFC 5740), without a box."`
}

// session is what a command works with.
type session struct {
	ctx  context.Context
	env  Env
	box  *client.Client
	json bool
}

// Main is all that a program does that is these commands: it takes the process's
// arguments and gives its exit code.
func Main(version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, os.Args[1:], Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version})
}

// exit carries kong's wish to end the process out of the parser.
type exit struct{ code int }

// Run does what the arguments (without the program's name) say and gives the
// process's exit code.
func Run(ctx context.Context, args []string, env Env) (code int) {
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case exit:
			code = reason.code
		default:
			panic(reason)
		}
	}()
	var g grammar
	parser, err := kong.New(&g,
		kong.Name("cistern"),
		kong.Description("Shows and commands a Cistern box. Objects are named by number, identity (or its beginning), URL or title."),
		kong.Writers(env.Stdout, env.Stderr),
		kong.Exit(func(code int) { panic(exit{code}) }),
		kong.Vars{"version": "cistern " + env.Version},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		fmt.Fprintln(env.Stderr, "cistern:", err)
		return Failed
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(env.Stderr, "cistern: %v\nTry: cistern --help\n", err)
		return Misused
	}
	if err := g.run(ctx, command, env); err != nil {
		fmt.Fprintln(env.Stderr, "cistern:", g.advise(err))
		return Failed
	}
	return Done
}

func (g *grammar) run(ctx context.Context, command *kong.Context, env Env) error {
	if strings.HasPrefix(command.Command(), "norm ") || command.Command() == "hwtest" && g.Hwtest.local() {
		return command.Run(&session{ctx: ctx, env: env, json: g.JSON})
	}
	token, err := client.FindToken(g.Token, env.Getenv, g.Data, g.Box)
	if err != nil {
		return err
	}
	box, err := client.New(client.Config{Box: g.Box, Token: token})
	if err != nil {
		return err
	}
	return command.Run(&session{ctx: ctx, env: env, box: box, json: g.JSON})
}

// advise adds to an error what to do about it.
func (g *grammar) advise(err error) string {
	var refused *client.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "stopped"
	case errors.Is(err, client.ErrUnreachable):
		return fmt.Sprintf("no box answers at %s.\nStart one with `cisternd` (or `make run`), or say where it is with --box URL.\n(%v)", g.Box, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("%v\nRun this as the user that the box runs as, or give the token with --token.", err)
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return fmt.Sprintf("%s wants the admin token.\nIt is in the file %s of the box's data directory: name that with --data DIR (looked in %s), or give the token with --token or CISTERN_TOKEN.",
			g.Box, client.TokenFile, filepath.Clean(g.Data))
	default:
		return err.Error()
	}
}

// printJSON answers a script.
func (s *session) printJSON(v any) error {
	out := json.NewEncoder(s.env.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// say answers a person.
func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.env.Stdout, format+"\n", args...)
}

// confirm asks before something is lost that does not come back by itself.
func (s *session) confirm(yes bool, loss string) error {
	if yes {
		return nil
	}
	answer := ""
	if s.env.Stdin != nil && !s.json {
		fmt.Fprintf(s.env.Stderr, "%s. Go on? [y/N] ", loss)
		answer, _ = bufio.NewReader(s.env.Stdin).ReadString('\n') // no answer is a no
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("%s; nothing was done (say --yes to go on without a question)", loss)
	}
	return nil
}

// terminal is where progress is drawn: standard error if it is a terminal.
func (s *session) terminal() io.Writer {
	f, ok := s.env.Stderr.(*os.File)
	if !ok || s.json {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}
