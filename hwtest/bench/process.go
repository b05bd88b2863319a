//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
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
func start(ctx context.Context, addr, log, name string, args ...string) (*server, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s := &server{cmd: exec.Command(name, args...), addr: addr, log: log, gone: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = out, out
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

// cpu is the processor time of a program and its children, in seconds, to a
// hundredth (proc_pid_stat(5): utime and stime).
func (s *server) cpu() (float64, error) {
	pid := s.cmd.Process.Pid
	sum, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		used, err := cpuOf(n)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

func cpuOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), ") ") // the name may hold anything
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100, errors.Join(err1, err2) // USER_HZ is 100 on every Linux
}

// freeAddr is an address on loopback that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
