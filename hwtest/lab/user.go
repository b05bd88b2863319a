//go:build linux

package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

// inUserNamespace marks the environment of a program that Main started again.
const inUserNamespace = "CISTERN_LAB_USER_NAMESPACE"

// Need is something a test needs of the machine beyond network namespaces.
type Need int

// What a test may need.
const (
	// Wires: delay, seeded and Gilbert–Elliott loss, Wi-Fi; it takes TAPs.
	Wires Need = iota
	// Root: real root, for programs that insist on it.
	Root
)

// TB is what the helpers for tests use of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Failed() bool
}

// Main runs a test binary's tests: call it from TestMain with the *testing.M.
// Where this process may not make network namespaces it runs itself again in a
// user namespace, in which it may, with the same arguments, and says so. It does
// not return.
func Main(m interface{ Run() int }) {
	if os.Getenv(inUserNamespace) != "" || usable() == nil {
		os.Exit(m.Run())
	}
	code, err := runInUserNamespace()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: neither root nor a user namespace is to be had:", err)
		os.Exit(m.Run()) // Require decides in each test
	}
	os.Exit(code)
}

// runInUserNamespace runs this program again as root of a new user namespace.
func runInUserNamespace() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig watches the thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inUserNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	fmt.Fprintln(os.Stderr, "lab: not root; running again in a user namespace: no wires (delay, seeded loss, Wi-Fi)")
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// usable tells why network namespaces cannot be made, nil if they can.
func usable() error {
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	return errors.Join(ns.prepare(), ns.close())
}

// missing tells why this machine has not got what is needed, nil if it has.
func missing(need Need) error {
	switch need {
	case Root:
		if os.Getenv(inUserNamespace) != "" || os.Geteuid() != 0 {
			return errors.New("not root")
		}
		return nil
	case Wires:
		return probeWire()
	}
	return fmt.Errorf("unknown need %d", int(need))
}

func probeWire() error {
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	tap, err := openTAP(end{ns: ns, name: "probe0"})
	if err != nil {
		return errors.Join(err, ns.close())
	}
	return errors.Join(tap.Close(), ns.close())
}

// Require skips the test where this machine cannot make network namespaces or
// has not got what the test needs beyond them; with CI=true in the environment
// it fails it instead.
func Require(t TB, needs ...Need) {
	t.Helper()
	err := usable()
	for _, need := range needs {
		err = errors.Join(err, missing(need))
	}
	if err == nil {
		return
	}
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		t.Fatalf("lab: this machine lacks what the test needs, and CI allows no skip: %v", err)
		return
	}
	t.Skipf("lab: SKIPPED, this machine lacks what the test needs: %v", err)
}

// Test makes a lab for one test, after Require, and closes it with the test. If
// the test failed, the end of what each program wrote goes to its log.
func Test(t TB, needs ...Need) *Lab {
	t.Helper()
	Require(t, needs...)
	l, err := New(Config{}, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatalf("lab: %v", err)
		return nil
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.logOutputs(t)
		}
		if err := l.Close(); err != nil {
			t.Errorf("lab: close: %v", err)
		}
	})
	return l
}

func (l *Lab) logOutputs(t TB) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		h.mu.Lock()
		for _, p := range h.processes {
			t.Logf("lab: %s on %s wrote:\n%s", p.name, h.name, p.tail(4000))
		}
		h.mu.Unlock()
	}
}

// testWriter writes log lines to a test's log.
type testWriter struct{ t TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
