//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs in a host. Set the exported fields before
// Start. The program sees the names of the lab in /etc/hosts, and the lab's
// nameserver, or none, in /etc/resolv.conf. It is killed when this process dies.
type Process struct {
	// Env is added to the environment, as "KEY=value".
	Env []string
	// Dir is the working directory; empty: that of this process.
	Dir string
	// OutputFile takes standard error, and standard output too unless Stdout is
	// set. Empty: a file of its own in Lab.Dir.
	OutputFile string
	// Stdout takes standard output apart.
	Stdout io.Writer
	// Grace is how long Stop waits between SIGTERM and SIGKILL; 0: 5 s.
	Grace time.Duration

	host *Host
	name string
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	err  error         // how it ended; read after done

	mu     sync.Mutex // guards reaped
	reaped bool       // the pid may belong to somebody else
}

// Command prepares a program to run in h; Start runs it. The name is looked up
// in PATH.
func (h *Host) Command(name string, args ...string) *Process {
	return &Process{host: h, name: name, args: args, done: make(chan struct{})}
}

// Run runs a program in h to its end and returns what it wrote to standard
// output. The error tells the end of what it wrote to standard error.
func (h *Host) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	p := h.Command(name, args...)
	var out bytes.Buffer
	p.Stdout = &out
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	if err := p.Wait(); err != nil {
		return out.Bytes(), fmt.Errorf("run %s on %s: %w: %s", name, h.name, err, p.tail(2000))
	}
	return out.Bytes(), nil
}

// Start starts the program. It is stopped, as by Stop, when ctx ends or the lab
// is closed.
func (p *Process) Start(ctx context.Context) error {
	h := p.host
	if h.ns == nil {
		return fmt.Errorf("start %s: host %s was not built", p.name, h.name)
	}
	if p.OutputFile == "" {
		base := fmt.Sprintf("%s-%s-%d.log", h.name, filepath.Base(p.name), h.lab.next())
		p.OutputFile = filepath.Join(h.lab.dir, base)
	}
	output, err := os.Create(p.OutputFile)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", p.name, h.name, err)
	}
	defer output.Close()
	p.cmd = exec.Command(p.name, p.args...)
	p.cmd.Env, p.cmd.Dir = append(os.Environ(), p.Env...), p.Dir
	p.cmd.Stdout, p.cmd.Stderr = output, output
	if p.Stdout != nil {
		p.cmd.Stdout = p.Stdout
	}
	p.cmd.WaitDelay = time.Second // for what a stray grandchild holds open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return fmt.Errorf("start %s on %s: %w", p.name, h.name, err)
	}
	go func() { // ends with the program
		select {
		case <-ctx.Done():
			_ = p.Stop()
		case <-p.done:
		}
	}()
	h.lab.onClose(p.Stop)
	h.mu.Lock()
	h.processes = append(h.processes, p)
	h.mu.Unlock()
	h.lab.log.Debug("started process", "client", h.name, "program", p.name, "pid", p.cmd.Process.Pid)
	return nil
}

// run starts the program from a thread inside the host and stays until it is
// gone: the thread that forks must live, since Pdeathsig watches the thread.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := p.fork(); err != nil {
		started <- err
		close(p.done)
		return
	}
	started <- nil
	pid := p.cmd.Process.Pid
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	// Not reaped yet, so the pid and the group are still this program's.
	p.killGroup()
	p.mu.Lock()
	p.reaped = true
	p.err = p.cmd.Wait()
	p.mu.Unlock()
	close(p.done)
}

func (p *Process) fork() error {
	if err := p.host.ns.enter(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for target, source := range p.host.lab.shown() {
		err := unix.Mount(source, target, "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a machine may have none
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return p.cmd.Start()
}

// Pid is the process id, 0 before Start.
func (p *Process) Pid() int {
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the program to end and tells how: nil for exit status 0, else
// an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Signal sends a signal to the program alone.
func (p *Process) Signal(sig syscall.Signal) error {
	if p.Pid() == 0 {
		return fmt.Errorf("signal %s: not started", p.name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	return unix.Kill(p.Pid(), sig)
}

// Stop sends SIGTERM, after Grace SIGKILL to the whole process group, and waits.
// What is left of the group when the program ends is killed too. The error says
// that the program had to be killed. Stopping what is not running is no error.
func (p *Process) Stop() error {
	if p.Pid() == 0 {
		return nil
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		<-p.done
		return nil
	}
	grace := p.Grace
	if grace == 0 {
		grace = 5 * time.Second
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	p.killGroup()
	<-p.done
	return fmt.Errorf("stop %s on %s: killed after %v", p.name, p.host.name, grace)
}

func (p *Process) killGroup() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.Pid(), unix.SIGKILL) // ESRCH: nobody left
	}
}

// Output reads what the program wrote to OutputFile so far.
func (p *Process) Output() ([]byte, error) {
	out, err := os.ReadFile(p.OutputFile)
	if err != nil {
		return nil, fmt.Errorf("read output of %s: %w", p.name, err)
	}
	return out, nil
}

// tail is the end of the output, for messages.
func (p *Process) tail(n int) []byte {
	out, _ := os.ReadFile(p.OutputFile)
	return out[max(0, len(out)-n):]
}
