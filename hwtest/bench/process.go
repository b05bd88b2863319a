//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// server is a program that serves on loopback.
type server struct {
	cmd  *exec.Cmd
	addr string
	log  string
	gone chan struct{}
}

// start runs a program that listens on addr, and waits until it does. It is
// killed when this process dies.
func start(ctx context.Context, addr, log string, env []string, name string, args ...string) (*server, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s := &server{cmd: exec.Command(name, args...), addr: addr, log: log, gone: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the program
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return s, conn.Close()
		}
		select {
		case <-s.gone:
			said, _ := os.ReadFile(log)
			return nil, fmt.Errorf("%s ended before it listened on %s: %s", name, addr, said)
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the program; one that does not go is killed.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	select {
	case <-s.gone:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
}

// cpu is the processor time of a program and its children, in seconds.
func (s *server) cpu() (sum float64, err error) {
	err = s.each(func(pid int) error {
		var used unix.Timespec
		// The clock of another process (clock_getcpuclockid(3)): CPUCLOCK_SCHED.
		if err := unix.ClockGettime(int32(^pid<<3|2), &used); err != nil {
			return fmt.Errorf("read the clock of process %d: %w", pid, err)
		}
		sum += float64(used.Nano()) / 1e9
		return nil
	})
	return sum, err
}

// rss is the memory of a program and its children, in bytes: what several of
// them share counts for each.
func (s *server) rss() (sum float64, err error) {
	err = s.each(func(pid int) error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return err
		}
		var size, resident int64
		if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
			return err
		}
		sum += float64(resident) * float64(os.Getpagesize())
		return nil
	})
	return sum, err
}

// each calls f for a program and all that descend from it.
func (s *server) each(f func(pid int) error) error { return descend(s.cmd.Process.Pid, f) }

func descend(pid int, f func(pid int) error) error {
	if err := f(pid); err != nil {
		return err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return err
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that has ended
		}
		if err != nil {
			return err
		}
		for _, child := range strings.Fields(string(children)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				return err
			}
			if err := descend(n, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// freeAddr is an address on loopback that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
