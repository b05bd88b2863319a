//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

func TestProcessRunsInItsHost(t *testing.T) {
	p := newPair(t, lab.LinkConfig{})
	out, err := p.a.Run(t.Context(), "cat", "/proc/net/dev", "/etc/hosts", "/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"eth0", p.b.Addr().String() + " b", "no nameserver"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil || strings.Contains(string(hosts), p.b.Addr().String()+" b") {
		t.Errorf("the hosts file of the machine changed: %v", err)
	}
	_, err = p.a.Run(t.Context(), "sh", "-c", "echo out; echo reason >&2; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "reason") {
		t.Errorf("failed program: %v", err)
	}
	if _, err := p.a.Run(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("missing program: %v", err)
	}
}

// gone tells whether no process has the pid any more, waiting for the kernel to
// reap what is not our child.
func gone(t *testing.T, pid int) bool {
	t.Helper()
	for range 200 {
		if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
			return true
		}
		stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return true // a zombie nobody reaps runs no more
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// child starts a shell that writes the pid of a child of its own and stays.
func child(t *testing.T, h *lab.Host, before, after string) (p *lab.Process, grandchild int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p = h.Command("sh", "-c", before+"sleep 1000 & echo $!; "+after)
	p.Stdout = w
	p.Grace = 300 * time.Millisecond
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	line := make([]byte, 20)
	n, err := r.Read(line)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return p, atoi(strings.TrimSpace(string(line[:n])))
}

func TestProcessIsStoppedWithItsGroup(t *testing.T) {
	l := lab.Test(t)
	h := l.Host("h")
	up(t, l)
	p, grandchild := child(t, h, "", "wait")
	if err := p.Stop(); err != nil {
		t.Errorf("a willing program: %v", err)
	}
	if !gone(t, p.Pid()) || !gone(t, grandchild) {
		t.Error("something of the willing program is left")
	}
	if err := p.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after the end: %v", err)
	}

	p, grandchild = child(t, h, "trap '' TERM; ", "while :; do sleep 0.05; done")
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a stubborn program: %v", err)
	}
	if !gone(t, p.Pid()) || !gone(t, grandchild) {
		t.Error("something of the stubborn program is left")
	}
}

func TestProcessEndsWithItsContextAndTheLab(t *testing.T) {
	l := lab.Test(t)
	h := l.Host("h")
	up(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	p := h.Command("sleep", "1000")
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-p.Done()
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("after its context: %v", err)
	}
	q := h.Command("sleep", "1000")
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !gone(t, q.Pid()) {
		t.Error("a program outlived its lab")
	}
	if h2 := l.Host("late"); l.Up(t.Context()) == nil || h2.Command("true").Start(t.Context()) == nil {
		t.Error("a closed lab still builds")
	}
}

func TestKilledProcessStartsAgain(t *testing.T) {
	l := lab.Test(t)
	h := l.Host("h")
	up(t, l)
	for range 2 {
		p := h.Command("sleep", "1000")
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("after kill -9: %v", err)
		}
	}
}

// crashing marks the environment of the process that runs crash.
const crashing = "LAB_TEST_CRASH_DIR"

// A program in a lab dies with the process that holds the lab, whatever way that
// ends.
func TestNothingOutlivesACrash(t *testing.T) {
	lab.Require(t)
	holder := exec.Command("/proc/self/exe")
	holder.Env = append(os.Environ(), crashing+"="+t.TempDir())
	out, err := holder.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Fatalf("holder ended with %v: %s", err, out)
	}
	pid := atoi(strings.TrimSpace(string(out)))
	if pid == 0 || !gone(t, pid) {
		t.Errorf("program %d outlived its holder", pid)
	}
}

// crash is the process that TestNothingOutlivesACrash lets die: it writes the pid
// of a program in its lab and kills itself.
func crash() error {
	l, err := lab.New(lab.Config{Dir: os.Getenv(crashing)}, discard())
	if err != nil {
		return err
	}
	p := l.Host("h").Command("sleep", "1000")
	if err := p.Start(context.Background()); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(itoa(p.Pid()) + "\n"); err != nil {
		return err
	}
	return unix.Kill(os.Getpid(), unix.SIGKILL)
}
