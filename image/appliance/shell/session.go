package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// prompt is what somebody without a command sees.
const (
	prompt  = "cistern> "
	welcome = "Cistern. Say a command of cistern; help lists them, exit leaves.\n"
)

// failed is the exit status of what could not be begun.
const failed = 255

// session is one channel, from its first request to its last byte.
func (s *Server) session(ctx context.Context, ch ssh.Channel, asks <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer ch.Close()
	defer cancel()
	typed := false
	for ask := range asks {
		var command struct{ Line string }
		switch ask.Type {
		case "pty-req":
			typed = true
			answer(ask, true)
			continue
		case "shell":
		case "exec":
			if err := ssh.Unmarshal(ask.Payload, &command); err != nil {
				answer(ask, false)
				continue
			}
		default: // env, subsystem, x11-req, auth-agent-req@openssh.com
			answer(ask, false)
			continue
		}
		answer(ask, true)
		parts.Go(func() { // until the client closes the channel, which ends all that is its
			defer cancel()
			for late := range asks {
				answer(late, false)
			}
		})
		t := newTalk(s, ch, &parts, typed)
		code := 0
		switch {
		case ask.Type == "shell":
			parts.Go(func() { t.listen(ctx) })
			code = t.converse(ctx)
		case typed:
			parts.Go(func() { t.listen(ctx) })
			code = t.do(ctx, command.Line, true)
		default:
			code = t.do(ctx, command.Line, false)
		}
		status := struct{ Code uint32 }{uint32(code)}
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(status)) // the client may have gone
		return
	}
}

func answer(ask *ssh.Request, ok bool) {
	if ask.WantReply {
		_ = ask.Reply(ok, nil) // the client may have gone
	}
}

// talk is a session under way.
type talk struct {
	server *Server
	ch     ssh.Channel
	out    io.Writer // for answers
	errs   io.Writer // for faults
	typed  bool      // somebody sits at a terminal, which does nothing by itself
	lines  chan string
	stop   chan struct{} // Ctrl+C was typed
	parts  *sync.WaitGroup
}

func newTalk(s *Server, ch ssh.Channel, parts *sync.WaitGroup, typed bool) *talk {
	t := &talk{server: s, ch: ch, out: ch, errs: ch.Stderr(), typed: typed, lines: make(chan string), stop: make(chan struct{}, 1), parts: parts}
	if typed {
		t.out = crlf{ch}
		t.errs = t.out
	}
	return t
}

// converse does lines until somebody leaves, and gives the status of the last.
func (t *talk) converse(ctx context.Context) (code int) {
	if t.typed {
		fmt.Fprint(t.out, welcome)
	}
	for {
		if t.typed {
			fmt.Fprint(t.out, prompt)
		}
		var line string
		var ok bool
		select {
		case line, ok = <-t.lines:
		case <-time.After(idle):
			fmt.Fprint(t.errs, "\nNothing was said for a while: goodbye.\n")
		case <-ctx.Done():
		}
		words, err := Split(line)
		switch {
		case !ok:
			return code
		case err == nil && len(words) == 0:
		case err == nil && len(words) == 1 && (words[0] == "exit" || words[0] == "quit"):
			return code
		default:
			code = t.do(ctx, line, true)
		}
	}
}

// do has the program do one line and gives its exit status. What it is told comes
// by line, or from the channel as it is.
func (t *talk) do(ctx context.Context, line string, byLine bool) int {
	words, err := Split(line)
	if err == nil && len(words) == 0 {
		err = fmt.Errorf("%w: it is empty", ErrLine)
	}
	if err == nil {
		words, err = allowed(words)
	}
	if err != nil {
		fmt.Fprintln(t.errs, "cistern:", err)
		return failed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	program := t.server.cfg.Program
	cmd := exec.CommandContext(ctx, program[0], append(append([]string{}, program[1:]...), words...)...)
	cmd.Env, cmd.Dir = t.server.cfg.Env, t.server.cfg.Dir
	cmd.Stdout, cmd.Stderr = t.out, t.errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.server.log.Error("failed to run a command", "err", err)
		fmt.Fprintln(t.errs, "cistern: the command could not be begun")
		return failed
	}
	ended := make(chan struct{})
	var feed sync.WaitGroup
	if !byLine {
		t.parts.Go(func() { // ends with the channel
			_, _ = io.Copy(in, t.ch)
			_ = in.Close()
		})
	} else {
		select {
		case <-t.stop: // typed before there was anything to stop
		default:
		}
		feed.Go(func() { t.pass(in, ended, cancel) })
	}
	err = cmd.Wait()
	close(ended)
	feed.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	return failed
}

// pass gives a program the lines that somebody types while it runs, and has it
// stopped.
func (t *talk) pass(to io.WriteCloser, ended <-chan struct{}, stop func()) {
	defer to.Close()
	for {
		select {
		case <-t.stop:
			stop()
		case line, ok := <-t.lines:
			if !ok {
				return
			}
			if _, err := io.WriteString(to, line+"\n"); err != nil {
				return
			}
		case <-ended:
			return
		}
	}
}

// listen makes lines of what comes, until the channel or ctx ends. For a terminal
// it does what terminals leave to the other side: it echoes, and takes back.
func (t *talk) listen(ctx context.Context) {
	defer close(t.lines)
	var e editor
	buf := make([]byte, 1024)
	for {
		n, err := t.ch.Read(buf)
		for _, c := range buf[:n] {
			echo, line, done := e.key(c)
			if t.typed && len(echo) > 0 {
				_, _ = t.ch.Write(echo) // who types may have gone
			}
			if e.left {
				return
			}
			if t.typed && c == 3 {
				select {
				case t.stop <- struct{}{}:
				default:
				}
			}
			if !done {
				continue
			}
			select {
			case t.lines <- line:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// editor is a line as it is typed.
type editor struct {
	line   []byte
	escape int  // within an escape sequence: how far
	after  byte // the key before
	left   bool // Ctrl+D on an empty line
}

// key takes one byte; it gives what the terminal is to show, and a line when it is
// whole.
func (e *editor) key(c byte) (echo []byte, line string, done bool) {
	before := e.after
	e.after = c
	switch {
	case e.escape == 1: // what follows ESC: one key, or a sequence
		e.escape = 0
		if c == '[' || c == 'O' {
			e.escape = 2
		}
	case e.escape == 2:
		if c >= 0x40 && c <= 0x7e {
			e.escape = 0
		}
	case c == 0x1b:
		e.escape = 1
	case c == '\n' && before == '\r':
	case c == '\r', c == '\n':
		line = string(e.line)
		e.line = nil
		return []byte("\r\n"), line, true
	case c == 4 && len(e.line) == 0:
		e.left = true
		return []byte("\r\n"), "", false
	case c == 3 || c == 21: // Ctrl+C, Ctrl+U
		echo = bytes.Repeat([]byte("\b \b"), runes(e.line))
		e.line = nil
	case c == 8 || c == 127:
		if len(e.line) == 0 {
			break
		}
		end := len(e.line) - 1
		for end > 0 && e.line[end]&0xc0 == 0x80 {
			end--
		}
		e.line = e.line[:end]
		echo = []byte("\b \b")
	case c == '\t':
		return e.key(' ')
	case c >= ' ' && len(e.line) < maxText:
		e.line = append(e.line, c)
		echo = []byte{c}
	}
	return echo, "", false
}

// runes counts the characters of UTF-8.
func runes(text []byte) (n int) {
	for _, c := range text {
		if c&0xc0 != 0x80 {
			n++
		}
	}
	return n
}

// crlf writes for a terminal that does nothing by itself.
type crlf struct{ to io.Writer }

// Write gives how much of p was taken.
func (w crlf) Write(p []byte) (int, error) {
	if _, err := w.to.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}
